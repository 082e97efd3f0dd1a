"""The gates: every number that a bundle is judged by, and the verdicts themselves.

A verdict is a pure function of a measured value and its controls, which it finds under the
names that the report prints. Nothing else in evaluation holds a measure against a threshold,
but for those of a trunk and its teacher (`gates_trunk`). Above each number stands what it was
demanded as.
"""

from __future__ import annotations

from collections.abc import Mapping

from tectum_train.evaluation.measuring.better import BEYOND, BY, above, below, beyond

__all__ = [
    "ALL_ALIKE",
    "ALONE_PIXELS",
    "ALONE_STILL",
    "ALONE_TOKENS",
    "BESIDE_TAUGHT",
    "CHANGE_OF_WIDTH",
    "CHANGE_PCA",
    "CHUNK_RULE",
    "CLIP_RULE",
    "CODE_RULE",
    "COMMONEST_CODE",
    "COPY_HIDDEN",
    "COPY_VISIBLE",
    "DECODED_RULE",
    "EXTRAPOLATION",
    "FRAME_RULE",
    "HIDDEN_ACTIONS_RULE",
    "IMAGE_RULE",
    "IMAGE_TOLD_RULE",
    "INTERPOLATION",
    "LAST_ACTION",
    "LATENT_CODES_RULE",
    "LATENT_PERPLEXITY_RULE",
    "LATER_LATENT_RULE",
    "MEAN_ACTION",
    "MEAN_PATCH",
    "MEAN_TUBELET",
    "MOTION_RULE",
    "NEXT_LATENT_RULE",
    "NO_PICTURE",
    "NO_WORDS",
    "OTHER_ACTIONS",
    "OTHER_CLIP",
    "OTHER_CODES",
    "OTHER_CONTEXT",
    "OTHER_NEXT",
    "OTHER_PICTURE",
    "OTHER_WORDS",
    "OTHER_Z",
    "OWN_SCENE",
    "PAINTED_RULE",
    "PAIR_RULE",
    "PASTED",
    "PERPLEXITY_RULE",
    "PIXELS",
    "RANDOM_INIT",
    "REPEATING",
    "TASK_RULE",
    "TOKENS_RULE",
    "TO_FILL",
    "TRANSFER_RULE",
    "TRUE_FRAMES",
    "USAGE_RULE",
    "WORD_RULE",
    "WORD_SURPRISE_RULE",
    "actions_are_decoded",
    "actions_are_foretold",
    "clip_is_filled",
    "code_is_guessed",
    "codes_are_painted",
    "codes_are_used",
    "codes_are_varied",
    "codes_to_fill",
    "enough_taught",
    "few_labels_rule",
    "few_labels_suffice",
    "frame_is_predicted",
    "hidden_actions_are_filled",
    "image_is_filled",
    "instruction_helps",
    "latent_codes_are_used",
    "latent_codes_are_varied",
    "later_latent_is_known",
    "motion_is_carried_over",
    "motion_is_in_z",
    "next_latent_is_known",
    "partner_is_told_apart",
    "task_is_known",
    "tokens_are_predicted",
    "word_is_found",
    "word_surprises_less",
]

Controls = Mapping[str, float]

MEAN_PATCH, OTHER_CONTEXT = "mean patch", "another image's context"
MEAN_TUBELET, OTHER_CLIP = "mean tubelet", "another clip's context"
COPY_VISIBLE = "copying the nearest visible tubelet"
COPY_HIDDEN = "copying the hidden tubelet from the neighbouring frames"
COMMONEST_CODE, ALL_ALIKE = "commonest code", "all codes alike"
OTHER_CODES = "another picture's codes"
OTHER_PICTURE, OTHER_WORDS = "shuffled picture", "shuffled instruction"
NO_PICTURE, NO_WORDS = "no picture", "no instruction"
INTERPOLATION, MEAN_ACTION = "linear interpolation", "mean action"
LAST_ACTION, OTHER_Z = "repeating the last action", "shuffled z"
CHANGE_OF_WIDTH = "frame-difference PCA, z's width"
CHANGE_PCA = "frame-difference PCA-256"
TAUGHT, BESIDE_TAUGHT = "supervised network on these labels", "z on the network's labels"
OTHER_NEXT = "shuffled o_t+1, refitted"
TRUE_FRAMES, OWN_SCENE = "true frames, the same probe", "z in its own scene"
PASTED = "the pair's difference, pasted, PCA of z's width"
TO_FILL = "codes that so many pairs can fill"
ALONE_PIXELS = "o_t alone, pixels PCA-256"
ALONE_TOKENS = "o_t alone, trunk tokens PCA-256"
ALONE_STILL = "o_t alone, z of a still pair"
PIXELS, RANDOM_INIT = "PCA-256", "random init"
OTHER_ACTIONS, EXTRAPOLATION = "shuffled actions", "linear extrapolation"
REPEATING = "repeating"


