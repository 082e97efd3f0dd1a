"""Many tasks at once against each alone: what is changed of `multi-task-small`, and by how much.

Compute is counted in trunk passes: one picture of a step through one trunk, whole or masked. Each
of these runs has as many as the mix, by another number of steps:

    mix, one trunk      2 a step: a whole pass that all share, and MAE's masked one
    a task alone        1 a step
    by turns            1 a step
    tied by distance    3 a step, with three of the tasks: a trunk and a pass each
    cross-stitched      9 a step, likewise: each of three passes runs all three trunks
"""

from __future__ import annotations

from gates_rules import Kept, Task

__all__ = ["ALONE", "MIXES", "OBJECTIVES", "PASSES", "STEPS"]

STEPS = 540
"""Of the mix, as its recipe has it."""
PASSES = 2 * STEPS
"""Trunk passes for each picture of a batch, in every run here."""

OBJECTIVES = {
    "image_text": Task("frame → task, R@1", "image_text-alone", rises=True),
    "masked_image": Task("masked image, error", "masked_image-alone"),
    "masked_language": Task("masked word, nats", "masked_language-alone"),
    "masked_action": Task("masked actions", "masked_action-alone"),
    "action_prediction": Task("action prediction, ", "action_prediction-alone"),
    "latent_action": Task("hand in plane, R²", "latent_action-alone", rises=True),
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


def _steps(passes_a_step: int) -> tuple[str, ...]:
    steps = PASSES // passes_a_step
    return (f"schedule.steps={steps}", f"schedule.warmup_steps={max(10, steps // 10)}")


def _of(*kinds: str) -> str:
    return f"objectives=[{', '.join(_SETTINGS[kind] for kind in kinds)}]"


ALONE = {kind: (_of(kind), "tasks=null", *_steps(1)) for kind in OBJECTIVES}
"""Each task by itself: what is changed, by its kind."""

_ALL, _SOME = Kept(tuple(OBJECTIVES.values())), Kept(tuple(OBJECTIVES[k] for k in _THREE))
_EQUAL = (_of(*OBJECTIVES), "tasks.normalise=initial")
_ONE = "tasks.sharing={kind: distance, strength: 0.01, served: image_text}"

MIXES = {
    "multi-task": (_ALL, ()),
    "equal": (_ALL, _EQUAL),
    "distance": (_SOME, (_of(*_THREE), _ONE, *_steps(3))),
    "cross-stitch": (_SOME, (_of(*_THREE), "tasks.sharing={kind: cross_stitch}", *_steps(9))),
    "alternating": (
        _ALL,
        (f"tasks.alternate={{pattern: [{', '.join(OBJECTIVES)}]}}", *_steps(1)),
    ),
    "uncertainty": (_ALL, ("tasks.weighting={kind: uncertainty}", *_EQUAL)),
    "grad-norm": (_ALL, ("tasks.weighting={kind: grad_norm, every: 10}", *_EQUAL)),
    "dwa": (_ALL, ("tasks.weighting={kind: dwa, window: 40}", *_EQUAL)),
}
"""All tasks together, or three of them: the rule and what is changed, by row."""
