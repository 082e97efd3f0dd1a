"""How a worker is asked over gRPC, through the SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from itertools import cycle
from typing import Any

import tectum
from tectum import AsyncClient, Model, Priority
from tectum_cli.load.contents import Contents, Takes
from tectum_cli.load.driving import Answer, Outcome
from tectum_cli.load.target import OUTCOMES, Target
from tectum_cli.load.traffic import Question

__all__ = ["WorkerCalls", "answer_of", "connected", "worker_calls"]


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[tuple[Sequence[AsyncClient], Model]]:
    """Connect as often as the target says, and see that the model can do what shall be asked.

    Returns:
        Clients, each with a connection of its own, and the model.

    Raises:
        TectumError: it is not there.
        Exit: the model cannot do that.
    """
    token = target.token or None
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                AsyncClient(target.address, token=token, retries=0, tls=target.tls)
            )
            for _ in range(target.connections)
        ]
        model = await clients[0].get_model(target.model)
        target.check(_takes(model))
        yield clients, model


@asynccontextmanager
async def worker_calls(target: Target) -> AsyncIterator[tuple[str, WorkerCalls]]:
    """Connect.

    Returns:
        What is asked, `name@version`, and who asks.

    Raises:
        TectumError: it is not there.
        Exit: the model cannot do what shall be asked.
    """
    async with connected(target) as (clients, model):
        yield f"{model.name}@{model.version}", WorkerCalls(clients, model, target)


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

    def __init__(self, clients: Sequence[AsyncClient], model: Model, target: Target) -> None:
        """Ask with the target's pictures, in turn.

        Args:
            clients: connected, and taking turns; that they do not try again is for their maker to
                see to.
            model: as the worker describes it.
            target: what a call holds.
        """
        takes = _takes(model)
        self._clients, self._model = cycle(clients), model.name
        self._contents = [Contents(one, target.items, takes) for one in target.pictures]
        spec = model.input.latent_action
        self._asking = _asking(takes, None if spec is None else spec.interval)

    async def __call__(self, question: Question, left: float | None) -> Answer:
        """Ask."""
        client, contents = next(self._clients), self._contents[question.size]
        options = {"model": self._model, "priority": Priority(question.priority), "timeout": left}
        try:
            answered = await self._asking[question.op](client, contents, options)
        except (tectum.Overloaded, tectum.DeadlineTooShort) as error:
            return Answer(Outcome.REFUSED, error.reason)
        except tectum.DeadlineExceeded as error:
            return Answer(Outcome.EXPIRED, error.reason or "no answer by then")
        except tectum.TectumError as error:
            return Answer(Outcome.FAILED, error.reason or type(error).__name__)
        return answer_of(answered)


def _takes(model: Model) -> Takes:
    return Takes.of(
        f"{model.name}@{model.version}",
        (one.value for one in model.capabilities),
        model.limits.max_items,
        asdict(model.input),
        [asdict(space) for space in model.spaces],
    )


def _asking(
    takes: Takes, interval: float | None
) -> Mapping[str, Callable[[AsyncClient, Contents, Any], Awaitable[Any]]]:
    """How each of `target.OPS` is asked: by whom, with what, and with which options.

    Args:
        takes: what the model takes.
        interval: between the frames of its latent actions, seconds. None: it has none.
    """
    space = takes.action_space_id
    return {
        "embed_images": lambda client, has, o: client.embed_images(has.pictures(), **o),
        "embed_texts": lambda client, has, o: client.embed_texts(has.texts(), **o),
        "embed_clips": lambda client, has, o: client.embed_clips(has.clips(), **o),
        "similarity": lambda client, has, o: client.similarity(has.pictures(), has.texts(), **o),
        "reconstruct_image": lambda client, has, o: client.reconstruct_image(has.picture(), **o),
        "reconstruct_clip": lambda client, has, o: client.reconstruct_clip(has.clip(), **o),
        "reconstruct_text": lambda client, has, o: client.reconstruct_text(has.text(), **o),
        "reconstruct_actions": lambda client, has, o: client.reconstruct_actions(
            has.actions(), **o
        ),
        "latent_actions": lambda client, has, o: client.predict_latent_actions(
            has.pictures(1), interval=interval, **o
        ),
        "rollout": lambda client, has, o: client.rollout(
            [has.picture()], has.candidates(), steps=has.steps, action_space_id=space, **o
        ),
    }
