"""How a worker is asked over gRPC, through the SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any

import tectum
from tectum import AsyncClient, Model, Priority
from tectum_cli.load.driving import Answer, Outcome
from tectum_cli.load.pictures import Picture
from tectum_cli.load.target import OUTCOMES, SENTENCES, Target
from tectum_cli.load.traffic import Question

__all__ = ["WorkerCalls", "answer_of", "worker_calls"]


@asynccontextmanager
async def worker_calls(target: Target) -> AsyncIterator[tuple[str, WorkerCalls]]:
    """Connect, and see that the model can do what shall be asked.

    Returns:
        What is asked, `name@version`, and who asks.

    Raises:
        TectumError: it is not there.
        Exit: the model cannot do that.
    """
    async with AsyncClient(
        target.address, token=target.token or None, retries=0, tls=target.tls
    ) as client:
        model = await client.get_model(target.model)
        name = f"{model.name}@{model.version}"
        target.check(name, (one.value for one in model.capabilities), model.limits.max_items)
        yield name, WorkerCalls(client, model, target)


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
    return Answer(OUTCOMES.get(error.code, Outcome.FAILED), error.reason or error.code, **told)


class WorkerCalls:
    """Asks one worker; see `driving.Ask`."""

    def __init__(self, client: AsyncClient, model: Model, target: Target) -> None:
        """Ask with the target's pictures, in turn.

        Args:
            client: connected; that it does not try again is for its maker to see to.
            model: as the worker describes it.
            target: what a call holds.
        """
        self._model, self._items = model, target.items
        self._pictures = [cycle(of_one_size) for of_one_size in target.pictures]
        self._sentences = cycle(SENTENCES)
        self._asking: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "embed_images": lambda s, **o: client.embed_images(self._some(s), **o),
            "embed_texts": lambda _, **o: client.embed_texts(self._texts(), **o),
            "similarity": lambda s, **o: client.similarity(self._some(s), self._texts(), **o),
            "reconstruct_image": lambda s, **o: client.reconstruct_image(
                next(self._pictures[s]), **o
            ),
            "latent_actions": lambda s, **o: client.predict_latent_actions(
                self._some(s, 1), interval=self._interval(), **o
            ),
        }

    async def __call__(self, question: Question, left: float | None) -> Answer:
        """Ask."""
        options = {"model": self._model.name, "priority": Priority(question.priority)}
        try:
            answered = await self._asking[question.op](question.size, **options, timeout=left)
        except (tectum.Overloaded, tectum.DeadlineTooShort) as error:
            return Answer(Outcome.REFUSED, error.reason)
        except tectum.DeadlineExceeded as error:
            return Answer(Outcome.EXPIRED, error.reason or "no answer by then")
        except tectum.TectumError as error:
            return Answer(Outcome.FAILED, error.reason or type(error).__name__)
        return answer_of(answered)

    def _some(self, size: int, more: int = 0) -> list[Picture]:
        return [next(self._pictures[size]) for _ in range(self._items + more)]

    def _texts(self) -> list[str]:
        return [next(self._sentences) for _ in range(self._items)]

    def _interval(self) -> float | None:
        spec = self._model.input.latent_action
        return None if spec is None else spec.interval
