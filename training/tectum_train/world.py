"""What a generated data set says about itself: task families, same-scene pairs, held-out words.

Read from `meta/world.json` beside a LeRobot folder's own metadata, by evaluation and the model
card. Training does not open it, but it may see the families all the same: a recipe that names the
data set's column of them (`data.task`) learns from those labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from tectum_train.data.errors import DataError

__all__ = ["World", "read_world"]


class _Part(BaseModel):
    """Other keys are the generator's own business."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Family(_Part):
    """One task."""

    index: int
    name: str
    partner: str | None


class _Instruction(_Part):
    """One sentence."""

    text: str
    family: str
    held_out: bool


class World(_Part):
    """The whole file, as far as it matters here."""

    families: tuple[_Family, ...]
    instructions: tuple[_Instruction, ...]

    @model_validator(mode="after")
    def _families_are_known(self) -> Self:
        names = {family.name for family in self.families}
        if len(names) < len(self.families) or len({f.index for f in self.families}) < len(names):
            raise ValueError("two families have one name or one index")
        for family in self.families:
            if family.partner is not None and family.partner not in names:
                raise ValueError(
                    f"{family.name!r} has the partner {family.partner!r}, which is no family"
                )
        return self

    def sentences(self, family: str, *, held_out: bool) -> list[str]:
        """A family's sentences, the held-out ones or the others."""
        return [i.text for i in self.instructions if i.family == family and i.held_out == held_out]

    @property
    def partners(self) -> dict[int, int]:
        """Families that share a scene, by index, both ways."""
        by_name = {family.name: family.index for family in self.families}
        return {
            family.index: by_name[family.partner]
            for family in self.families
            if family.partner is not None
        }


def read_world(root: Path) -> World:
    """The description of a generated LeRobot folder; without families if it has none.

    Raises:
        DataError: it does not hold what it should; names the file.
    """
    path = root / "meta" / "world.json"
    if not path.is_file():
        return World(families=(), instructions=())
    try:
        return World.model_validate_json(path.read_bytes())
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"]))
        raise DataError(f"{path}: {where + ': ' if where else ''}{found['msg']}") from error
