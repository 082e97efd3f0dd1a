"""What is trained and by which rule it has learnt, a row of the table each.

To add an objective, add a row: a recipe, what of it is changed, and rules over its measures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gates_notes import NOTES, TRIED
from gates_rules import Above, Beside, Beyond, Own, Rising, Rule, Shown, Times
from gates_tasks import ALONE, MIXES, OBJECTIVES, SHARES
from tectum_train.evaluation import gates, gates_trunk

__all__ = [
    "CEILING",
    "LABELLED",
    "LINEAR",
    "NEIGHBOURS",
    "ROWS",
    "TAUGHT",
    "TRUNK",
    "Row",
    "named",
]


@dataclass(frozen=True)
class Row:
    """One objective, or one way to learn several."""

    name: str
    """What the table and `make gates ROW=` call it."""
    recipe: str
    """Of the package."""
    rules: tuple[Rule, ...]
    """All of them hold, or it has not learnt."""
    changes: tuple[str, ...] = ()
    """As `tectum train --set` takes them; `{row}` is the folder of that row's run, same seed."""
    after: tuple[str, ...] = ()
    """Rows whose runs it begins from."""
    note: str = ""
    """Where a gate is another than OBJECTIVES.md's words, or does not say all they ask, and why."""
    family: str = ""
    """`contrastive` or `masked`, for the comparison of the two on one architecture."""
    labels: str = "none"
    """What its recipe reads beside pictures, for that comparison."""
    tried: str = ""
    """What was tried, and what was judged before, where it does not pass or did not at first."""

    @property
    def probed(self) -> bool:
        """Whether anything is asked of its frozen trunk."""
        asked = (r.measure for r in self.rules if isinstance(r, Own | Shown | Beyond | Beside))
        return any(measure.startswith(TRUNK) for measure in asked)


TRUNK = "frozen trunk"
"""How the names of all that is asked of one begin."""
CEILING = "supervised"
"""The row beside which they stand, where it has been run."""
NEIGHBOURS, LINEAR = f"{TRUNK} → task, neighbours", f"{TRUNK} → task, linear probe"
_FEW_TASKS, _DENSE = f"{TRUNK} → task from 10% of the labels", f"{TRUNK} → hand's patch"
_POLICY = f"{TRUNK} and state → next actions"
_PROBES = (Shown(LINEAR), Shown(_FEW_TASKS), Shown(_DENSE), Shown(_POLICY))
_FIVE = (
    Times("frame → sentence, R@1", "chance", 5),
    Times("sentence → frame, R@1", "chance", 5),
    Beyond("frame → task, R@1", ("PCA-256 + logistic", "random init + logistic")),
    Shown("frame → sentence, "),
    Shown("sentence → frame, "),
    Shown("frame → task within same-scene pairs, R@1"),
    Shown(NEIGHBOURS),
    *_PROBES,
)
_APART = Own(f"{TRUNK}, spread", gates_trunk.SPREAD_RULE)
_KNN = (Own(NEIGHBOURS, gates_trunk.FEATURES_RULE), _APART, *_PROBES)
_FILLED = Own("masked image, error", gates.IMAGE_RULE)
_ACTIONS_FILLED = Own("masked actions", gates.HIDDEN_ACTIONS_RULE)

_PLAIN = ("model.vision.stem=null",)
_COMPARED = (Shown(NEIGHBOURS), *_PROBES)
_AHEAD = range(1, 5)
_FORESEEN = (
    Beyond("among its clip's, accuracy", ("chance", "random-init twin")),
    Beyond("frame 1 ahead among its clip's, accuracy", ("by likeness to the last frame",)),
    Rising(tuple(f"frame {n} ahead, nats" for n in _AHEAD), "rises with the horizon"),
)

