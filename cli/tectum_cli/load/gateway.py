"""How a gateway is asked over REST."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

from tectum_cli.extras import fail
from tectum_cli.load.contents import Contents, Takes
from tectum_cli.load.driving import Answer, Outcome
from tectum_cli.load.pictures import Picture
from tectum_cli.load.target import OUTCOMES, Target
from tectum_cli.load.traffic import Question

__all__ = ["GatewayCalls", "answer_of", "body_of", "gateway_calls"]

_ROUTES: Mapping[str, str] = {
    "embed_images": "/v1/embed/images",
    "embed_texts": "/v1/embed/texts",
    "embed_clips": "/v1/embed/clips",
    "similarity": "/v1/similarity",
    "reconstruct_image": "/v1/reconstruct",
    "reconstruct_clip": "/v1/reconstruct",
    "reconstruct_text": "/v1/reconstruct",
    "reconstruct_actions": "/v1/reconstruct",
    "latent_actions": "/v1/latent-actions",
    "rollout": "/v1/rollout",
}
"""Of what can be asked (`target.OPS`)."""
_BY_STATUS = {429: Outcome.REFUSED, 504: Outcome.EXPIRED}
_PATIENCE = 60.0
"""Seconds until a call without a deadline is given up."""


@asynccontextmanager
async def gateway_calls(target: Target) -> AsyncIterator[tuple[str, GatewayCalls]]:
    """As `worker.worker_calls`; the pictures are files."""
    model = target.model
    headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=1024)
    async with httpx.AsyncClient(
        base_url=_url(target),
        headers=headers,
        limits=limits,
        trust_env=False,
        verify=_trust(target),
    ) as client:
        listed = await _models(client, target.address)
        chosen = [one for one in listed if (one["id"] == model if model else one["default_model"])]
        if not chosen:
            names = ", ".join(one["id"] for one in listed)
            raise fail(f"--model: found {model or 'no default'}; allowed: {names}")
        found = chosen[0]
        takes = Takes.of(
            f"{found['id']}@{found['version']}",
            found["capabilities"],
            found["limits"]["max_items"],
            found["input"],
            found["spaces"],
        )
        target.check(takes)
        yield takes.name, GatewayCalls(client, found, takes, target)


def _url(target: Target) -> str:
    """Where it is, with the scheme."""
    if "://" in target.address:
        return target.address
    return f"{'https' if target.tls else 'http'}://{target.address}"


def _trust(target: Target) -> ssl.SSLContext:
    """Whose certificates count: those of these roots, or the system's.

    Raises:
        Exit: the roots cannot be read.
    """
    if not isinstance(target.tls, Path):
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=target.tls)
    except OSError as error:  # ssl's own are of it, too
        raise fail(f"--roots: cannot read {target.tls}: {error.strerror or error}") from error


async def _models(client: httpx.AsyncClient, address: str) -> Sequence[Mapping[str, Any]]:
    """What the gateway says of its models.

    Raises:
        Exit: it does not, or is none; it has been said what was found.
    """
    try:
        answered = await client.get("/v1/models", timeout=_PATIENCE)
    except httpx.HTTPError as error:
        raise fail(f"no gateway answers at {address}: {error}") from error
    body = body_of(answered)
    if answered.status_code != httpx.codes.OK:
        said = body.get("detail") or answered.reason_phrase
        raise fail(f"{address} answered {answered.status_code}: {said}")
    listed = body.get("data")
    if not isinstance(listed, list) or not all(_is_model(one) for one in listed):
        raise fail(f"what answers at {address} is no gateway: it lists no models at /v1/models")
    return listed


def _is_model(found: object) -> bool:
    """Whether it is a description of one, and not of another kind of server's."""
    needed = {"id", "version", "default_model", "capabilities", "limits", "input", "spaces"}
    return isinstance(found, dict) and needed <= found.keys()


def body_of(answered: httpx.Response) -> Mapping[str, Any]:
    """A response's JSON object; empty if it has none, as a proxy's page of an error."""
    try:
        body = answered.json()
    except ValueError:  # of JSON, and of bytes that are no text
        return {}
    return body if isinstance(body, dict) else {}


