"""How a worker is asked over gRPC, through the SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any

import tectum
from tectum import AsyncClient, Capability, Model, Priority
from tectum_cli.extras import fail
from tectum_cli.load.driving import Answer, Outcome
from tectum_cli.load.pictures import Picture
from tectum_cli.load.traffic import Question

__all__ = ["OPS", "SENTENCES", "WorkerCalls", "answer_of", "check", "worker_calls"]

SENTENCES = (
    "open the drawer",
    "close the door of the cupboard",
    "turn the tap to the left",
    "push the red block to the goal",
)
"""Texts to ask with."""
OPS: Mapping[str, Capability] = {
    "embed_images": Capability.EMBED_IMAGES,
    "embed_texts": Capability.EMBED_TEXTS,
    "similarity": Capability.EMBED_TEXTS,
    "reconstruct_image": Capability.RECONSTRUCT_IMAGES,
    "latent_actions": Capability.PREDICT_LATENT_ACTIONS,
}
"""What can be asked, and what a model must be able to do for it."""
_OUTCOMES = {"RESOURCE_EXHAUSTED": Outcome.REFUSED, "DEADLINE_EXCEEDED": Outcome.EXPIRED}
"""Of an item's code; any other has failed."""


@asynccontextmanager
async def worker_calls(
    address: str,
    token: str,
    model: str,
    pictures: Sequence[Picture],
    items: int,
    ops: Iterable[str],
) -> AsyncIterator[tuple[str, WorkerCalls]]:
    """Connect, and see that the model can do what shall be asked.

    Args:
        address: HOST:PORT.
        token: empty: none.
        model: empty: the default one.
        pictures: at least two.
        items: of each call.
        ops: of `OPS`.

    Returns:
        What is asked, `name@version`, and who asks.

    Raises:
        TectumError: it is not there.
        Exit: the model cannot do that.
    """
    async with AsyncClient(address, token=token or None, retries=0) as client:
        found = await client.get_model(model)
        can = {op for op, needed in OPS.items() if needed in found.capabilities}
        check(f"{found.name}@{found.version}", can, ops, items, found.limits.max_items)
        yield f"{found.name}@{found.version}", WorkerCalls(client, found, pictures, items)


def check(model: str, can: Iterable[str], ops: Iterable[str], items: int, most: int) -> None:
    """See that a model can be asked.

    Raises:
        Exit: no; it has been said why.
    """
    able = list(can)
    for op in ops:
        if op not in able:
            raise fail(f"--ops: found {op}; allowed: {', '.join(able)}, which {model} can do")
    if items > most:
        raise fail(f"--batch: found {items}; allowed: 1 to {most}, the most this worker takes")


def answer_of(answered: Any) -> Answer:
    """What a call came to that was answered, whole or in part: `results.Batch`, or another."""
    timings = answered.info.timings
    told = {
        "queue": timings.queue,
        "decode": timings.decode,
        "compute": timings.compute,
        "total": timings.total,
        "batch": timings.batch_size,
    }
    wrong = next(iter(getattr(answered, "errors", None) or ()), None)
    if wrong is None:
        return Answer(Outcome.ANSWERED, **told)
    error = answered.errors[wrong] if isinstance(answered.errors, dict) else wrong.error
    return Answer(_OUTCOMES.get(error.code, Outcome.FAILED), error.reason or error.code, **told)


class WorkerCalls:
    """Asks one worker; see `driving.Ask`."""

    def __init__(
        self, client: AsyncClient, model: Model, pictures: Sequence[Picture], items: int
    ) -> None:
        """Ask with these pictures, in turn.

        Args:
            client: connected; that it does not try again is for its maker to see to.
            model: as the worker describes it.
            pictures: at least two.
            items: pictures, texts or pairs of frames in one call.
        """
        self._client, self._model, self._items = client, model, items
        self._pictures, self._sentences = cycle(pictures), cycle(SENTENCES)
        self._asking: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "embed_images": lambda **o: client.embed_images(self._some(), **o),
            "embed_texts": lambda **o: client.embed_texts(self._texts(), **o),
            "similarity": lambda **o: client.similarity(self._some(), self._texts(), **o),
            "reconstruct_image": lambda **o: client.reconstruct_image(next(self._pictures), **o),
            "latent_actions": lambda **o: client.predict_latent_actions(
                self._some(1), interval=self._interval(), **o
            ),
        }

    async def __call__(self, question: Question, left: float | None) -> Answer:
        """Ask."""
        options = {"model": self._model.name, "priority": Priority(question.priority)}
        try:
            answered = await self._asking[question.op](**options, timeout=left)
        except (tectum.Overloaded, tectum.DeadlineTooShort) as error:
            return Answer(Outcome.REFUSED, error.reason)
        except tectum.DeadlineExceeded as error:
            return Answer(Outcome.EXPIRED, error.reason or "no answer by then")
        except tectum.TectumError as error:
            return Answer(Outcome.FAILED, error.reason or type(error).__name__)
        return answer_of(answered)

    def _some(self, more: int = 0) -> list[Picture]:
        return [next(self._pictures) for _ in range(self._items + more)]

    def _texts(self) -> list[str]:
        return [next(self._sentences) for _ in range(self._items)]

    def _interval(self) -> float | None:
        spec = self._model.input.latent_action
        return None if spec is None else spec.interval
