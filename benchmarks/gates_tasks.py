"""Many tasks at once against each alone: what is changed of `multi-task-small`, and by how much.

Compute is counted in floating-point operations, forwards and backwards: each of these runs spends
what the mix spends, by another number of steps.
"""

from __future__ import annotations

from dataclasses import replace

from gates_rules import Divided, Kept, Rule, Task

__all__ = ["ALONE", "MFLOP", "MIXES", "OBJECTIVES", "SHARES", "STEPS", "steps_of"]

STEPS = 260
"""Of the mix, as its recipe has it."""

OBJECTIVES = {
    "image_text": Task("frame → task, R@1", "image_text-alone", rises=True),
    "masked_image": Task("masked image, error", "masked_image-alone"),
    "masked_language": Task("masked word, nats", "masked_language-alone"),
    "masked_action": Task("masked actions", "masked_action-alone"),
    "action_prediction": Task("action prediction, ", "action_prediction-alone"),
    "latent_action": Task("s → hand in plane, R²", "latent_action-alone", rises=True),
}
_SETTINGS = {
    "image_text": "{kind: image_text, after: 0.4}",
    "masked_image": "{kind: masked_image}",
    "masked_language": "{kind: masked_language, ratio: 0.3, image_share: 1}",
    "masked_action": "{kind: masked_action, image_share: 1}",
    "action_prediction": "{kind: action_prediction}",
    "latent_action": "{kind: latent_action, decode_weight: 0.2}",
}
"""Every weight 1: what learns weights shall not begin from those that somebody chose by hand."""
_THREE = ("image_text", "masked_image", "action_prediction")


MFLOP = {
    "image_text-alone": 266,
    "masked_image-alone": 193,
    "masked_language-alone": 358,
    "masked_action-alone": 364,
    "action_prediction-alone": 365,
    "latent_action-alone": 327,
    "multi-task": 985,
    "distance": 812,
    "cross-stitch": 2118,
    "alternating": 312,
    "grad-norm": 1080,
}
"""Millions of operations a step takes for each of its samples, as torch counts them, by row; on the
average of those steps that gradients are measured in and of those that are not."""


def steps_of(row: str) -> int:
    """As many as cost what the mix costs; a row that is not listed costs as much a step."""
    return round(STEPS * MFLOP["multi-task"] / MFLOP.get(row, MFLOP["multi-task"]))


def _steps(row: str, share: int = 1) -> tuple[str, ...]:
    steps = round(steps_of(row) / share)
    return (f"schedule.steps={steps}", f"schedule.warmup_steps={max(10, steps // 10)}")


def _of(*kinds: str) -> str:
    return f"objectives=[{', '.join(_SETTINGS[kind] for kind in kinds)}]"


ALONE = {kind: (_of(kind), "tasks=null", *_steps(f"{kind}-alone")) for kind in OBJECTIVES}
"""Each task by itself: what is changed, by its kind."""

_DIVIDED = {"sixth": (6, tuple(OBJECTIVES)), "third": (3, _THREE)}
SHARES = {
    f"{kind}-{word}": (kind, (_of(kind), "tasks=null", *_steps(f"{kind}-alone", share)))
    for word, (share, kinds) in _DIVIDED.items()
    for kind in kinds
}
"""Each task by itself for its share of what a mix of six or of three costs: its kind and what is
changed, by row."""

_ALL, _SOME = Kept(tuple(OBJECTIVES.values())), Kept(tuple(OBJECTIVES[k] for k in _THREE))


def _divided(word: str) -> Divided:
    _, kinds = _DIVIDED[word]
    return Divided(tuple(replace(OBJECTIVES[kind], row=f"{kind}-{word}") for kind in kinds))


_SIX: tuple[Rule, ...] = (_ALL, _divided("sixth"))
_FEW: tuple[Rule, ...] = (_SOME, _divided("third"))
_EQUAL = (_of(*OBJECTIVES), "tasks.normalise=initial")
_ONE = "tasks.sharing={kind: distance, strength: 10, served: image_text}"

MIXES = {
    "multi-task": (_SIX, ()),
    "equal": (_SIX, _EQUAL),
    "distance": (_FEW, (_of(*_THREE), _ONE, *_steps("distance"))),
    "cross-stitch": (
        _FEW,
        (_of(*_THREE), "tasks.sharing={kind: cross_stitch}", *_steps("cross-stitch")),
    ),
    "alternating": (
        _SIX,
        (f"tasks.alternate={{pattern: [{', '.join(OBJECTIVES)}]}}", *_steps("alternating")),
    ),
    "uncertainty": (_SIX, ("tasks.weighting={kind: uncertainty}", *_EQUAL)),
    "grad-norm": (
        _SIX,
        ("tasks.weighting={kind: grad_norm, every: 10}", *_EQUAL, *_steps("grad-norm")),
    ),
    "dwa": (_SIX, ("tasks.weighting={kind: dwa, window: 40}", *_EQUAL)),
}
"""All tasks together, or three of them: the rules and what is changed, by row."""