# ---------------------------------------------------------------- frame → task

# "frame → task by held-out paraphrases, ≥ 40 training episodes a task: R@1 ≥ 0.65 and ≥ 0.70 within
# same-scene pairs"
_EPISODES, _TASK, _PAIR = 40, 0.65, 0.70
_TAUGHT_RULE = f"≥ {_EPISODES} training episodes a task"
TASK_RULE = f"≥ {_TASK}; {_TAUGHT_RULE}"
PAIR_RULE = f"≥ {_PAIR}; {_TAUGHT_RULE}"


def enough_taught(fewest_episodes: int) -> bool:
    """By how many training episodes the task has that has the fewest."""
    return fewest_episodes >= _EPISODES


def task_is_known(recall: float, fewest_episodes: int) -> bool:
    """By R@1 among all tasks."""
    return recall >= _TASK and enough_taught(fewest_episodes)


def partner_is_told_apart(recall: float, fewest_episodes: int) -> bool:
    """By R@1 within same-scene pairs."""
    return recall >= _PAIR and enough_taught(fewest_episodes)


# ---------------------------------------------------------------- masked

# "MAE held-out masked loss ≤ 0.70 of predicting zero, below the per-patch-mean and ≥ 0.85 when
# the visible context is another image's"
_IMAGE, _OTHER_CONTEXT = 0.70, 0.85
IMAGE_RULE = f"≤ {_IMAGE}, below mean patch {BY}; other context ≥ {_OTHER_CONTEXT}"


def image_is_filled(error: float, controls: Controls) -> bool:
    """By errors as shares of predicting zero's."""
    return (
        error <= _IMAGE
        and below(error, controls[MEAN_PATCH])
        and controls[OTHER_CONTEXT] >= _OTHER_CONTEXT
    )


# "VideoMAE: beats copy-neighbour-frame", which under a tube mask is the nearest visible tubelet;
# the mean and the other context as of images
CLIP_RULE = f"below mean tubelet and copying what is visible {BY}; other context ≥ {_OTHER_CONTEXT}"


def clip_is_filled(error: float, controls: Controls) -> bool:
    """By errors as shares of predicting zero's."""
    return (
        below(error, controls[MEAN_TUBELET], controls[COPY_VISIBLE])
        and controls[OTHER_CLIP] >= _OTHER_CONTEXT
    )


# "BEiT: codebook usage and perplexity; masked accuracy above the majority token". How much usage
# is enough was not said: BEiT v2 publishes 97 to 100 %.
_USAGE, _ALIKE, _PAINTED = 0.90, 0.25, 0.50
USAGE_RULE = f"≥ {_USAGE}"
PERPLEXITY_RULE = f"≥ {_ALIKE} of all codes alike"
PAINTED_RULE = f"≤ {_PAINTED}"
CODE_RULE = f"above commonest code and other context, each {BEYOND}"


def codes_are_used(share: float) -> bool:
    """By the share of codes that held-out frames have."""
    return share >= _USAGE


def codes_are_varied(perplexity: float, codes: int) -> bool:
    """By the perplexity of a codebook of so many."""
    return perplexity >= _ALIKE * codes


def codes_are_painted(error: float) -> bool:
    """By the error as a share of the mean patch's."""
    return error <= _PAINTED


def code_is_guessed(accuracy: float, controls: Controls, errors: Controls) -> bool:
    """By the share of right codes."""
    return beyond(
        {name: accuracy - controls[name] for name in (COMMONEST_CODE, OTHER_CONTEXT)}, errors
    )


