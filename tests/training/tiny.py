"""A tabletop of 32 pixels: its data set, and recipes, models and batches of its size.

Two scenes, red and blue, in each of which one of two tasks is done: the hand goes there or
back. What is done shows in the second half of an episode, as in the real world.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.bundles import IMAGES, SIDE, stack, vision

from tabletop.recorder import Recorder  # type: ignore[import-not-found]
from tabletop.world import CAMERA, features  # type: ignore[import-not-found]
from tectum_core.architecture import (
    ActionConfig,
    ContinuousBottleneck,
    FusionConfig,
    JointConfig,
    LatentActionConfig,
    ModelConfig,
    PixelDecoderConfig,
    TextConfig,
    TransformerDynamicsConfig,
    WorldModelConfig,
)
from tectum_core.model import PerceptionModel, VisionTransformer
from tectum_core.preprocess import ActionScaling, ImagePreprocessing
from tectum_core.tokenizer import Tokenizer
from tectum_core.untrained import write_untrained
from tectum_train.image_tokenizer import (
    FILE,
    CodeShape,
    ImageTokenizer,
    write_image_tokenizer,
)
from tectum_train.objectives import Batch, Clip
from tectum_train.recipe import Recipe

__all__ = [
    "CAMERA", "FPS", "LENGTH", "batch", "clip", "code_shape", "image_tokenizer", "job",
    "latent_action", "model", "parts", "tokenizer", "video", "vision_alone", "world_model",
    "write_data", "write_set", "write_untrained_bundle",
]  # fmt: skip

FPS, LENGTH, INTERVAL_STEPS = 16, 20, 2
_FAMILIES = ("red-left", "red-right", "blue-left", "blue-right")
_PARTNERS = {0: 1, 1: 0, 2: 3, 3: 2}
_WORDS = {
    "red-left": ("push the red block left", "shove red to the left", "red block goes left"),
    "red-right": ("push the red block right", "shove red to the right", "red block goes right"),
    "blue-left": ("push the blue block left", "shove blue to the left", "blue block goes left"),
    "blue-right": ("push the blue block right", "shove blue to the right", "blue block goes right"),
}
"""Two sentences to train on and, last, one held out."""


def write_data(root: Path) -> Path:
    """A data set's two splits, `train` and `test`, as the generator leaves them."""
    write_set(root / "train", [(family, place % 2) for place in range(3) for family in range(4)])
    write_set(root / "test", [(family, 2) for _ in range(2) for family in range(4)], seed=100)
    return root


def write_set(root: Path, episodes: list[tuple[int, int]], seed: int = 0) -> Path:
    """One LeRobot folder; an episode is its family and which of the family's sentences it has."""
    with Recorder(root, rate=FPS, features=features(SIDE), robot_type="drawn") as recorder:
        for number, (family, sentence) in enumerate(episodes):
            columns = _episode(family, seed + number)
            recorder.add_episode(columns, _WORDS[_FAMILIES[family]][sentence])
    world = {
        "generator_version": "tests",
        "families": [
            {"index": index, "name": name, "partner": _FAMILIES[_PARTNERS[index]], "episodes": 1}
            for index, name in enumerate(_FAMILIES)
        ],
        "instructions": [
            {"text": text, "family": name, "held_out": place == 2}
            for name, texts in _WORDS.items()
            for place, text in enumerate(texts)
        ],
    }
    (root / "meta" / "world.json").write_text(json.dumps(world))
    return root


