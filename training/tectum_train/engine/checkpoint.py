"""Everything a resumed run needs to repeat the uninterrupted one, in one safetensors file.

No pickle: tensors by name; the step, and what they come from, in the header. Order, masks
and augmentation are pure functions of (seed, step), so no generator's state needs keeping.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW

from tectum_core.model.world_model import older_layout
from tectum_train.differences import differences
from tectum_train.distributed import gather
from tectum_train.recipe import Recipe

__all__ = [
    "CheckpointError",
    "Origin",
    "check_agreement",
    "load_checkpoint",
    "save_checkpoint",
    "stays",
]


_TOLD = 5
"""Settings that differ, steps and ranks, of which a message names no more."""


class CheckpointError(ValueError):
    """A checkpoint that is damaged, does not belong to this run, or cannot be written."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a checkpoint's numbers come from."""

    recipe: str
    """The run's recipe as JSON; resuming another is refused."""
    data: str
    """Fingerprint of its training data (`fingerprint_of`); resuming on others is refused."""
    commits: tuple[str, ...]
    """Of the code that made it, oldest first; several if the run was resumed by another."""


def save_checkpoint(path: Path, step: int, origin: Origin, module: nn.Module, adam: AdamW) -> None:
    """Write the state after `step` steps; the old file stays whole until the new one is.

    Args:
        path: of the file.
        step: steps done.
        origin: what it comes from.
        module: the objectives, and through them the model.
        adam: the optimiser.

    Raises:
        CheckpointError: it cannot be written; says why.
    """
    # Objectives hold the model one by one; a tensor under several names is stored once.
    tensors: dict[str, Tensor] = {}
    for name, tensor in _unique(module).items():
        tensors[f"module/{name}"] = tensor
    moments = adam.state_dict()["state"]
    for number, state in moments.items():
        for key, value in state.items():
            tensors[f"adam/{number}/{key}"] = torch.as_tensor(value)
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    header = {
        "step": str(step),
        "recipe": origin.recipe,
        "data": origin.data,
        "commits": json.dumps(origin.commits),
        # Parameters that no gradient ever reached have none, so the module cannot tell.
        "moments": json.dumps(sorted(moments)),
    }
    draft = path.with_suffix(".writing")
    try:
        save_file(plain, draft, metadata=header)
        draft.replace(path)
    except (OSError, SafetensorError) as error:  # such as a full disk
        draft.unlink(missing_ok=True)
        raise CheckpointError(f"{path} cannot be written: {error}") from error


def stays(path: Path, recipe: Recipe) -> str:
    """Why nobody goes on with a checkpoint unasked; empty: it is this very recipe's, unfinished.

    On which data is not asked.

    Raises:
        RecipeError: a file that an objective learns from cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError):
        return "whose checkpoint cannot be read"
    if not {"step", "recipe"} <= header.keys():
        return "whose checkpoint is of another version"
    before, now = Recipe.completed(header["recipe"]), json.loads(recipe.identity())
    if others := list(differences(before, now)):
        more = f" and {len(others) - _TOLD} more" if len(others) > _TOLD else ""
        return f"of other settings ({', '.join(others[:_TOLD])}{more})"
    return "finished" if int(header["step"]) >= recipe.schedule.steps else ""


def load_checkpoint(
    path: Path, origin: Origin, module: nn.Module, adam: AdamW
) -> tuple[int, tuple[str, ...]]:
    """Restore a state in place; gives the steps done, and the commits that did them.

    Raises:
        CheckpointError: it is damaged, was written under another recipe or on other data, or has
            not exactly what it should; nothing was touched then.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Copies: Adam would go on working on the mapped file, which others may cut short.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    _check_origin(path, header, origin)
    if (why := older_layout(tensors)) is not None:
        raise CheckpointError(f"{path} {why}")
    own = _unique(module)
    expected: dict[str, torch.Size | None] = {
        f"module/{name}": tensor.shape for name, tensor in own.items()
    }
    parameters = [p for group in adam.param_groups for p in group["params"]]
    for number in json.loads(header["moments"]):
        shape = parameters[number].shape if number < len(parameters) else None
        for key in ("exp_avg", "exp_avg_sq", "step"):
            expected[f"adam/{number}/{key}"] = torch.Size() if key == "step" else shape
    for key in sorted(expected.keys() ^ tensors.keys()):
        raise CheckpointError(f"{path} {'lacks' if key in expected else 'has an unknown'} {key}")
    for key, shape in expected.items():
        if tensors[key].shape != shape:
            raise CheckpointError(
                f"{path}: {key} has shape {list(tensors[key].shape)}, not the model's"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[f"module/{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("adam/"):
            _, number, part = key.split("/", 2)
            state.setdefault(int(number), {})[part] = tensor
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})
    return int(header["step"]), tuple(json.loads(header["commits"]))


def check_agreement(path: Path, done: int, device: str | torch.device) -> None:
    """That all ranks go on after the same step; all of them ask at the same time.

    Each looks for the file on its own disk, and the first one alone writes it.

    Args:
        path: where each has looked.
        done: steps done by what this one has found; 0: it has found nothing.
        device: what it computes on.

    Raises:
        CheckpointError: they do not; says what each has found. The same on all ranks.
    """
    found: dict[int, list[int]] = {}
    for number, step in enumerate(gather(torch.tensor([done], device=device)).tolist()):
        found.setdefault(step, []).append(number)
    if len(found) == 1:
        return
    told = []
    for step, ranks in list(found.items())[:_TOLD]:
        more = f" and {len(ranks) - _TOLD} more" if len(ranks) > _TOLD else ""
        what = f"the state after step {step}" if step else "no checkpoint"
        told.append(f"{what} on rank {', '.join(map(str, ranks[:_TOLD]))}{more}")
    raise CheckpointError(
        f"{path}: found {'; '.join(told)}; allowed: the same on all ranks, as in a folder that "
        "their machines share, or a copy of the first one's file on each"
    )


def _check_origin(path: Path, header: dict[str, str], origin: Origin) -> None:
    """That the header is whole, and that recipe and data are those of the file."""
    for key in ("recipe", "step", "data", "commits", "moments"):
        if key not in header:
            raise CheckpointError(
                f"{path} does not say its {key}, as every checkpoint of this version does; "
                "begin a new run"
            )
    before, now = Recipe.completed(header["recipe"]), json.loads(origin.recipe)
    if differing := list(differences(before, now)):
        raise CheckpointError(
            f"{path} was written under another recipe ({', '.join(differing)}); use the same "
            "settings, or start a new run"
        )
    if header["data"] != origin.data:
        raise CheckpointError(
            f"{path} was trained on other data than data.train has now: its films, rows, "
            "episodes, tasks, vocabulary or action scales differ; put the former data back, or "
            "start a new run"
        )


def _unique(module: nn.Module) -> dict[str, Tensor]:
    """The state by name, each tensor under its first name alone."""
    found: dict[str, Tensor] = {}
    known: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in known:
            known.add(id(tensor))
            found[name] = tensor
    return found
