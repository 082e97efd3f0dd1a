"""An image tokenizer: a picture as a grid of codes, and back; one file with its weights and shape.

What `image_codes` trains and `beit` predicts. The encoder is a vision trunk, so what is trained for
its codes can be served as a trunk as well; the rest is no part of a bundle.

Letters: B batch, S side of the pictures, N patches, X numbers in a patch, D the trunk's width,
E length of a code's vector, K codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveInt, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tectum_core.architecture import Strict, TransformerConfig, VisionConfig
from tectum_core.model import VisionTransformer
from tectum_core.model.transformer import Transformer
from tectum_core.model.vision import sincos_positions
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.codebook import Codebook

__all__ = [
    "FILE",
    "CodeShape",
    "ImageTokenizer",
    "ImageTokenizerConfig",
    "read_image_tokenizer",
    "write_image_tokenizer",
]

FILE = "image-tokenizer.safetensors"
"""What the file is called in the folder of the run that trained it."""


class CodeShape(Strict):
    """The codes, and what paints them."""

    codes: Annotated[int, Field(ge=2)] = 256
    """Entries of the codebook, K (8,192 in BEiT)."""
    code_width: PositiveInt = 16
    """Length of a code's vector, E; short ones keep more codes in use (arXiv:2110.04627)."""
    decoder: TransformerConfig
    """The blocks that paint all patches from their codes; their width is one that 4 divides."""

    @model_validator(mode="after")
    def _positions_fit(self) -> Self:
        if self.decoder.width % 4:  # its positions are MAE's sine-cosine table
            raise ValueError(f"decoder.width must be one that 4 divides, not {self.decoder.width}")
        return self


class ImageTokenizerConfig(Strict):
    """What the file says of itself."""

    format: Literal["tectum-image-tokenizer-1"] = "tectum-image-tokenizer-1"
    """Changes when a reader of the old form could misread the new one."""
    vision: VisionConfig
    """The encoder."""
    images: ImagePreprocessing
    """How pictures became its input."""
    shape: CodeShape
    """The codes."""


class ImageTokenizer(nn.Module):
    """Encoder, codebook and decoder.

    Source: VQ-VAE (arXiv:1711.00937), with transformers as in ViT-VQGAN (arXiv:2110.04627).

    Args:
        encoder: a trunk on single images.
        shape: the codes.
        decay: of the codebook's averages.
        restart_below: share of its even share below which a code is drawn anew.
    """

    positions: Tensor

    def __init__(
        self,
        encoder: VisionTransformer,
        shape: CodeShape,
        decay: float = 0.99,
        restart_below: float = 0.1,
    ) -> None:
        super().__init__()
        vision, width = encoder.config, shape.decoder.width
        self.shape = shape
        self.encoder = encoder
        self.to_code = nn.Linear(vision.transformer.width, shape.code_width)
        self.codebook = Codebook(shape.codes, shape.code_width, decay, restart_below)
        self.from_code = nn.Linear(shape.code_width, width)
        table = sincos_positions(width, vision.steps, vision.grid)
        self.register_buffer("positions", table[None], persistent=False)
        self.decoder = Transformer(shape.decoder)
        self.final_norm = nn.LayerNorm(width, eps=shape.decoder.norm_eps)
        self.paint = nn.Linear(width, vision.patch_values)

    def encode(self, pixels: Tensor) -> Tensor:
        """float[B, 3, S, S], normalised, to float[B, N, E], which are not yet codes."""
        return self.to_code(self.encoder(pixels).tokens)

    def codes(self, pixels: Tensor) -> Tensor:
        """float[B, 3, S, S], normalised, to int64[B, N]."""
        return self.codebook.codes(self.encode(pixels))

    def decode(self, vectors: Tensor) -> Tensor:
        """Codes' vectors float[B, N, E] to patches float[B, N, X] in the model's input units."""
        x = self.decoder(self.from_code(vectors) + self.positions)
        return self.paint(self.final_norm(x))


def write_image_tokenizer(
    path: Path, tokenizer: ImageTokenizer, images: ImagePreprocessing
) -> None:
    """Write one file; an older one of its name stays whole until then."""
    config = ImageTokenizerConfig(
        vision=tokenizer.encoder.config, images=images, shape=tokenizer.shape
    )
    plain = {
        key: tensor.detach().cpu().contiguous().clone()
        for key, tensor in tokenizer.state_dict().items()
    }
    draft = path.with_suffix(".writing")
    save_file(plain, draft, metadata={"config": config.model_dump_json()})
    draft.chmod(0o644)  # safetensors lets nobody but the owner read it
    draft.replace(path)


def read_image_tokenizer(path: Path) -> tuple[ImageTokenizer, ImageTokenizerConfig]:
    """Read what `write_image_tokenizer` wrote, frozen, on the CPU.

    Raises:
        ValueError: no such file, or not what it should be; says what is wrong with it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = ImageTokenizerConfig.model_validate_json(header.get("config", ""))
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} is not there; a finished run of a recipe with image_codes leaves it in its "
            "folder, such as `tectum train image-tokenizer-small`"
        ) from error
    except (OSError, SafetensorError, ValidationError) as error:
        raise ValueError(f"{path} is no image tokenizer: {error}") from error
    # What is drawn here is overwritten; a file is read, whatever it is read for.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        tokenizer = ImageTokenizer(VisionTransformer(config.vision), config.shape)
    try:
        tokenizer.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: its tensors are not those of its shape: {error}") from error
    return tokenizer.eval().requires_grad_(False), config
