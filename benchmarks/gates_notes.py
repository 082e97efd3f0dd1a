"""What the rows of the gates say beside their numbers: where a gate is another, what was tried."""

from __future__ import annotations

from gates_tasks import MIXES

__all__ = ["NOTES", "TRIED"]

_SCENES = (
    "R@1 within same-scene pairs is shown and no gate: here 5 × chance is asked; ≥ 0.70 within "
    "pairs is asked of tectum-tiny, which learns from six objectives and three times as many "
    "samples. Tasks that undo each other begin as the other ends, so a frame hardly says by what "
    "the scene looks like which of the two it is of (docs/decisions/0003)"
)
_TOLD_TASKS = (
    "Its positives are pairs of one task (`data.task`), where OBJECTIVES.md has one instruction: "
    "else two sentences of one task would be negatives of each other. So the task that frozen "
    "features are asked for is one that it was told. A frame's sentence and its task are both "
    "answered by the task of the nearest sentence: the two R@1 are one number"
)
_ALIKE = "for the closing table alone: the trunk of mae, which has no convolutions before it"
_PICTURELESS = (
    "'no picture' is the same network without one, which it never lacked in training: not what "
    "state and words alone could teach another"
)
_WEIGHED = (
    "each row of mixes is another way to learn them together: weights by hand, alike, by "
    "uncertainty, GradNorm and DWA, by turns, trunks apart and stitched"
)

NOTES = {
    "clip": f"{_SCENES}. {_TOLD_TASKS}",
    "siglip": (
        f"{_SCENES}. {_TOLD_TASKS}. What OBJECTIVES.md asks of SigLIP is that its loss begins near "
        "1 and is the same in one process and in two, which tests hold; retrieval is clip's gate"
    ),
    "clip-plain": f"{_ALIKE}. {_TOLD_TASKS}",
    "simclr-plain": _ALIKE,
    "moco": ("of the queue's ages a mean is told in training, no histogram"),
    "cpc": (
        "negatives are of the same clip alone; those of other episodes too: cpc-both. By likeness "
        "to the last frame is a gate one frame ahead, as OBJECTIVES.md has it for one; four "
        "ahead, likeness tells as much as the model does. That nats rise with the horizon is "
        "asked without errors"
    ),
    "cpc-both": (
        "among all clips' frames nothing is a gate: which clip it is, is told by the scene, and "
        "what cannot tell moments of one clip apart finds it as well"
    ),
    "r3m": (
        "the frozen-feature policy is a ridge regression to the actions that were recorded, on "
        "held-out episodes; it acts in no simulator. Of rewards the errors are those of as many "
        "yes's and no's as there are episodes; that a reward rises to a later moment is held to "
        "chance alone, and the instruction of another task, which is shown beside it, is no gate. "
        "Its negatives are of other tasks (`data.task`)"
    ),
    "mae": (
        "OBJECTIVES.md asks for few-label and dense probes. Few labels are gated against random "
        "init alone: raw pixels (PCA-256) have told more by them. The dense probe is shown and no "
        "gate: tokens of random weights have told as well where the hand is, and raw pixels "
        "better (docs/decisions/0005). Another image's context is to come to 0.85 of predicting "
        "zero or more, where OBJECTIVES.md says near 0.9: it comes to more than 1"
    ),
    "video-mae": (
        "OBJECTIVES.md's words are 'beats copy-neighbour-frame'. By these the row fails: copying "
        "the hidden tubelet from the neighbouring frames costs less. Under tubes no frame shows "
        "what is hidden, so that copy reads what the model may not; gated is copying what is "
        "visible, which is little to beat (it costs more than predicting zero), and the probe "
        "above random weights and beside random masks. Hidden are three quarters, where "
        "OBJECTIVES.md and the paper have nine tenths (docs/decisions/0005)"
    ),
    "video-mae-random": (
        "what video-mae's tubes are held to, by the same probe; its error is under tubes, which "
        "it has not learnt with"
    ),
    "mlm": (
        "hidden are nine words of ten, all behind the mask token, where OBJECTIVES.md has 15 % "
        "and BERT's mixture: with so few hidden the words beside them tell them, and no picture "
        "is looked at (docs/decisions/0003)"
    ),
    "action-prediction": _PICTURELESS,
    "action-prediction-bins": _PICTURELESS,
    "latent-action-latents": (
        "the error is of the trunk's tokens, of which a copy's 0.35 was not asked, and nothing is "
        "painted that could be carried into another scene. The trunk it begins with has learnt "
        "from action labels among others: latent-action, -vq and -fsq have seen none"
    ),
    "world-model-trained": (
        "the trap that OBJECTIVES.md names: a trunk that learns from what it predicts may make "
        "all frames one. Latents have a mean square of 1, so their spread is at most 1. It chooses "
        "what there is to foresee, so these shares are not to be held against world-model's, "
        "whose trunk chose nothing; neighbours and the hand's patch can be"
    ),
    "supervised": (
        "what the labels themselves teach a trunk of this size in as many minutes: no upper "
        "bound, and of what they do not name (where the hand is) others tell more. Labels are the "
        "task and whether it is done; the world says no object or phase (docs/decisions/0005)"
    ),
}
"""Where a gate is another than OBJECTIVES.md's words or does not say all they ask, and why."""