def answer_of(status: int, body: Mapping[str, Any]) -> Answer:
    """What a response says; one without a body of the gateway's was not answered by it."""
    if status == httpx.codes.OK and "info" not in body:
        return Answer(Outcome.FAILED, "no answer of a gateway's")
    if status != httpx.codes.OK:
        reason = str(body.get("reason") or f"HTTP {status}")
        return Answer(_BY_STATUS.get(status, Outcome.FAILED), reason)
    timings = body["info"]["timings"]
    told: dict[str, Any] = {
        part: None if (found := timings.get(f"{part}_ms")) is None else found / 1000
        for part in ("queue", "decode", "compute", "total")
    }
    wrong = [one["error"] for one in _items(body) if one.get("error")]
    if not wrong:
        return Answer(Outcome.ANSWERED, batch=timings["batch_size"], **told)
    outcome = OUTCOMES.get(wrong[0]["code"], Outcome.FAILED)
    return Answer(outcome, wrong[0]["reason"], batch=timings["batch_size"], **told)


def _items(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of an answer, whatever can fail by itself."""
    return [*body.get("results", ()), *body.get("errors", ())]


class GatewayCalls:
    """Asks one gateway; see `driving.Ask`. Bodies are made once, so that time is the gateway's."""

    def __init__(
        self, client: httpx.AsyncClient, model: Mapping[str, Any], takes: Takes, target: Target
    ) -> None:
        """Ask with the target's pictures, in turn.

        Args:
            client: with the gateway's address, and whatever it wants of headers.
            model: one of GET /v1/models.
            takes: the same, read.
            target: what a call holds; its pictures are files.
        """
        self._client = client
        interval = (model["input"].get("latent_action") or {}).get("interval_ms")
        made = _made(takes, interval)
        self._bodies = [
            {op: _bodies(partial(made[op], has), model["id"], len(files)) for op in target.ops}
            for files in target.pictures
            for has in [Contents([_written(file) for file in files], target.items, takes)]
        ]

    async def __call__(self, question: Question, left: float | None) -> Answer:
        """Ask."""
        headers = {
            "Content-Type": "application/json",
            "X-Tectum-Priority": question.priority.name.lower(),
        }
        if left is not None:
            headers["X-Tectum-Deadline-Ms"] = f"{max(1.0, left * 1000):.3f}"
        route = _ROUTES[question.op]
        try:
            found = await self._client.post(
                route,
                content=next(self._bodies[question.size][question.op]),
                headers=headers,
                timeout=_PATIENCE if left is None else left,
            )
        except httpx.TimeoutException:
            return Answer(Outcome.EXPIRED, "no answer by then")
        except httpx.HTTPError as error:
            return Answer(Outcome.FAILED, type(error).__name__)
        return answer_of(found.status_code, body_of(found))


def _written(file: Picture) -> bytes:
    """A file, as JSON carries it."""
    return base64.b64encode(bytes(file))


def _bodies(make: Callable[[], Mapping[str, Any]], model: str, count: int) -> Iterator[bytes]:
    """So many bodies, again and again."""
    bodies = [{"model": model, **make()} for _ in range(count)]
    return cycle([json.dumps(body, default=_plain).encode() for body in bodies])


def _plain(value: Any) -> Any:
    """What JSON has no word for: a picture's text, or numbers."""
    return value.decode() if isinstance(value, bytes) else value.tolist()


def _made(
    takes: Takes, interval_ms: float | None
) -> Mapping[str, Callable[[Contents], Mapping[str, Any]]]:
    """How each of `target.OPS` is written, of what there is to ask with.

    Args:
        takes: what the model takes.
        interval_ms: between the frames of its latent actions. None: it has none.
    """

    def rollout(has: Contents) -> Mapping[str, Any]:
        asked = {"candidates": has.candidates(), "steps": has.steps}
        return {
            "frames": [has.picture()],
            "action_space_id": takes.action_space_id,
            **{name: value for name, value in asked.items() if value is not None},
        }

    return {
        "embed_images": lambda has: {"images": has.pictures()},
        "embed_texts": lambda has: {"texts": has.texts()},
        "embed_clips": lambda has: {"clips": [{"frames": one} for one in has.clips()]},
        "similarity": lambda has: {
            "left": [{"image": one} for one in has.pictures()],
            "right": [{"text": one} for one in has.texts()],
        },
        "reconstruct_image": lambda has: {"image": has.picture()},
        "reconstruct_clip": lambda has: {"clip": {"frames": has.clip()}},
        "reconstruct_text": lambda has: {"text": has.text()},
        "reconstruct_actions": lambda has: {"actions": has.actions()},
        "latent_actions": lambda has: {
            "frames": [{"image": one} for one in has.pictures(1)],
            "interval_ms": interval_ms,
        },
        "rollout": rollout,
    }
