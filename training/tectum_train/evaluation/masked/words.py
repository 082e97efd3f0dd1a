"""Masked words: does the picture help to tell what was hidden of its instruction?

Words are hidden as training hides them: so large a share of a sentence at once, one at least. All
of them behind the mask token, for what training leaves as it is would be asked and not hidden. The
bundle says how large that share was; one that does not is asked by BERT's 15 %.

Each word is guessed with its picture, with one of another task, and with none, the same words
being hidden; what is judged is the mean of these differences, word by word.

Letters: n sentences, W words that are hidden of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tectum_core.tokenizer import EncodedText
from tectum_train.evaluation import gates
from tectum_train.evaluation.measuring.context import Context, NothingToMeasure, of_others
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.paired import beside

__all__ = ["measure_masked_words"]

_BERTS = 0.15
"""Share that is hidden where nobody says how much was in training (arXiv:1810.04805)."""
_FRAMES, _DRAWS, _BATCH = 1024, 4, 128
_LEAST = 1e-12
Frames = NDArray[np.uint8]


@torch.inference_mode()
def measure_masked_words(context: Context) -> list[Measure]:
    """How often hidden words are found, and what the true ones cost, in nats.

    Raises:
        NothingToMeasure: no picture was shown in training, or all is of one task or episode.
    """
    predictor, tokenizer = context.predictor, context.predictor.bundle.tokenizer
    if predictor.model.fusion is None or tokenizer is None or tokenizer.mask_id is None:
        return []
    training = predictor.config.training
    if not training.learnt("fusion.from_image"):
        raise NothingToMeasure("the training showed no picture beside words")
    ratio = training.words_hidden or _BERTS
    chosen = context.generator("masked words").permutation(len(context.test))[:_FRAMES]
    index, draw = np.tile(chosen, _DRAWS), context.generator("hidden words")
    sentences = [context.test.instructions[i] for i in context.test.column("task_index")[index]]
    encoded = [predictor.encode(sentence) for sentence in sentences]
    places = [_hidden(text.content, ratio, draw) for text in encoded]
    strangers = index[
        of_others(context.families(context.test)[index], context.generator("shuffled pictures"))
    ]
    found = {
        name: _guessed(context, encoded, places, tokenizer.mask_id, shown)
        for name, shown in (("true", index), ("other", strangers), ("none", None))
    }
    number = [len(some) for some in places]
    # Frames of one sentence have the same words hidden or shown, in whichever episode they are.
    sentence = np.repeat(context.test.tasks(None)[index], number)
    on = (
        f"{sum(number)} words, {ratio:.0%} of a sentence at once; "
        f"{context.counted(chosen, 'frames')}, {_DRAWS} draws each"
    )
    measures = []
    for which, (what, rule, passes) in enumerate(
        (
            ("accuracy", gates.WORD_RULE, gates.word_is_found),
            ("nats", gates.WORD_SURPRISE_RULE, gates.word_surprises_less),
        )
    ):
        true, other, none = (found[name][which] for name in ("true", "other", "none"))
        value = float(true.mean())
        controls, errors = beside(
            true, {gates.OTHER_PICTURE: other, gates.NO_PICTURE: none}, sentence
        )
        passed = passes(value, controls, errors)
        measures.append(
            Measure(f"masked word, {what}", value, controls, rule, passed, on, errors=errors)
        )
        on = ""
    return measures


def _hidden(content: Sequence[int], ratio: float, draw: np.random.Generator) -> list[int]:
    """Some of the places of a sentence's words, as many as training hides."""
    number = max(1, round(len(content) * ratio))
    return sorted(content[int(i)] for i in draw.permutation(len(content))[:number])


def _guessed(
    context: Context,
    encoded: Sequence[EncodedText],
    places: Sequence[Sequence[int]],
    mask: int,
    shown: NDArray[np.int64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[W] each: whether the best guess is right, and the true word's surprise.

    Args:
        encoded: n sentences.
        places: of their hidden words.
        mask: the token that stands for one.
        shown: int64[n], the frames beside them; None: none.
    """
    right, surprise = list[NDArray[np.float64]](), list[NDArray[np.float64]]()
    for start in range(0, len(encoded), _BATCH):
        part = slice(start, start + _BATCH)
        ids = [
            [mask if place in some else token for place, token in enumerate(text.ids)]
            for text, some in zip(encoded[part], places[part], strict=True)
        ]
        pictures = None if shown is None else list(context.test.frames[shown[part]])
        spread = context.predictor.fill_texts(ids, pictures, places[part]).probabilities
        asked = zip(encoded[part], places[part], strict=True)
        true = np.array([text.ids[place] for text, some in asked for place in some])
        right.append((spread.argmax(axis=1) == true).astype(np.float64))
        given = spread[np.arange(len(true)), true].astype(np.float64)
        surprise.append(-np.log(np.maximum(given, _LEAST)))
    return np.concatenate(right), np.concatenate(surprise)
