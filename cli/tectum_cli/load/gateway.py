"""How a gateway is asked over REST."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

from tectum_cli.extras import fail
from tectum_cli.load.driving import Answer, Outcome
from tectum_cli.load.pictures import Picture
from tectum_cli.load.target import OUTCOMES, SENTENCES, Target
from tectum_cli.load.traffic import Question

__all__ = ["GatewayCalls", "answer_of", "body_of", "gateway_calls"]

_ROUTES: Mapping[str, str] = {
    "embed_images": "/v1/embed/images",
    "embed_texts": "/v1/embed/texts",
    "similarity": "/v1/similarity",
    "reconstruct_image": "/v1/reconstruct",
    "latent_actions": "/v1/latent-actions",
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
        name = f"{found['id']}@{found['version']}"
        target.check(name, found["capabilities"], found["limits"]["max_items"])
        yield name, GatewayCalls(client, found, target)


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
    needed = {"id", "version", "default_model", "capabilities", "limits", "input"}
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

    def __init__(self, client: httpx.AsyncClient, model: Mapping[str, Any], target: Target) -> None:
        """Ask with the target's pictures, in turn.

        Args:
            client: with the gateway's address, and whatever it wants of headers.
            model: one of GET /v1/models.
            target: what a call holds; its pictures are files.
        """
        self._client, self._name = client, model["id"]
        self._bodies = [self._made(files, target.items, model) for files in target.pictures]

    def _made(
        self, pictures: Sequence[Picture], items: int, model: Mapping[str, Any]
    ) -> Mapping[str, Iterator[bytes]]:
        """Bodies with pictures of one size, in turn, by what they ask."""
        files = [one for one in pictures if isinstance(one, bytes)]
        drawn = cycle(base64.b64encode(file).decode() for file in files)
        sentences = cycle(SENTENCES)
        interval = ((model.get("input") or {}).get("latent_action") or {}).get("interval_ms")

        def some(more: int = 0) -> list[str]:
            return [next(drawn) for _ in range(items + more)]

        def texts() -> list[str]:
            return [next(sentences) for _ in range(items)]

        made: Mapping[str, Callable[[], Mapping[str, Any]]] = {
            "embed_images": lambda: {"images": some()},
            "embed_texts": lambda: {"texts": texts()},
            "similarity": lambda: {
                "left": [{"image": one} for one in some()],
                "right": [{"text": one} for one in texts()],
            },
            "reconstruct_image": lambda: {"image": next(drawn)},
            "latent_actions": lambda: {
                "frames": [{"image": one} for one in some(1)],
                "interval_ms": interval,
            },
        }
        return {
            op: cycle(
                [json.dumps({"model": self._name, **make()}).encode() for _ in range(len(files))]
            )
            for op, make in made.items()
        }

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