TRIED = {
    "simclr": (
        "judged before, 500 steps, seed 0: 0.553 beside PCA-256's 0.518 (2 SE 0.048), not enough. "
        "By: milder views (area from 0.6, colour 0.2, no grey), 130 steps of 64: neighbours 0.13; "
        "on the episodes that recipes are chosen on (PCA-256 0.51) 500 steps 0.57, 650 (chosen) "
        "0.63"
    ),
    "moco": (
        "judged before, seed 0: 0.506, not enough. On the episodes that recipes are chosen on "
        "(neighbours; standardised pixels 0.50, simclr 0.57), 300 steps each: a queue of 2,048 of "
        "12 whole episodes 0.48; of 768 0.54, but vectors within 0.04 of their length; so KoLeo "
        "0.01 (0.53, 0.12; chosen), 0.1 0.44, 0.003 and 450 steps 0.48; a queue of 192 0.48; "
        "momentum 0.95 0.51; temperature 0.1 0.49; twice the batch 0.49, twice the learning rate "
        "0.53; a class token 0.51; no BatchNorm 0.32; version 3 0.44. Chosen, 700 steps: 0.54 "
        "(spread 0.35); 900, and half as many frames of twice as many episodes in the queue: 0.61 "
        "(0.72), as fewer of its keys are the same moment's"
    ),
    "mae": (
        "judged before, colours changed, half the learning rate, 1,200 steps: few labels 0.160 "
        "and 0.172 with seeds 0 and 1, of which the second was not enough; on the episodes that "
        "recipes are chosen on: 0.169, at twice the rate 0.144, 1,900 steps of it 0.170; no "
        "colours changed, as in the paper, 0.161, and at twice the rate 0.181, 1,700 steps of it "
        "(chosen) 0.196"
    ),
    "mae-attention": (
        "half of what is shown drawn from all, judged, seed 0: 0.133 beside random init's 0.131 "
        "(2 SE 0.017); three quarters of it (chosen), on the episodes that recipes are chosen on: "
        "0.154 beside 0.136"
    ),
    "video-mae": (
        "judged before, nine tenths hidden, as in the paper, seed 0: 0.228 beside random init's "
        "0.175, but random masks' 0.312; on the episodes that recipes are chosen on, three "
        "quarters hidden (chosen) 0.259 beside 0.170"
    ),
    "mlm": (
        "judged before with smaller batches, seed 0: accuracy 0.287 beside 0.280 without a "
        "picture, not enough; on the episodes that recipes are chosen on, batches of 128 (chosen)"
    ),
    "dino": (
        "judged before, seed 0: 0.428, not enough. On the episodes that recipes are chosen on "
        "(neighbours; standardised pixels 0.51), 300 steps: patches hidden, at a weight of 0.1, "
        "and momentum 0.95 0.44, 0.8 0.48, 0.9 and twice the learning rate 0.47; the paper's "
        "centre, 512 prototypes and momentum 0.99 0.12, its teacher sure of nothing (6.23 of 6.24 "
        "nats); no patches hidden, momentum 0.9, no KoLeo 0.505; 0.8 and KoLeo 0.05 0.50, and "
        "with 450 steps 0.57 (chosen)"
    ),
    "latent-action-latents": (
        "judged before, the trunk as it is, 400 steps of 64, seed 0: R² 0.167. On the episodes "
        "that recipes are chosen on: 1,000 steps 0.349, and as the change from a still pair "
        "0.475, 32 wide 0.538; pixels read in place of the trunk, 800 steps, 0.03; the trunk "
        "learning on, 800 steps of 64 0.792, 750 of 32 0.809 (chosen, 700), a trunk from nothing, "
        "600 of 64, 0.04"
    ),
    "world-model-trained": (
        "judged before, seed 0: 11.3 of repeating an eighth of a second ahead. The change was "
        "added to what the trunk itself sees and judged by what its slow copy does, between which "
        "lay ten times what a frame changes; now it is added to the copy's"
    ),
    **dict.fromkeys(MIXES, _WEIGHED),
}
"""What was tried, and what was judged before, where a row does not pass or did not at first."""
