"""Every measure of a bundle, in one go, and as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import zip_longest
from statistics import mean, stdev
from typing import Any

from tectum_core.bundle import Bundle, BundleConfig
from tectum_core.predictor import Predictor
from tectum_train.data.samples import Samples
from tectum_train.engine.states import StateFeatures
from tectum_train.evaluation.latent_action.ceiling import Supervised, measure_ceiling
from tectum_train.evaluation.latent_action.latent import measure_latent_actions
from tectum_train.evaluation.masked.actions import (
    measure_action_prediction,
    measure_decoded_actions,
    measure_masked_actions,
)
from tectum_train.evaluation.masked.clips import measure_masked_clips
from tectum_train.evaluation.masked.codes import measure_image_codes, measure_masked_codes
from tectum_train.evaluation.masked.images import (
    measure_masked_images,
    measure_told_images,
)
from tectum_train.evaluation.masked.words import measure_masked_words
from tectum_train.evaluation.measuring.context import (
    Columns,
    Context,
    NothingToMeasure,
    random_twins,
)
from tectum_train.evaluation.measuring.fits import check_fits, pair_steps
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.trunk.clip_features import measure_clip_features
from tectum_train.evaluation.trunk.dense import measure_dense_features
from tectum_train.evaluation.trunk.neighbours import measure_features
from tectum_train.evaluation.trunk.policy import measure_policy
from tectum_train.evaluation.trunk.retrieval import measure_retrieval
from tectum_train.evaluation.trunk.sentences import measure_sentences
from tectum_train.evaluation.world_model import measure_world_model
from tectum_train.objectives import Objective
from tectum_train.objectives.beit import Beit
from tectum_train.objectives.image_codes import ImageCodes
from tectum_train.world import read_world

__all__ = ["as_json", "evaluate", "flat", "markdown"]


_WORLD = "meta/world.json"


@dataclass(frozen=True, slots=True)
class _Part:
    """Some measures of one head, and what the data set must have for them."""

    name: str
    measure: Callable[[Context], list[Measure]]
    needs: tuple[str, ...] = ()
    """Features, or `_WORLD`: a description that names task families."""

    def lacking(self, context: Context) -> list[str]:
        """What it needs and one of the two splits has not."""
        families = bool(context.world.families)
        splits = (context.train, context.test)
        return [
            name
            for name in self.needs
            if not (families if name == _WORLD else all(split.has(name) for split in splits))
        ]


def _parts(
    config: BundleConfig,
    columns: Columns,
    shown: StateFeatures,
    supervised: Supervised | None,
    *,
    probes: bool,
) -> Iterator[_Part]:
    """What there is to measure of a bundle with these trained heads, in the report's order."""
    model, learnt = config.model, config.training.learnt
    if model.joint is not None and learnt("joint"):
        told = (_WORLD, columns.family, columns.state)
        yield _Part("retrieval", measure_retrieval, told)
    if model.pixel_decoder is not None and learnt("pixel_decoder"):
        yield _Part("masked images", measure_masked_images)
        if model.pixel_decoder.text_context and learnt("pixel_decoder.from_text"):
            yield _Part("masked images told their instructions", measure_told_images)
    if model.video_decoder is not None and learnt("video_decoder"):
        yield _Part("masked clips", measure_masked_clips)
        yield _Part("frozen clip features", measure_clip_features, (columns.family,))
    if model.fusion is not None and learnt("fusion.token_head"):
        yield _Part("masked words", measure_masked_words)
    if model.fusion is not None and model.actions is not None and learnt("fusion.action_head"):
        acting = (columns.action, *shown.features)
        if learnt("fusion.actions.embed"):
            yield _Part("masked actions", measure_masked_actions, acting)
        yield _Part("action prediction", measure_action_prediction, acting)
    latent, moving = model.latent_action, (columns.state, columns.extrinsics)
    if latent is not None and learnt("latent_action"):
        beside = partial(measure_latent_actions, supervised=supervised)
        yield _Part("latent actions", beside, moving)
        if latent.decoded_steps and learnt("latent_action.action_decoder"):
            yield _Part("decoded actions", measure_decoded_actions, (columns.action,))
    if model.world_model is not None and learnt("world_model"):
        acted = (columns.action,) if model.world_model.actions == "real" else ()
        yield _Part("world model", measure_world_model, acted)
    if probes and learnt("vision"):
        yield _Part("frozen features", measure_features, (columns.family,))
        camera = (columns.intrinsics, columns.extrinsics)
        yield _Part("dense features", measure_dense_features, (columns.state, *camera))
        yield _Part("frozen policy", measure_policy, (columns.action, columns.state))
    if model.joint is not None and learnt("joint"):
        yield _Part("sentences", measure_sentences, (_WORLD, columns.family))
    if supervised is not None and latent is not None and learnt("latent_action"):
        reached = partial(measure_ceiling, supervised=supervised)
        yield _Part("the supervised ceiling", reached, moving)


def _beside(objectives: Sequence[Objective]) -> Iterator[_Part]:
    """What there is to measure of what a bundle leaves out."""
    for one in objectives:
        if isinstance(one, ImageCodes):
            yield _Part("image codes", partial(measure_image_codes, tokenizer=one.tokenizer))
        elif isinstance(one, Beit):
            yield _Part("masked codes", partial(measure_masked_codes, guesser=one))


