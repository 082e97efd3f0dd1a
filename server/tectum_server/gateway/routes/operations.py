"""For those who run the gateway: is it alive, is it ready, what does it measure."""

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, PlainTextResponse, Response

import tectum
from tectum_server.gateway import problems

router = APIRouter(tags=["operations"])

PATIENCE = 2.0
"""Seconds the worker has to say that it serves."""


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process answers; says nothing about the worker."""
    return {"status": "alive"}


@router.get("/readyz", responses=problems.documented(503))
async def ready(request: Request) -> Response:
    """The worker serves its default model; 503 where it does not, or no worker answers."""
    state = request.app.state
    try:
        health = await state.client.health(
            state.settings.readiness_model, timeout=PATIENCE, retries=0
        )
    except tectum.TectumError as error:
        state.reach.note(error)
        found = f"no answer from the worker at {state.settings.worker_address}: {error}"
    else:
        state.reach.note(None)
        if health is tectum.Health.SERVING:
            return JSONResponse({"status": "ready"})
        found = f"the worker at {state.settings.worker_address} is {health.value}"
    return problems.response(request.scope, problems.problem(request.scope, 503, found))


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Measurements in Prometheus's text format."""
    return Response(request.app.state.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