def _episode(family: int, seed: int) -> dict[str, NDArray[Any]]:
    """One episode's columns: the hand wanders, then carries the block where the task says."""
    draw = np.random.default_rng(seed)
    commands = draw.normal(scale=0.03, size=(LENGTH, 4))
    commands[LENGTH // 2 :, 0] += 0.05 if family % 2 else -0.05
    state = np.cumsum(commands, axis=0) - commands
    turn = draw.uniform(-0.3, 0.3)  # of the camera, about its own axis
    extrinsics = np.eye(4)
    extrinsics[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    seen = state[:, :3] @ extrinsics[:3, :3].T
    return {
        "observation.state": state.astype(np.float32),
        "action": commands.astype(np.float32),
        "next.success": np.arange(LENGTH) >= LENGTH - 2,
        "camera.intrinsics": np.tile(np.array([40, 40, 16, 16], np.float32), (LENGTH, 1)),
        "camera.extrinsics": np.tile(extrinsics.reshape(-1).astype(np.float32), (LENGTH, 1)),
        "layout": np.full(LENGTH, seed),
        "task_family": np.full(LENGTH, family),
        CAMERA: _pictures(seen, blue=family >= 2, shade=draw.uniform(60, 120)),
    }


def _pictures(seen: NDArray[np.float64], *, blue: bool, shade: float) -> NDArray[np.uint8]:
    """uint8[T, S, S, 3]: a table, a block that the hand carries, and the hand."""
    pictures = np.empty((len(seen), SIDE, SIDE, 3), np.uint8)
    pictures[:] = (shade + np.arange(SIDE) * 2)[None, :, None, None]
    for picture, (right, down, _) in zip(pictures, seen, strict=True):
        column, row = (int(np.clip(SIDE / 2 + 20 * v, 2, SIDE - 8)) for v in (right, down))
        picture[row : row + 6, column : column + 6] = (40, 60, 220) if blue else (220, 60, 40)
        picture[row + 1 : row + 4, column + 1 : column + 4] = 250
    return pictures


def parts(**changes: Any) -> dict[str, Any]:
    """The model's configuration as a recipe has it: every part that training trains."""
    given = {
        "vision": vision(),
        "text": TextConfig(transformer=stack(), vocabulary_size=120, max_tokens=12),
        "joint": JointConfig(width=16),
        "pixel_decoder": PixelDecoderConfig(transformer=stack(), text_context=True),
        "fusion": FusionConfig(transformer=stack()),
        "actions": ActionConfig(dimensions=4, state_dimensions=4, max_steps=8),
        "latent_action": latent_action(),
        "world_model": None if changes.get("actions", "") is None else world_model(),
    }
    return ModelConfig.model_validate({**given, **changes}).model_dump()


def latent_action(**changes: Any) -> dict[str, Any]:
    """The latent-action module's configuration: six numbers between two small transformers."""
    given = {
        "dynamics": TransformerDynamicsConfig(transformer=stack()),
        "bottleneck": ContinuousBottleneck(width=6),
        "image_size": 16,
        "interval": INTERVAL_STEPS / FPS,
        "tolerance": 0.01,
        "decoded_steps": 2,
    }
    return LatentActionConfig.model_validate({**given, **changes}).model_dump()


def world_model(**changes: Any) -> dict[str, Any]:
    """The world model's configuration: two frames known, with the two actions between frames."""
    given = {
        "transformer": stack(),
        "history": 2,
        "action_steps": INTERVAL_STEPS,
        "interval": INTERVAL_STEPS / FPS,
        "max_steps": 4,
        "decoder": stack(),
    }
    return WorldModelConfig.model_validate({**given, **changes}).model_dump()


def video() -> dict[str, Any]:
    """A trunk on clips of four frames, and its decoder."""
    frames = {"frames": 4, "tubelet_frames": 2, "frame_interval": INTERVAL_STEPS / FPS}
    decoder = PixelDecoderConfig(transformer=stack(), mask_ratio=0.75)
    return {"video": vision(**frames).model_dump(), "video_decoder": decoder.model_dump()}


def code_shape(**changes: Any) -> dict[str, Any]:
    """Sixteen codes, and a block that paints them."""
    given = {"codes": 16, "code_width": 8, "decoder": stack().model_dump()}
    return {**given, **changes}


_KEPT = TemporaryDirectory(prefix="tectum-tests-")


@cache
def image_tokenizer(seed: int = 0, **changes: Any) -> Path:
    """A folder with an untrained tokenizer of these pictures, some of its trunk changed.

    Its codes are some pictures' own vectors, so that it tells patches apart.
    """
    folder = Path(_KEPT.name) / str(len(list(Path(_KEPT.name).iterdir())))
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = VisionTransformer(vision(**changes))
        made = ImageTokenizer(trunk, CodeShape.model_validate(code_shape()))
        made.codebook.vectors.copy_(made.encode(batch(2).earlier).detach().flatten(0, 1)[:16])
    write_image_tokenizer(folder / FILE, made, IMAGES)
    return folder


def vision_alone() -> dict[str, Any]:
    """A trunk and a pixel decoder, and nothing that knows of words or actions."""
    decoder = parts()["pixel_decoder"] | {"text_context": False}
    nothing = dict.fromkeys(("text", "joint", "fusion", "actions", "latent_action"))
    return parts(**nothing, pixel_decoder=decoder)


_OBJECTIVES = (
    {"kind": "image_text"},
    {"kind": "masked_image", "text_share": 1},
    {"kind": "masked_language", "weight": 0.5, "fraction": 0.5},
    {"kind": "masked_action", "weight": 0.5, "fraction": 0.5},
    {"kind": "action_prediction", "weight": 0.5, "fraction": 0.5},
    {"kind": "latent_action", "decode_weight": 0.2},
    {"kind": "world_model", "weight": 0.5, "decode_weight": 0.2},
)


def job(data: Path, folder: Path, **changes: Any) -> Recipe:
    """A recipe for the tiny data that learns everything, six steps long.

    Args:
        data: what `write_data` wrote.
        folder: for the run and the decoded frames.
        changes: whole sections, or a section's keys as `section__key`.
    """
    tree: dict[str, Any] = {
        "name": "tiny",
        "description": "Six steps, for tests.",
        "data": {
            "train": str(data / "train"),
            "test": str(data / "test"),
            "cache": str(data / "frames"),
            "pair_steps": [INTERVAL_STEPS],
            "action_steps": 8,
            "clip": {"frames": 4, "steps": INTERVAL_STEPS},
        },
        "augmentation": {"shift": 1},
        "images": {"size": SIDE},
        "model": parts(),
        "objectives": _OBJECTIVES,
        "schedule": {"steps": 6, "batch_size": 8, "warmup_steps": 2},
        "output": str(folder / "runs"),
    }
    for key, value in changes.items():
        section, nested, leaf = key.partition("__")
        if nested:
            tree[section] = {**tree[section], leaf: value}
        else:
            tree[section] = value
    compared = {"sim_clr", "mo_co", "dino"}.issuperset(one["kind"] for one in tree["objectives"])
    if compared and not changes.keys() & {"augmentation", "augmentation__shift"}:
        del tree["augmentation"]["shift"]  # they see views, and no frame
    schedule = tree["schedule"]
    if "schedule__warmup_steps" not in changes and "warmup_steps" in schedule:
        schedule["warmup_steps"] = min(schedule["warmup_steps"], schedule["steps"] - 1)
    return Recipe.model_validate(tree)


@cache
def tokenizer() -> Tokenizer:
    """What a run on the tiny data trains."""
    return Tokenizer.train([text for texts in _WORDS.values() for text in texts[:2]], 120)


def write_untrained_bundle(folder: Path) -> str:
    """A bundle of random weights with the recipe's shapes; gives its version."""
    scaling = ActionScaling(
        names=("hand_dx", "hand_dy", "hand_dz", "gripper_effort"),
        mean=(0,) * 4,
        standard_deviation=(0.05,) * 4,
        step_interval=1 / FPS,
        state_names=("hand_x", "hand_y", "hand_z", "gripper_opening"),
        state_mean=(0,) * 4,
        state_standard_deviation=(0.5,) * 4,
    )
    config, images = ModelConfig.model_validate(parts()), ImagePreprocessing(size=SIDE)
    return write_untrained(folder, config, images, tokenizer(), scaling)


def model(seed: int = 0, **changes: Any) -> PerceptionModel:
    """An untrained model with every part that training trains, some of them changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PerceptionModel(ModelConfig.model_validate(parts(**changes)))


def batch(size: int = 8, seed: int = 0, **changes: Any) -> Batch:
    """A batch of smooth pictures, sentences and actions; the generator is seeded with `seed`."""
    draw = torch.Generator().manual_seed(1000 + seed)
    texts = sorted(text for texts in _WORDS.values() for text in texts)
    instruction = torch.arange(size) % len(texts)
    encoded = [tokenizer().encode(texts[int(i)], 12) for i in instruction]
    ids = torch.tensor(tokenizer().pad([e.ids for e in encoded], 12))
    content = torch.zeros(ids.shape, dtype=torch.bool)
    for row, one in enumerate(encoded):
        content[row, one.content] = True
    coarse = torch.randn(size, 3, 4, 4, generator=draw)
    earlier = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
    given: dict[str, Any] = {
        "earlier": earlier,
        "later": earlier.roll(2, dims=3),
        "recoloured": torch.stack([earlier, earlier.roll(2, dims=3)], dim=1) * 0.7 - 0.3,
        "paired": torch.ones(size, dtype=torch.bool),
        "progress": torch.linspace(0, 1, size),
        "ids": ids,
        "ids_seen": ids != tokenizer().pad_id,
        "content": content,
        "task": instruction,
        "episode": torch.arange(size) // 2,
        "actions": torch.randn(size, 8, 4, generator=draw),
        "padded": torch.zeros(size, 8, dtype=torch.bool),
        "state": torch.randn(size, 4, generator=draw),
        "views": torch.stack([earlier, earlier.roll(1, dims=2)], dim=1),
        "crops": earlier[:, None, :, :16, :16].repeat(1, 2, 1, 1, 1),
        "clip": clip(earlier, draw),
        "moments": torch.stack([earlier.roll(2 * step, dims=3) for step in range(5)], dim=1),
        "labels": {"task_family": instruction % 4},
        "noise": 0,
        "seeds": torch.arange(size) + 1000 * seed,
        "generator": torch.Generator().manual_seed(seed),
    }
    return Batch(**{**given, **changes})


def clip(first: torch.Tensor, draw: torch.Generator) -> Clip:
    """Four frames that go on from the first, two steps apart."""
    size = len(first)
    return Clip(
        frames=torch.stack([first.roll(2 * step, dims=3) for step in range(4)], dim=1),
        inside=torch.ones(size, 4, dtype=torch.bool),
        actions=torch.randn(size, 4, 2, 4, generator=draw),
    )
