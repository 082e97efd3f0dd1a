"""What a generated data set says about itself: task families, same-scene pairs, held-out words.

Read from `meta/world.json` beside a LeRobot folder's own metadata, by evaluation alone.
Training does not open it, but it may see the families all the same: a recipe that names the
data set's column of them (`data.task`) learns from those labels.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

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
        ValueError: it does not hold what it should.
    """
    path = root / "meta" / "world.json"
    if not path.is_file():
        return World(families=(), instructions=())
    return World.model_validate_json(path.read_bytes())