# "MIM given text: error(shuffled text) − error(true text) > 0": by more than chance, of which the
# errors of the same patches of the same frames, with one and the other instruction, have little;
# and below none at all, since words that mislead are no proof that the true ones tell anything
IMAGE_TOLD_RULE = f"below shuffled instruction and no instruction, each {BEYOND}"


def instruction_helps(error: float, controls: Controls, errors: Controls) -> bool:
    """By squared errors of hidden patches."""
    return beyond({name: controls[name] - error for name in (OTHER_WORDS, NO_WORDS)}, errors)


# "masked words better with the true image than a shuffled one": by more than chance, and than with
# none at all, since a picture that misleads is no proof that the true one tells anything
WORD_RULE = f"above shuffled picture and no picture, each {BEYOND}"
WORD_SURPRISE_RULE = f"below shuffled picture and no picture, each {BEYOND}"


def word_is_found(accuracy: float, controls: Controls, errors: Controls) -> bool:
    """By the share of right words."""
    return beyond({name: accuracy - controls[name] for name in (OTHER_PICTURE, NO_PICTURE)}, errors)


def word_surprises_less(nats: float, controls: Controls, errors: Controls) -> bool:
    """By the true word's surprise."""
    return beyond({name: controls[name] - nats for name in (OTHER_PICTURE, NO_PICTURE)}, errors)


# "masked actions better than linear interpolation"
HIDDEN_ACTIONS_RULE = f"below linear interpolation {BEYOND}"


def hidden_actions_are_filled(error: float, controls: Controls, errors: Controls) -> bool:
    """By squared errors."""
    return beyond({INTERPOLATION: controls[INTERPOLATION] - error}, errors)


# ---------------------------------------------------------------- actions, beyond what is demanded

CHUNK_RULE = f"below mean action, repeating the last and no picture, each {BEYOND}"
DECODED_RULE = f"below mean action and shuffled z, each {BEYOND}"


def actions_are_foretold(error: float, controls: Controls, errors: Controls) -> bool:
    """By squared errors."""
    lesser = (MEAN_ACTION, LAST_ACTION, NO_PICTURE)
    return beyond({name: controls[name] - error for name in lesser}, errors)


def actions_are_decoded(error: float, controls: Controls, errors: Controls) -> bool:
    """By squared errors."""
    return beyond({name: controls[name] - error for name in (MEAN_ACTION, OTHER_Z)}, errors)


# ---------------------------------------------------------------- latent actions

# "linear R² over the two in-plane axes ≥ 0.70, ≥ frame-difference PCA of z's own width + 0.40,
# ≥ PCA-256 + 0.05, ≥ probe from o_t alone + 0.40, ≤ 0.10 when refitted on a shuffled next frame"
_PLANE, _OVER_WIDTH, _OVER_PCA, _OVER_ALONE, _SHUFFLED = 0.70, 0.40, 0.05, 0.40, 0.10
MOTION_RULE = (
    f"≥ {_PLANE}, PCA of z's width + {_OVER_WIDTH}, PCA-256 + {_OVER_PCA}, "
    f"best of o_t alone + {_OVER_ALONE}; shuffled ≤ {_SHUFFLED}"
)


def motion_is_in_z(r_squared: float, controls: Controls) -> bool:
    """By R² in the plane; of the probes of o_t alone, the best counts."""
    alone = max(controls[name] for name in (ALONE_PIXELS, ALONE_TOKENS, ALONE_STILL))
    return (
        r_squared >= _PLANE
        and r_squared >= controls[CHANGE_OF_WIDTH] + _OVER_WIDTH
        and r_squared >= controls[CHANGE_PCA] + _OVER_PCA
        and r_squared >= alone + _OVER_ALONE
        and controls[OTHER_NEXT] <= _SHUFFLED
    )


# "next-frame prediction error ≤ 0.35 of copying the frame"
_FRAME = 0.35
FRAME_RULE = f"≤ {_FRAME}"


def frame_is_predicted(error: float) -> bool:
    """By the error as a share of copying's."""
    return error <= _FRAME


