"""What a recipe says of its augmentation."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tectum_core.architecture import Strict

__all__ = ["AugmentationConfig", "CropConfig", "FlipConfig", "OtherViewConfig", "ViewsConfig"]

_Share = Annotated[float, Field(ge=0, le=1)]
_Areas = tuple[
    Annotated[float, Field(gt=0, le=1)],
    Annotated[float, Field(gt=0, le=1)],
]


def _check_areas(section: Strict, *names: str) -> None:
    """That each goes from least to most."""
    for name in names:
        least, most = getattr(section, name)
        if least > most:
            raise ValueError(f"{name} goes from least to most, not from {least} to {most}")


class CropConfig(Strict):
    """A random part of each picture, resized to the whole (Inception's crop, arXiv:1409.4842)."""

    area: _Areas = (0.2, 1.0)
    """Share of the picture that is shown, least and most."""
    aspect: Annotated[float, Field(ge=1, le=4)] = 4 / 3
    """Widest that the part shown is, in its heights; narrowest is one over that."""

    @model_validator(mode="after")
    def _least_is_least(self) -> Self:
        _check_areas(self, "area")
        return self


class FlipConfig(Strict):
    """Left and right exchanged: in pictures, and in everything that speaks of them.

    A mirrored picture with the action or the words of the unmirrored one teaches that they do not
    matter, so what the mirror does to each must be said, or the recipe is refused.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of samples that are mirrored."""
    actions: tuple[NonNegativeInt, ...] | None = None
    """Numbers of an action that change their sign, by place; [] if none does. Must be given where
    actions are read. Places in the picture (`data.places`) are moved without being named here."""
    states: tuple[NonNegativeInt, ...] | None = None
    """Numbers of a state that change their sign, likewise."""
    exchanged_actions: dict[NonNegativeInt, NonNegativeInt] = {}
    """Numbers of an action that are exchanged, both ways: {0: 7, 1: 8} for those of a left arm and
    a right one. Both of a pair may change their sign, too."""
    exchanged_states: dict[NonNegativeInt, NonNegativeInt] = {}
    """Numbers of a state that are exchanged, likewise."""
    words: dict[str, str] | None = None
    """Words that are exchanged, both ways and whatever their capitals: {left: right}; {} if the
    texts name no side. Must be given where instructions are read."""
    labels: dict[str, dict[NonNegativeInt, NonNegativeInt]] | None = None
    """Classes that are exchanged, both ways, of each label that names a side: {side: {0: 1}}; {} if
    none does. Must be given where labels are read."""

    @field_validator("labels")
    @classmethod
    def _classes_are_pairs(
        cls, labels: dict[str, dict[int, int]] | None
    ) -> dict[str, dict[int, int]] | None:
        """Each class once: one in two pairs would be two classes in the mirror."""
        for name, pairs in (labels or {}).items():
            named = [*pairs, *pairs.values()]
            if len(set(named)) < len(named):
                raise ValueError(f"{name}: {pairs} exchanges a class twice, or with itself")
        return labels

    @field_validator("words")
    @classmethod
    def _words_are_pairs(cls, words: dict[str, str] | None) -> dict[str, str] | None:
        """Each pair once, in small letters; a word in two of them would lose one."""
        if words is None:
            return None
        pairs, opposite = dict[str, str](), dict[str, str]()
        for pair in words.items():
            one, other = (" ".join(word.lower().split()) for word in pair)
            if not one or not other or one == other:
                raise ValueError(f"{pair[0]!r}: {pair[1]!r} are no two words that are exchanged")
            for word, against in ((one, other), (other, one)):
                if opposite.setdefault(word, against) != against:
                    raise ValueError(
                        f"{word!r} is exchanged with {opposite[word]!r} and with {against!r}; "
                        "allowed: one word for each"
                    )
            if other not in pairs:
                pairs[one] = other
        return pairs

    @model_validator(mode="after")
    def _mirroring_twice_is_nothing(self) -> Self:
        """Each number is exchanged once, and with one that changes its sign if it does."""
        for what in ("actions", "states"):
            pairs, negated = self.exchanged(what), self.negated(what)
            named = [*pairs, *pairs.values()]
            if len(set(named)) < len(named):
                raise ValueError(
                    f"exchanged_{what}: found {pairs}; allowed: each number in one pair, and with "
                    "another"
                )
            for pair in pairs.items():
                if len(set(pair) & set(negated)) == 1:
                    raise ValueError(
                        f"{what}: found {list(negated)}; allowed: both or neither of {pair[0]} and "
                        f"{pair[1]}, which are exchanged: mirroring twice must be nothing"
                    )
        return self

    def negated(self, what: str) -> tuple[int, ...]:
        """Numbers of `actions` or `states` that change their sign."""
        return {"actions": self.actions, "states": self.states}[what] or ()

    def exchanged(self, what: str) -> dict[int, int]:
        """Numbers of `actions` or `states` that are exchanged, each pair once; words have none."""
        return {"actions": self.exchanged_actions, "states": self.exchanged_states}.get(what, {})

    def changes(self, what: str) -> bool:
        """Whether it changes any of `actions`, `states`, `words` or `labels`."""
        return bool(getattr(self, what) or self.exchanged(what))

    def check_told(self, **read: bool) -> None:
        """That it says what it does to everything that is read, and to nothing else.

        Raises:
            ValueError: of some of `actions`, `states`, `words` and `labels` that are read it does
                not, or of some that are not read it does.
        """
        for name, is_read in read.items():
            told = {name: getattr(self, name), f"exchanged_{name}": self.exchanged(name)}
            for field, found in told.items():
                if found and not is_read:
                    nothing = "null" if field == name else "{}"
                    raise ValueError(
                        f"augmentation.flip.{field}: found {found}; allowed: {nothing}, since this "
                        f"recipe reads no {name}"
                    )
            if is_read and getattr(self, name) is None:
                nothing = "[]" if name in {"actions", "states"} else "{}"
                raise ValueError(
                    f"augmentation.flip.{name}: found null; allowed: what a mirror does to {name}, "
                    f"{nothing} if nothing, since this recipe reads them"
                )


class OtherViewConfig(Strict):
    """How often a view is changed, where that is not as often as the first whole one."""

    blur: _Share | None = None
    """Share of views that are blurred; None: as the first."""
    solarise: _Share | None = None
    """Share of views that are solarised; None: as the first."""


class ViewsConfig(Strict):
    """Views of one picture for objectives that compare them (SimCLR, MoCo, DINO)."""

    area: _Areas = (0.2, 1.0)
    """Share of the picture in a whole view, least and most."""
    aspect: Annotated[float, Field(ge=1, le=4)] = 4 / 3
    """Widest that the part shown is, in its heights; narrowest is one over that."""
    crops: NonNegativeInt = 0
    """Small views beside the two whole ones (DINO's local crops), for objectives that read them."""
    crop_area: _Areas = (0.05, 0.32)
    """Share of the picture in a small view, least and most."""
    crop_size: PositiveInt = 32
    """Side of a small view, pixels; a multiple of the patch, and at most the whole view's."""
    colour: _Share = 0.4
    """Brightness, contrast and saturation have factors from 1 − colour to 1 + colour: of a picture,
    of its distance from its mean grey, and of each pixel's from that pixel's own grey."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Hues turned at most by so much of the whole circle."""
    saturation: _Share | None = None
    """How far saturation goes, in place of `colour`; None: as far."""
    colour_share: _Share = 0.8
    """Share of views whose colours change."""
    grey: _Share = 0.2
    """Share of views that lose their colours."""
    blur: _Share = 0.5
    """Share of views that are blurred."""
    solarise: _Share = 0.0
    """Share of views that are solarised: what is brighter than half becomes as dark as it was
    bright."""
    second: OtherViewConfig = OtherViewConfig()
    """Of the second whole view: BYOL and DINO blur one of two nearly always and solarise the
    other."""
    small: OtherViewConfig = OtherViewConfig()
    """Of small views."""
    flip: _Share = 0.0
    """Share of views that are mirrored; for objectives that read pictures alone."""

    @model_validator(mode="after")
    def _least_is_least(self) -> Self:
        _check_areas(self, "area", "crop_area")
        return self

    def changed_as(self, other: OtherViewConfig) -> tuple[float, float]:
        """Shares of such views that are blurred and that are solarised."""
        return (
            self.blur if other.blur is None else other.blur,
            self.solarise if other.solarise is None else other.solarise,
        )

    def check_crops(self, patch_size: int, image_size: int) -> None:
        """That small views are whole patches, of which a stem's stages leave whole pixels.

        Raises:
            ValueError: they are not, or they are larger than whole views.
        """
        if self.crops and (self.crop_size % patch_size or self.crop_size > image_size):
            raise ValueError(
                f"augmentation.views.crop_size: found {self.crop_size}; allowed: multiples of "
                f"model.vision.patch_size ({patch_size}) up to model.vision.image_size "
                f"({image_size})"
            )


class AugmentationConfig(Strict):
    """Random views of pictures, drawn for each sample; all its frames are changed alike."""

    shift: Annotated[int, Field(ge=0)] = 4
    """Moved at most so many pixels each way; what comes in at the border repeats it."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Scaled by 1 − zoom to 1 + zoom about the middle."""
    crop: CropConfig | None = None
    """A random part of the picture in place of the whole, before it is zoomed and shifted; None:
    the whole."""
    colour: _Share = 0.2
    """Brightness, contrast and saturation, as in `views`."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Hues turned at most by so much of the whole circle."""
    grey: _Share = 0.0
    """Share of samples that lose their colours."""
    blur: _Share = 0.0
    """Share of samples that are blurred, by a Gaussian as in `views`."""
    flip: FlipConfig | None = None
    """Left and right exchanged in a share of samples; None: never, as robots and sentences know
    their sides."""
    action_noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of Gaussian noise on actions that are shown so that others, or frames, be
    told, in their own standard deviations. What is to be told has none."""
    views: ViewsConfig = ViewsConfig()
    """Views of single pictures, for objectives that compare them."""