_CONTRASTIVE = (
    Row("clip", "clip-small", _FIVE),
    Row(
        *("clip-plain", "clip-small", _COMPARED, _PLAIN),
        family="contrastive",
        labels="task, instruction",
    ),
    Row("siglip", "siglip-small", _FIVE),
    Row("simclr", "simclr-small", _KNN),
    Row("simclr-plain", "simclr-small", _COMPARED, _PLAIN, family="contrastive"),
    Row("moco", "moco-small", _KNN),
    Row(
        "cpc",
        "cpc-small",
        (*_FORESEEN, Shown("among all clips', accuracy"), Shown(NEIGHBOURS), *_PROBES),
    ),
    Row(
        "cpc-both",
        "cpc-small",
        (
            *_FORESEEN,
            Shown("among all clips', accuracy"),
            Shown(NEIGHBOURS),
            *_PROBES,
        ),
        ("objectives.cpc.negatives=both",),
    ),
    Row(
        "r3m",
        "r3m-small",
        (
            Above("three moments aligned", ("random-init twin",), by=0.10),
            Beyond("three moments aligned", ("raw pixels",)),
            Beyond("reward rises to a later moment", ("chance",)),
            Beyond("reward above all other tasks' episodes", ("chance",)),
            Own(_POLICY, gates_trunk.POLICY_RULE),
            Shown(NEIGHBOURS),
            Shown(_FEW_TASKS),
            Shown(_DENSE),
        ),
    ),
)

_KNOWS = Beyond(_FEW_TASKS, ("random init",))
"""Where the hand is, a small MAE's tokens tell no better than random ones; few labels part them."""
_MASK = "objectives.masked_image.mask={kind: %s}"


def _masks(name: str, mask: str) -> Row:
    """MAE with another kind of masks, on the probe that MAE with random ones is held to."""
    rules = (
        _KNOWS,
        Beside(_FEW_TASKS, "mae", 0.95),
        Shown(_DENSE),
        Shown(_POLICY),
        Shown("masked image, error"),
    )
    return Row(name, "mae-small", rules, (_MASK % mask,), family="masked")


_CLIP = "frozen clip trunk"
_CLIP_TASK = f"{_CLIP} → task from 10% of the labels"
_CLIPS = (Shown(f"{_CLIP} → task"),)

_MASKED = (
    Row(
        "mae",
        "mae-small",
        (_FILLED, _KNOWS, Shown(NEIGHBOURS), *_PROBES),
        family="masked",
    ),
    _masks("mae-block", "block"),
    _masks("mae-importance", "importance, source: change"),
    _masks("mae-attention", "importance, source: attention, hint: 0.75"),
    Row(
        "image-tokenizer",
        "image-tokenizer-small",
        (
            Own("image codes, share", gates.USAGE_RULE),
            Own("image codes, perplexity", gates.PERPLEXITY_RULE),
            Own("painted picture", gates.PAINTED_RULE),
        ),
    ),
    Row(
        "beit",
        "beit-small",
        (Own("masked code", gates.CODE_RULE), Shown(NEIGHBOURS), *_PROBES),
        ("objectives.beit.tokenizer={image-tokenizer}",),
        after=("image-tokenizer",),
    ),
    Row(
        "video-mae",
        "video-mae-small",
        (
            Own("masked clip", gates.CLIP_RULE),
            Beyond(_CLIP_TASK, ("random init",)),
            Beside(_CLIP_TASK, "video-mae-random", 0.95),
            *_CLIPS,
        ),
    ),
    Row(
        "video-mae-random",
        "video-mae-small",
        (Shown("masked clip"), *_CLIPS),
        ("objectives.video_mae.mask={kind: random}",),
    ),
    Row(
        "mim-text",
        "mim-text-small",
        (Own("told its instruction", gates.IMAGE_TOLD_RULE), Shown(NEIGHBOURS), *_PROBES),
        family="masked",
        labels="instruction",
    ),
    Row(
        "mlm",
        "mlm-small",
        (
            Own("masked word, accuracy", gates.WORD_RULE),
            Own("masked word, nats", gates.WORD_SURPRISE_RULE),
        ),
    ),
    Row("mam", "mam-small", (_ACTIONS_FILLED,)),
    Row(
        "mam-bins",
        "mam-small",
        (_ACTIONS_FILLED,),
        (
            "model.actions.bins={count: 32, spacing: quantiles}",
            "objectives.masked_action.loss=cross_entropy",
        ),
    ),
)

