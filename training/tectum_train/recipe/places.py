"""Places in the picture among a robot's numbers, as a recipe tells them."""

from __future__ import annotations

from typing import Self

from pydantic import NonNegativeInt, PositiveFloat, model_validator

from tectum_core.architecture import Strict
from tectum_train.augment.settings import FlipConfig

__all__ = ["PlacesConfig"]

_Pairs = tuple[tuple[NonNegativeInt, NonNegativeInt], ...]


class PlacesConfig(Strict):
    """Numbers that are places in the picture: they go where augmentation moves its pixels.

    They are counted from the upper left corner of the recorded picture, x to the right and y down.
    A mirror takes x to width − x, about the middle of what the model sees.
    """

    width: PositiveFloat
    """Where the recorded picture's right edge is, as places are counted: 512 on a plane of 512, 1
    if they are shares of the picture."""
    height: PositiveFloat
    """Where its lower edge is."""
    actions: _Pairs = ()
    """x and y of each place, by where they stand in an action: [[0, 1]]."""
    states: _Pairs = ()
    """Likewise in a state."""

    @model_validator(mode="after")
    def _each_number_is_told_once(self) -> Self:
        if not (self.actions or self.states):
            raise ValueError(
                "actions: found [], and states likewise; allowed: at least one place, or places "
                "null"
            )
        for what in ("actions", "states"):
            named = [number for pair in self.of(what) for number in pair]
            if twice := [number for number in named if named.count(number) > 1]:
                raise ValueError(
                    f"{what}: found {twice[0]} twice; allowed: each number once, as the x or y of "
                    "one place"
                )
        return self

    def of(self, what: str) -> tuple[tuple[int, int], ...]:
        """Places in `actions` or `states`; in anything else there are none."""
        return {"actions": self.actions, "states": self.states}.get(what, ())

    def check_told(self, flip: FlipConfig | None, **read: bool) -> None:
        """That they are read, and that a mirror does nothing else to them.

        Args:
            flip: what the recipe's mirror does, if it has one.
            read: whether the recipe reads `actions` and `states`.

        Raises:
            ValueError: they are not, or it negates a place, or exchanges parts of one.
        """
        for what, is_read in read.items():
            pairs = self.of(what)
            if pairs and not is_read:
                raise ValueError(
                    f"data.places.{what}: found {[list(pair) for pair in pairs]}; allowed: [], "
                    f"since this recipe reads no {what}"
                )
            if flip is None:
                continue
            if negated := set(flip.negated(what)) & {number for pair in pairs for number in pair}:
                raise ValueError(
                    f"augmentation.flip.{what}: found {min(negated)}; allowed: no number of "
                    f"data.places.{what}, as places move with the mirrored picture"
                )
            exchanged = flip.exchanged(what)
            other = exchanged | {number: one for one, number in exchanged.items()}
            for x, y in pairs:
                if (other.get(x, x), other.get(y, y)) not in pairs:
                    raise ValueError(
                        f"augmentation.flip.exchanged_{what}: found {exchanged}; allowed: of the "
                        f"place [{x}, {y}] neither number, or x and y with those of another place "
                        f"in data.places.{what}"
                    )
