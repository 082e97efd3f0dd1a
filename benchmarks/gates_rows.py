"""What is trained and by which rule it has learnt, a row of the table each.

To add an objective, add a row: a recipe, what of it is changed, and rules over its measures.
"""

from __future__ import annotations

from dataclasses import dataclass

from gates_rules import Above, Beside, Own, Rising, Rule, Shown, Times
from gates_tasks import ALONE, MIXES, OBJECTIVES

__all__ = ["CEILING", "LINEAR", "NEIGHBOURS", "ROWS", "TRUNK", "Row", "named"]


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
    family: str = ""
    """`contrastive` or `masked`, for the comparison of the two."""
    tried: str = ""
    """What was tried, where it does not pass."""


TRUNK = "frozen trunk"
"""How the names of all that is asked of one begin."""
CEILING = "supervised"
"""The row beside which they stand, where it has been run."""
NEIGHBOURS, LINEAR = f"{TRUNK} → task, neighbours", f"{TRUNK} → task, linear probe"
_FEW_TASKS, _DENSE = f"{TRUNK} → task from 10% of the labels", f"{TRUNK} → hand's patch"
_POLICY = f"{TRUNK} and state → next actions"
_PROBES = (Shown(LINEAR), Shown(_FEW_TASKS), Shown(_DENSE), Shown(_POLICY))
_FIVE = (
    Times("frame → task, R@1", "chance", 5),
    Above("frame → task, R@1", ("PCA-256 + logistic", "random init + logistic")),
    Shown(NEIGHBOURS),
    *_PROBES,
)
_KNN = (Own(NEIGHBOURS), *_PROBES)
_FILLED = Own("masked image, error")
_CERTAIN = 0.05
"""Two standard errors of 400 yes's and no's."""

_VIEWS = "milder views (area from 0.6, colour 0.2, no grey), 130 steps of 64: neighbours 0.13"

_CONTRASTIVE = (
    Row("clip", "clip-small", _FIVE, family="contrastive"),
    Row("siglip", "siglip-small", _FIVE, family="contrastive"),
    Row("simclr", "simclr-small", _KNN, family="contrastive", tried=_VIEWS),
    Row("moco", "moco-small", _KNN, family="contrastive"),
    Row(
        "cpc",
        "cpc-small",
        (
            Above(
                "among its clip's, accuracy",
                ("chance", "random-init twin", "nearest to the last frame"),
            ),
            Rising(tuple(f"frame {n} ahead, nats" for n in range(1, 5)), "rises with the horizon"),
            Shown(NEIGHBOURS),
            *_PROBES,
        ),
        family="contrastive",
    ),
    Row(
        "r3m",
        "r3m-small",
        (
            Above("three moments aligned", ("random-init twin",), by=0.10),
            Above("three moments aligned", ("raw pixels",)),
            Above("reward rises to a later moment", ("chance",), by=_CERTAIN),
            Above("reward above all other tasks' episodes", ("chance",), by=_CERTAIN),
            Own(_POLICY),
            Shown(NEIGHBOURS),
            Shown(_FEW_TASKS),
            Shown(_DENSE),
        ),
        family="contrastive",
    ),
)

_KNOWS = Above(_FEW_TASKS, ("random init",))
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


_MASKED = (
    Row("mae", "mae-small", (_FILLED, _KNOWS, Shown(NEIGHBOURS), *_PROBES), family="masked"),
    _masks("mae-block", "block"),
    _masks("mae-importance", "importance, source: change"),
    Row(
        "image-tokenizer",
        "image-tokenizer-small",
        (Own("image codes, share"), Own("image codes, perplexity"), Own("painted picture")),
    ),
    Row(
        "beit",
        "beit-small",
        (Own("masked code"), Shown(NEIGHBOURS), *_PROBES),
        ("objectives.beit.tokenizer={image-tokenizer}",),
        after=("image-tokenizer",),
        family="masked",
    ),
    Row("video-mae", "video-mae-small", (Own("masked clip"),), family="masked"),
    Row("mim-text", "mim-text-small", (Own("told its instruction"), *_PROBES), family="masked"),
    Row("mlm", "mlm-small", (Own("masked word, accuracy"), Own("masked word, nats"))),
    Row("mam", "mam-small", (Own("masked actions"),)),
    Row(
        "mam-bins",
        "mam-small",
        (Own("masked actions"),),
        (
            "model.actions.bins={count: 32, spacing: quantiles}",
            "objectives.masked_action.loss=cross_entropy",
        ),
    ),
)

_IN_PLANE, _FEW = Own("hand in plane, R²"), Own("from 2.5% of the labels")
_CARRIED = (_IN_PLANE, Own("next frame's error"), _FEW, Own("in another scene"))
_CODES = (Own("codes in use"), Own("perplexity of its codes"))

_PREDICTIVE = (
    Row(
        "action-prediction",
        "action-prediction-small",
        (Own("action prediction"),),
        ("model.actions.bins=null", "objectives.action_prediction.loss=mse"),
    ),
    Row("action-prediction-bins", "action-prediction-small", (Own("action prediction"),)),
    Row(
        "latent-action",
        "latent-action-small",
        (*_CARRIED, Shown("hand, depth")),
        ("precision=float32",),
    ),
    Row("latent-action-vq", "latent-action-vq-small", (*_CARRIED, *_CODES)),
    Row("latent-action-fsq", "latent-action-fsq-small", (*_CARRIED, *_CODES)),
    Row(
        "latent-action-latents",
        "latent-action-latents-small",
        (_IN_PLANE, Own("next frame's trunk tokens"), _FEW),
    ),
    Row(
        "world-model",
        "world-model-small",
        (Own("s ahead, error"), Shown("spread of latents"), Shown("next frame painted")),
    ),
    Row("dino", "dino-small", (*_KNN, Own("teacher's entropy"))),
    Row(CEILING, "supervised-small", _KNN),
)

_ALONE = tuple(
    Row(f"{kind}-alone", "multi-task-small", (Shown(OBJECTIVES[kind].measure),), changes)
    for kind, changes in ALONE.items()
)
_TOGETHER = tuple(
    Row(name, "multi-task-small", (rule,), changes) for name, (rule, changes) in MIXES.items()
)

ROWS = (*_CONTRASTIVE, *_MASKED, *_PREDICTIVE, *_ALONE, *_TOGETHER)


def named(name: str) -> Row:
    """The row of that name.

    Raises:
        ValueError: there is none; says which there are.
    """
    for row in ROWS:
        if row.name == name:
            return row
    raise ValueError(f"no row {name!r}; there are: {', '.join(row.name for row in ROWS)}")