_IN_PLANE = Own("s → hand in plane, R²", gates.MOTION_RULE)
_FEW = Own("from 2.5% of the labels", gates.few_labels_rule({gates.TAUGHT: 0.0}))
_MORE = (Shown("from 10.0% of the labels"), Shown("from 100.0% of the labels"))
LABELLED = Shown("supervised ceiling → hand in plane, R²")
"""For rows that have it, networks are trained that are told the answer: minutes of work, once for
all rows."""
TAUGHT = "latent-action-vq-small"
"""The recipe whose shape those have, whatever the row's: of all here it learns best from pixels."""
_CARRIED = (
    *(_IN_PLANE, Own("next frame's error", gates.FRAME_RULE), _FEW, *_MORE, LABELLED),
    Own("in another scene", gates.TRANSFER_RULE),
)
_CODES = (
    Own("codes in use", gates.LATENT_CODES_RULE),
    Own("perplexity of its codes", gates.LATENT_PERPLEXITY_RULE),
)
_FORETOLD = Own("action prediction", gates.CHUNK_RULE)

_PREDICTIVE = (
    Row(
        "action-prediction",
        "action-prediction-small",
        (_FORETOLD,),
        ("model.actions.bins=null", "objectives.action_prediction.loss=mse"),
    ),
    Row("action-prediction-bins", "action-prediction-small", (_FORETOLD,)),
    Row(
        "latent-action",
        "latent-action-small",
        (*_CARRIED, Shown("s → hand, depth")),
    ),
    Row("latent-action-vq", "latent-action-vq-small", (*_CARRIED, *_CODES)),
    Row("latent-action-fsq", "latent-action-fsq-small", (*_CARRIED, *_CODES)),
    Row(
        "latent-action-latents",
        "latent-action-latents-small",
        (
            _IN_PLANE,
            Own("next frame's trunk tokens", gates.TOKENS_RULE),
            *(_FEW, *_MORE, LABELLED),
        ),
    ),
    Row(
        "world-model",
        "world-model-small",
        (
            Own("s ahead, error", gates.NEXT_LATENT_RULE, (gates.LATER_LATENT_RULE,)),
            Shown("spread of latents"),
            Shown("next frame painted"),
            Shown(NEIGHBOURS),
            Shown(_DENSE),
        ),
    ),
    Row(
        "world-model-trained",
        "world-model-small",
        (
            Own("s ahead, error", gates.NEXT_LATENT_RULE, (gates.LATER_LATENT_RULE,)),
            Above("spread of latents", ("collapse",), by=0.05),
            Shown(NEIGHBOURS),
            Shown(_DENSE),
        ),
        ("trunk=null", "objectives.world_model.encoder=trained"),
    ),
    Row(
        "dino",
        "dino-small",
        (*_KNN, Own("teacher's entropy", gates_trunk.TEACHER_RULE)),
    ),
    Row(CEILING, "supervised-small", _KNN),
)

_ALONE = tuple(
    Row(f"{kind}-alone", "multi-task-small", (Shown(OBJECTIVES[kind].measure),), changes)
    for kind, changes in ALONE.items()
)
_SHARES = tuple(
    Row(name, "multi-task-small", (Shown(OBJECTIVES[kind].measure),), changes)
    for name, (kind, changes) in SHARES.items()
)
_TOGETHER = tuple(
    Row(name, "multi-task-small", rules, changes) for name, (rules, changes) in MIXES.items()
)

ROWS = tuple(
    replace(row, note=NOTES.get(row.name, ""), tried=TRIED.get(row.name, ""))
    for row in (*_CONTRASTIVE, *_MASKED, *_PREDICTIVE, *_ALONE, *_SHARES, *_TOGETHER)
)


def named(name: str) -> Row:
    """The row of that name.

    Raises:
        ValueError: there is none; says which there are.
    """
    for row in ROWS:
        if row.name == name:
            return row
    raise ValueError(f"no row {name!r}; there are: {', '.join(row.name for row in ROWS)}")
