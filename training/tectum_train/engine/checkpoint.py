"""Everything a resumed run needs to repeat the uninterrupted one, in one safetensors file.

No pickle: tensors by name, and the step in the header. Order, masks and augmentation
are pure functions of (seed, step), so no generator's state needs keeping.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW

__all__ = ["CheckpointError", "load_checkpoint", "save_checkpoint"]


class CheckpointError(ValueError):
    """A checkpoint that does not belong to this run."""


def save_checkpoint(path: Path, step: int, recipe: str, module: nn.Module, adam: AdamW) -> None:
    """Write the state after `step` steps; the old file stays whole until the new one is.

    Args:
        path: of the file.
        step: steps done.
        recipe: the run's recipe as JSON; resuming another is refused.
        module: the objectives, and through them the model.
        adam: the optimiser.
    """
    # Objectives hold the model one by one; a tensor under several names is stored once.
    tensors: dict[str, Tensor] = {}
    for name, tensor in _unique(module).items():
        tensors[f"module/{name}"] = tensor
    for number, state in adam.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"adam/{number}/{key}"] = torch.as_tensor(value)
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    draft = path.with_suffix(".writing")
    save_file(plain, draft, metadata={"step": str(step), "recipe": recipe})
    draft.replace(path)


def load_checkpoint(path: Path, recipe: str, module: nn.Module, adam: AdamW) -> int:
    """Restore a state in place; gives the steps done.

    Raises:
        CheckpointError: it was written under another recipe, or lacks something.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if json.loads(metadata.get("recipe", "null")) != json.loads(recipe):
        raise CheckpointError(
            f"{path} was written under another recipe; start a new run, or use the same settings"
        )
    own = _unique(module)
    missing = [name for name in own if f"module/{name}" not in tensors]
    if missing:
        raise CheckpointError(f"{path} lacks {missing[0]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[f"module/{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("adam/"):
            _, number, part = key.split("/", 2)
            state.setdefault(int(number), {})[part] = tensor
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})
    return int(metadata["step"])


def _unique(module: nn.Module) -> dict[str, Tensor]:
    """The state by name, each tensor under its first name alone."""
    found: dict[str, Tensor] = {}
    known: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in known:
            known.add(id(tensor))
            found[name] = tensor
    return found