def evaluate(
    bundle: Bundle,
    train: Samples,
    test: Samples,
    columns: Columns | None = None,
    seed: int = 0,
    supervised: Supervised | None = None,
    tell: Callable[[str], None] = lambda _: None,
    left_out: Callable[[str], None] = lambda _: None,
    device: str = "cpu",
    objectives: Sequence[Objective] = (),
    *,
    probes: bool = True,
) -> list[Measure]:
    """All measures that the bundle has a head for and the data set has what it takes for.

    Args:
        bundle: under test; its model is moved to `device`.
        train: where probes are fitted, at the bundle's input size.
        test: what is measured on, likewise; beside it, its world.json.
        columns: what the data set's features are called; None: as the generator calls them.
        seed: of choices such as masks and shuffles.
        supervised: networks that are taught what latent actions have to find, from all labels
            and from few, to stand beside them; None: nobody trains them.
        tell: called with what is being measured.
        left_out: called with what is not, and what the data set lacks for it.
        device: a torch device for the models; probes are fitted on the CPU.
        objectives: that the bundle's model was trained by, for what only they have or know;
            moved likewise.
        probes: whether the frozen trunk is asked, too: minutes for networks of random weights
            beside it.

    Raises:
        DataError: bundle and data contradict each other (see `check_fits`).
    """
    columns, config = columns or Columns(), bundle.config
    known, names = None, tuple[str, ...]()
    if config.actions is not None:
        known, names = config.actions.step_interval, config.actions.state_names
    shown = StateFeatures.of_bundle(names, columns.state, columns.intrinsics)
    check_fits(config.model, columns, train, test, known, shown)
    # Controls read an untrained trunk too: what random features know is what they are for.
    left = tuple(part for part in config.training.untrained if part.partition(".")[0] != "vision")
    readable = config.training.model_copy(update={"untrained": left})
    whole = replace(bundle, config=config.model_copy(update={"training": readable}))
    context = Context(
        predictor=Predictor(whole, device),
        twins=random_twins(whole, seed, device),
        train=train,
        test=test,
        world=read_world(test.dataset.root),
        columns=columns,
        pair_steps=pair_steps(config.model, test.dataset.info.fps),
        shown=shown,
        seed=seed,
    )
    measures: list[Measure] = []
    for one in objectives:
        one.to(device).eval()
    parts = _parts(config, columns, shown, supervised, probes=probes)
    for part in (*parts, *_beside(objectives)):
        if lacking := part.lacking(context):
            left_out(f"{part.name}: the data set lacks {', '.join(lacking)}")
            continue
        tell(part.name)
        try:
            measures += [replace(one, part=part.name) for one in part.measure(context)]
        except NothingToMeasure as why:
            left_out(f"{part.name}: {why}")
    return measures


def flat(measures: Sequence[Measure]) -> dict[str, float]:
    """Names and values, for a training summary."""
    return {measure.name: round(measure.value, 4) for measure in measures}


def as_json(measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """For a file."""
    return [
        {**asdict(one), "controls": dict(one.controls), "errors": dict(one.errors)}
        for one in measures
    ]


def markdown(runs: Mapping[str, Sequence[Measure]]) -> str:
    """A table over one run or several seeds: value, controls, gate, verdict, on how much.

    Behind a control stand two standard errors (2 SE) of the difference to it, where they are known.

    Args:
        runs: each bundle's measures, by what it is called if they do not match.

    Raises:
        ValueError: they do not; names bundle and row.
    """
    (first_name, rows), *others = runs.items()
    for name, measures in others:
        _check_same_rows(first_name, rows, name, measures)
    lines = [
        "| measure | value | controls | gate | | on |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in zip(*runs.values(), strict=True):
        first = row[0]
        controls = "; ".join(_control(name, row) for name in first.controls)
        verdict = ""
        if first.passed is not None:
            good = sum(bool(measure.passed) for measure in row)
            verdict = "PASS" if good == len(row) else f"FAIL ({good} of {len(row)} pass)"
        value = _spread([measure.value for measure in row])
        cells = (first.name, value, controls, first.gate, verdict, first.on)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _check_same_rows(
    first: str, rows: Sequence[Measure], name: str, measures: Sequence[Measure]
) -> None:
    for number, (ours, theirs) in enumerate(zip_longest(rows, measures), start=1):
        left, right = (
            None if one is None else (one.name, one.gate, sorted(one.controls))
            for one in (ours, theirs)
        )
        if left != right:
            raise ValueError(
                f"row {number} of {name} is {_told(theirs)}, where {first} has {_told(ours)}; only "
                "equal measures go into one table"
            )


def _told(measure: Measure | None) -> str:
    if measure is None:
        return "missing"
    controls = ", ".join(measure.controls) or "none"
    return f"{measure.name!r} (gate: {measure.gate or 'none'}; controls: {controls})"


def _control(name: str, row: Sequence[Measure]) -> str:
    found = f"{name} {_spread([measure.controls[name] for measure in row])}"
    if not all(name in measure.errors for measure in row):
        return found
    return f"{found} (2 SE {mean(measure.errors[name] for measure in row):.3f})"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ± {stdev(values):.3f}"