# The same in the trunk's tokens, of which was not said how near: beyond doubt nearer than a copy.
TOKENS_RULE = f"below 1 and shuffled z, each {BY}"


def tokens_are_predicted(error: float, controls: Controls) -> bool:
    """By the error as a share of copying's."""
    return below(error, 1.0, controls[OTHER_Z])


# Demanded is that decoding from z beats learning from pixels with 2.5 % of the action labels: a
# probe of them and, where it is trained, a network. Not by being less bad than a probe of too many
# numbers: the mean displacement, which needs no pixels, has 0, and as few components as z has
# numbers are a probe of as few.
_FEW = 0.20


def few_labels_rule(controls: Controls) -> str:
    """In words; a network is named where one was trained."""
    network = " and the supervised network" if TAUGHT in controls else ""
    return f"≥ {_FEW:.2f}, above probes of pixels{network} {BY}"


def few_labels_suffice(r_squared: float, controls: Controls) -> bool:
    """By R² in the plane, fitted on the same few labels as each control."""
    probes = controls[CHANGE_OF_WIDTH], controls[CHANGE_PCA]
    beside = controls.get(BESIDE_TAUGHT, r_squared)
    taught = TAUGHT not in controls or above(beside, controls[TAUGHT])
    return r_squared >= _FEW and above(r_squared, *probes) and taught


# "a code decoded in another scene moves the same way". Directions are read by a linear probe that
# errs on true frames too, so it is asked for half of what the probe reads there; the motions of a
# data set have a common direction, which shuffled pairs have as well; and a difference of pictures,
# pasted as far as so many numbers tell it, moves somewhat too.
_CARRIED, _OVER_OTHERS = 0.50, 0.25
TRANSFER_RULE = (
    f"≥ {_CARRIED:.2f} of true frames', ≥ shuffled z + {_OVER_OTHERS}, above the pasted difference "
    f"{BY}"
)


def motion_is_carried_over(cosine: float, controls: Controls) -> bool:
    """By the mean cosine of what is painted in another scene with the pair's own motion."""
    return (
        cosine > 0
        and cosine >= _CARRIED * controls[TRUE_FRAMES]
        and cosine >= controls[OTHER_Z] + _OVER_OTHERS
        and above(cosine, controls[PASTED])
    )


# "code usage". A collapsed codebook says one code, and restarts alone let each be said once in a
# while, so a code counts from a tenth of an even share on. Half of them: motions are unevenly
# common, and the rare ones need codes too. A codebook larger than the data can fill, at ten times
# for each code, is held to what they can. Perplexity: as even as half of that half.
_EACH, _FILLED, _VARIED = 10, 0.50, 0.25
LATENT_CODES_RULE = f"≥ {_FILLED:.2f} of what can be filled"
LATENT_PERPLEXITY_RULE = f"≥ {_VARIED:.2f} of what can be filled"


def codes_to_fill(size: int, said: int) -> float:
    """How many of a codebook's so many codes as many as were said can fill."""
    return float(min(size, said / _EACH))


def latent_codes_are_used(used: float, to_fill: float) -> bool:
    """By how many codes are in use."""
    return used >= _FILLED * to_fill


def latent_codes_are_varied(perplexity: float, to_fill: float) -> bool:
    """By the perplexity of the codes that are said."""
    return perplexity >= _VARIED * to_fill


# ---------------------------------------------------------------- world models

# "beats copy-last at every horizon (≥ 20 % below at h=1); error with true action < with shuffled
# action"
_NEXT_LATENT = 0.80
LATER_LATENT_RULE = f"below repeating and shuffled actions, each {BEYOND}"
NEXT_LATENT_RULE = f"≤ {_NEXT_LATENT:.2f}, {LATER_LATENT_RULE}"


def next_latent_is_known(error: float, controls: Controls, errors: Controls) -> bool:
    """By the error as a share of repeating's; a model that reads no actions has none to shuffle."""
    return error <= _NEXT_LATENT and later_latent_is_known(error, controls, errors)


def later_latent_is_known(error: float, controls: Controls, errors: Controls) -> bool:
    """Likewise."""
    named = [REPEATING, *(name for name in (OTHER_ACTIONS,) if name in controls)]
    return beyond({name: controls[name] - error for name in named}, errors)
