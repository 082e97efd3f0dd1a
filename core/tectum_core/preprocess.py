"""From uint8 pixels to what the model sees: the one definition, for training and serving alike.

Batched torch on whatever device the model is on. A picture passes `resize` (uint8 to
uint8, rounded as PIL rounds) and `normalise` (uint8 to float); training caches what
lies between. Actions and states are standardised here too.

Letters: B batch, H×W source pixels, S the model's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from tectum_core.architecture import Strict

__all__ = ["ActionScaling", "ImagePreprocessing", "normalise", "preprocess", "resample", "resize"]

_Finite = Annotated[float, Field(allow_inf_nan=False)]


class ImagePreprocessing(Strict):
    """How a picture becomes the model's input; part of the bundle and of every image space."""

    size: PositiveInt
    """Side of the model's input, pixels."""
    resize_mode: Literal["stretch", "center_crop"] = "stretch"
    """`stretch` brings both sides to `size`; `center_crop` brings the shorter side to
    `resize_to` and cuts the centre out."""
    resize_to: Annotated[PositiveInt, Field(le=8192)] | None = None
    """For `center_crop`: what the shorter side is brought to; at least `size`."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Both antialiased, as PIL does it; bicubic with a = -0.5."""
    mean: tuple[_Finite, _Finite, _Finite] = (0.5, 0.5, 0.5)
    """Subtracted per channel after scaling to 0..1."""
    standard_deviation: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.25, 0.25, 0.25)
    """Divided by per channel, after the mean."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if (self.resize_mode == "center_crop") != (self.resize_to is not None):
            raise ValueError("resize_to belongs to center_crop, and center_crop needs it")
        if self.resize_to is not None and self.resize_to < self.size:
            raise ValueError(f"resize_to ({self.resize_to}) is at least size ({self.size})")
        return self


class ActionScaling(Strict):
    """Names and scales of a robot's actions and state."""

    names: tuple[str, ...]
    """Name of each action dimension."""
    mean: tuple[_Finite, ...]
    """Of each dimension over the training data, in the robot's units."""
    standard_deviation: tuple[PositiveFloat, ...]
    """Likewise."""
    step_interval: PositiveFloat
    """Seconds between two steps."""
    state_names: tuple[str, ...] = ()
    """Name of each state dimension."""
    state_mean: tuple[_Finite, ...] = ()
    """Of each dimension over the training data."""
    state_standard_deviation: tuple[PositiveFloat, ...] = ()
    """Likewise."""

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        for what, values, names in (
            ("mean", self.mean, self.names),
            ("standard_deviation", self.standard_deviation, self.names),
            ("state_mean", self.state_mean, self.state_names),
            ("state_standard_deviation", self.state_standard_deviation, self.state_names),
        ):
            if len(values) != len(names):
                raise ValueError(f"{what} has {len(values)} numbers for {len(names)} names")
        return self

    def standardise(self, actions: Tensor) -> Tensor:
        """float[..., A] in the robot's units to mean 0, spread 1."""
        mean, spread = actions.new_tensor(self.mean), actions.new_tensor(self.standard_deviation)
        return (actions - mean) / spread

    def restore(self, actions: Tensor) -> Tensor:
        """Undo `standardise`."""
        mean, spread = actions.new_tensor(self.mean), actions.new_tensor(self.standard_deviation)
        return actions * spread + mean

    def standardise_state(self, state: Tensor) -> Tensor:
        """float[..., S] in the robot's units to mean 0, spread 1."""
        mean = state.new_tensor(self.state_mean)
        return (state - mean) / state.new_tensor(self.state_standard_deviation)


def resize(images: Tensor, spec: ImagePreprocessing) -> Tensor:
    """Bring pictures of one size to the model's.

    Args:
        images: uint8[B, H, W, 3], R, G, B.
        spec: mode, sizes, interpolation.

    Returns:
        uint8[B, 3, S, S]. Pictures that already fit are not touched.
    """
    pixels = resample(images, spec)
    if pixels.is_floating_point():
        pixels = pixels.round().clamp(0, 255).to(torch.uint8)
    top, left = (pixels.shape[2] - spec.size) // 2, (pixels.shape[3] - spec.size) // 2
    return pixels[:, :, top : top + spec.size, left : left + spec.size]


def resample(images: Tensor, spec: ImagePreprocessing) -> Tensor:
    """What `resize` rounds and then cuts the centre out of.

    Args:
        images: uint8[B, H, W, 3].
        spec: as in `resize`.

    Returns:
        float32[B, 3, h, w], or uint8 if the pictures already fit.
    """
    pixels = images.permute(0, 3, 1, 2)
    height, width = pixels.shape[-2:]
    if spec.resize_to is None:
        target = (spec.size, spec.size)
    else:
        shorter = min(height, width)
        # The longer side is truncated, as torchvision and transformers do.
        target = (
            int(height * spec.resize_to / shorter),
            int(width * spec.resize_to / shorter),
        )
    if (height, width) == target:
        return pixels
    return F.interpolate(
        pixels.float(), target, mode=spec.interpolation, align_corners=False, antialias=True
    )


def normalise(pixels: Tensor, spec: ImagePreprocessing) -> Tensor:
    """uint8[..., 3, S, S] to the float32 that the model sees."""
    mean = torch.tensor(spec.mean, device=pixels.device).view(3, 1, 1)
    deviation = torch.tensor(spec.standard_deviation, device=pixels.device).view(3, 1, 1)
    own = pixels.to(torch.float32, copy=True)
    return own.div_(255).sub_(mean).div_(deviation)


def to_pixels(normalised: Tensor, spec: ImagePreprocessing) -> Tensor:
    """Undo `normalise`: float[..., 3, S, S] to uint8, rounded and clipped."""
    mean = torch.tensor(spec.mean, device=normalised.device).view(3, 1, 1)
    deviation = torch.tensor(spec.standard_deviation, device=normalised.device).view(3, 1, 1)
    scaled = (normalised.float() * deviation + mean) * 255
    return scaled.round().clamp(0, 255).to(torch.uint8)


def preprocess(images: Sequence[Tensor], spec: ImagePreprocessing, device: torch.device) -> Tensor:
    """Pictures of any sizes to one batch; those of equal size are resized together.

    Args:
        images: uint8[H, W, 3] each.
        spec: the bundle's definition.
        device: where the model is.

    Returns:
        float32[B, 3, S, S], in the order given.
    """
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        by_size.setdefault(tuple(image.shape), []).append(index)
    batch = torch.empty(len(images), 3, spec.size, spec.size, device=device, dtype=torch.uint8)
    for indices in by_size.values():
        group = torch.stack([images[index] for index in indices]).to(device)
        batch[indices] = resize(group, spec)
    return normalise(batch, spec)
