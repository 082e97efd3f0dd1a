"""From uint8 pixels to what the model sees: the one definition, for training and serving alike.

Batched torch on whatever device the model is on. A picture passes `resize` (uint8 to
uint8, rounded as PIL rounds) and `normalise` (uint8 to float); training caches what
lies between. Actions and states are standardised here too.

Letters: B batch, H×W source pixels, S the model's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from tectum_core.architecture import Strict
from tectum_core.outputs import Picture, Uint8Image

__all__ = [
    "ActionScaling",
    "ImagePreprocessing",
    "affine",
    "fits",
    "fitted",
    "kept",
    "normalise",
    "preprocess",
    "resample",
    "resize",
    "resize_on",
    "resized_intrinsics",
    "scaled",
    "shared_bytes",
]

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_ORDINARY = 16
"""A whole resampled picture may be as large as its source, or as so many inputs of the model."""
_BOUNDED, _SHARED = "cuda", 48 * 1024
"""Where torch resamples within a block's shared memory, and how many bytes of it there are."""


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

    However long and narrow they are, what this takes is bounded by their own size and the model's.

    Args:
        images: uint8[B, H, W, 3], R, G, B.
        spec: mode, sizes, interpolation.

    Returns:
        uint8[B, 3, S, S]. Pictures that already fit are not touched.
    """
    height, width = images.shape[1:3]
    rows, columns = target = _target(height, width, spec)
    if _upright(height, width, spec):
        pixels = resample(images, spec)
        top, left = (rows - spec.size) // 2, (columns - spec.size) // 2
        pixels = pixels[:, :, top : top + spec.size, left : left + spec.size]
    elif spec.resize_mode == "stretch":
        pixels = resample(images.transpose(1, 2), spec).transpose(2, 3)
    else:
        pixels = _enlarged_centre(images, target, spec)
    return pixels.round().clamp(0, 255).to(torch.uint8) if pixels.is_floating_point() else pixels


def resize_on(images: Tensor, spec: ImagePreprocessing, device: torch.device) -> Tensor:
    """`resize` on a device, or ahead of it where it shrinks more than the device can.

    Args:
        images: uint8[B, H, W, 3] on the host.
        spec: as in `resize`.
        device: where the result shall be.
    """
    height, width = images.shape[1:3]
    if device.type == _BOUNDED and shared_bytes(height, width, spec) > _SHARED:
        return resize(images, spec).to(device)
    return resize(images.to(device), spec)


def shared_bytes(height: int, width: int, spec: ImagePreprocessing) -> int:
    """Shared memory that a block of torch's antialiasing kernel takes at least, on CUDA.

    Its smallest block is 32 pixels of one row: it has weights for each column and for the row, and
    a sum of rows for each. Source: torch, UpSampleBilinear2d.cu.
    """
    reach = 1 if spec.interpolation == "bilinear" else 2
    down, across = (
        1 + 2 * max(reach, -(-reach * source // target))  # exact, and so never less than torch's
        for source, target in zip((height, width), _target(height, width, spec), strict=True)
    )
    if not _upright(height, width, spec):
        down, across = across, down
    return torch.float32.itemsize * (32 * across + 33 * down)


def _upright(height: int, width: int, spec: ImagePreprocessing) -> bool:
    """Whether a whole picture is resampled as it stands, for what it takes meanwhile.

    Columns are resampled first: that leaves `height` rows of them, and then the whole result.
    """
    rows, columns = _target(height, width, spec)
    return max(height, rows) * columns <= max(height * width, _ORDINARY * spec.size**2)


def resample(images: Tensor, spec: ImagePreprocessing) -> Tensor:
    """The whole picture, of which `resize` rounds the centre.

    Args:
        images: uint8[B, H, W, 3].
        spec: as in `resize`.

    Returns:
        float32[B, 3, h, w], or uint8 if the pictures already fit.
    """
    pixels = images.permute(0, 3, 1, 2)
    height, width = pixels.shape[-2:]
    target = _target(height, width, spec)
    if (height, width) == target:
        return pixels
    return F.interpolate(
        pixels.float(), target, mode=spec.interpolation, align_corners=False, antialias=True
    )


def resized_intrinsics(camera: Tensor, height: int, width: int, spec: ImagePreprocessing) -> Tensor:
    """What `resize` makes of a pinhole camera.

    Args:
        camera: float[..., 4], (fx, fy, cx, cy) in pixels of pictures of H×W, the first pixel's
            middle at 0.
        height, width: H and W.
        spec: as in `resize`.

    Returns:
        float[..., 4] in pixels of the model's input, likewise.
    """
    rows, columns = _target(height, width, spec)
    scale = camera.new_tensor([columns / width, rows / height])
    cut = camera.new_tensor([(columns - spec.size) // 2, (rows - spec.size) // 2])
    centre = (camera[..., 2:] + 0.5) * scale - 0.5 - cut
    return torch.cat([camera[..., :2] * scale, centre], dim=-1)


def _target(height: int, width: int, spec: ImagePreprocessing) -> tuple[int, int]:
    """Height and width that `resample` brings a picture to."""
    if spec.resize_to is None:
        return spec.size, spec.size
    shorter = min(height, width)
    # The longer side is truncated, as torchvision and transformers do.
    return int(height * spec.resize_to / shorter), int(width * spec.resize_to / shorter)


def _enlarged_centre(images: Tensor, target: tuple[int, int], spec: ImagePreprocessing) -> Tensor:
    """The centre of what `resample` makes of pictures that it enlarges, without the rest.

    Args:
        images: uint8[B, H, W, 3].
        target: the whole result's rows and columns, no fewer than the pictures'.
        spec: as in `resize`.

    Returns:
        float32[B, 3, S, S].
    """
    rows, down = _centre_weights(images.shape[1], target[0], spec)
    columns, across = _centre_weights(images.shape[2], target[1], spec)
    read = images[:, rows, columns].permute(0, 3, 1, 2).float()
    return down.to(read.device) @ read @ across.to(read.device).T


def _centre_weights(source: int, target: int, spec: ImagePreprocessing) -> tuple[slice, Tensor]:
    """How the centre of one axis, of so many pixels, comes from its source when it is enlarged.

    Returns:
        The k source pixels that it is made of, and float32[S, k]: their shares in each of its own.
    """
    reach, kernel = (1, _triangle) if spec.interpolation == "bilinear" else (2, _cubic)
    first = (target - spec.size) // 2
    kept = torch.arange(first, first + spec.size, dtype=torch.float64) + 0.5
    scale = torch.tensor(source, dtype=torch.float32) / target
    # In pixels of the source, and rounded where torch rounds: on a long side it is to be seen.
    middle = (scale.double() * kept).float().double()
    near = slice(max(int(middle[0]) - reach, 0), min(int(middle[-1]) + reach + 1, source))
    pixels = torch.arange(near.start, near.stop, dtype=torch.float64) + 0.5
    weights = kernel((pixels - middle[:, None]).abs())
    return near, (weights / weights.sum(dim=1, keepdim=True)).float()


def _triangle(distance: Tensor) -> Tensor:
    """The bilinear kernel at distances in pixels, 0 and more."""
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """The bicubic kernel at distances in pixels, 0 and more.

    Source: Keys 1981 (doi:10.1109/TASSP.1981.1163711), with a = -0.5.
    """
    within = (1.5 * distance - 2.5) * distance**2 + 1
    beyond = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return within.where(distance < 1, beyond.where(distance < 2, 0.0))


def normalise(pixels: Tensor, spec: ImagePreprocessing) -> Tensor:
    """uint8[..., 3, S, S] to the float32 that the model sees: (p / 255 - mean) / deviation."""
    return scaled(pixels, *affine(spec, pixels.device))


def affine(spec: ImagePreprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """What `normalise` multiplies by and what it adds: float32[3, 1, 1] each."""
    channels = list(zip(spec.mean, spec.standard_deviation, strict=True))
    scale = torch.tensor([[[1 / (255 * spread)]] for _, spread in channels], device=device)
    shift = torch.tensor([[[-mean / spread]] for mean, spread in channels], device=device)
    return scale, shift


def scaled(pixels: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`normalise` with numbers that are there already: what is recorded may make none."""
    # Laid out and made float in one pass, scaled and shifted in another one.
    own = torch.empty(pixels.shape, device=pixels.device).copy_(pixels)
    return torch.addcmul(shift, own, scale, out=own)


def kept(pictures: Uint8Image, spec: ImagePreprocessing) -> Uint8Image:
    """Of pictures that fit, uint8[..., H, W, 3], what `resize` leaves: uint8[..., S, S, 3]."""
    rows, columns = ((side - spec.size) // 2 for side in pictures.shape[-3:-1])
    return pictures[..., rows : rows + spec.size, columns : columns + spec.size, :]


def to_pixels(normalised: Tensor, spec: ImagePreprocessing) -> Tensor:
    """Undo `normalise`: float[..., 3, S, S] to uint8, rounded and clipped."""
    mean = torch.tensor(spec.mean, device=normalised.device).view(3, 1, 1)
    deviation = torch.tensor(spec.standard_deviation, device=normalised.device).view(3, 1, 1)
    scaled = (normalised.float() * deviation + mean) * 255
    return scaled.round().clamp(0, 255).to(torch.uint8)


def fits(height: int, width: int, spec: ImagePreprocessing) -> bool:
    """Whether pictures of a size are square, and `resize` resamples none of them."""
    return height == width == (spec.resize_to or spec.size)


def fitted(pictures: Uint8Image, spec: ImagePreprocessing, device: torch.device) -> Tensor:
    """What `resize` makes of pictures of one size, in memory of its own.

    Args:
        pictures: uint8[..., H, W, 3].
        spec: as in `resize`.
        device: where the model is.

    Returns:
        uint8[..., 3, S, S].
    """
    flat = np.require(pictures, requirements=["C", "W"]).reshape(-1, *pictures.shape[-3:])
    resized = resize_on(torch.from_numpy(flat), spec, device)
    own = resized.clone(memory_format=torch.contiguous_format)
    return own.reshape(*pictures.shape[:-3], *own.shape[1:])


def preprocess(images: Sequence[Picture], spec: ImagePreprocessing, device: torch.device) -> Tensor:
    """Pictures of any sizes to one batch; those of equal size are resized together.

    Args:
        images: uint8[H, W, 3] each, or what `fitted` has made of it.
        spec: the bundle's definition.
        device: where the model is.

    Returns:
        float32[B, 3, S, S], in the order given.
    """
    by_size: dict[tuple[int, ...], list[int]] = {}  # (): of those that are fitted
    for index, image in enumerate(images):
        size = () if isinstance(image, Tensor) else image.shape
        by_size.setdefault(size, []).append(index)
    resized = {
        size: _resized([images[index] for index in indices], spec, device)
        for size, indices in by_size.items()
    }
    if len(resized) == 1:
        (only,) = resized.values()
        return normalise(only, spec)
    batch = torch.empty(len(images), 3, spec.size, spec.size, device=device, dtype=torch.uint8)
    for size, indices in by_size.items():
        batch[indices] = resized[size]
    return normalise(batch, spec)


def _resized(images: Sequence[Picture], spec: ImagePreprocessing, device: torch.device) -> Tensor:
    """uint8[B, 3, S, S] of pictures of one size, or of fitted ones."""
    ready = [image for image in images if isinstance(image, Tensor)]
    if ready:
        return torch.stack(ready)
    # One array of its own: torch takes no memory that it may not write.
    return resize_on(torch.from_numpy(np.stack(images)), spec, device)
