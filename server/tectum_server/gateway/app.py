"""The gateway's application: routes within limits within an envelope."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

import tectum
from tectum_server.gateway import openai
from tectum_server.gateway.envelope import DOCS, Envelope
from tectum_server.gateway.limits import BodyLimit, ConcurrencyLimit
from tectum_server.gateway.metrics import Metrics
from tectum_server.gateway.problems import MEDIA_TYPE, OPENAI_ROUTE, answer_error
from tectum_server.gateway.routes import (
    embed,
    latent_actions,
    models,
    operations,
    reconstruct,
    similarity,
)
from tectum_server.gateway.settings import MEBIBYTE, GatewaySettings

_DESCRIPTION = """
Perception for robots over HTTP: vectors of pictures, texts and clips, similarity,
reconstruction, latent actions. For a control loop, use gRPC.

Every vector says which **space** it lives in; only vectors of equal spaces may be compared.
Set a deadline, a priority and the spaces you rely on by header. Failures are
`application/problem+json`; one bad item of a batch fails alone, inside an answer.
"""


def create_app(settings: GatewaySettings | None = None) -> FastAPI:
    """A gateway to one worker, which need not be there yet.

    Args:
        settings: None: the defaults.
    """
    settings = settings or GatewaySettings()
    metrics = Metrics()
    client = tectum.AsyncClient(
        settings.worker_address,
        tls=settings.tls,
        # Answers may be larger than the requests they answer.
        max_message_bytes=max(settings.max_body_bytes, 64 * MEBIBYTE),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await client.close()

    app = FastAPI(
        title="Tectum",
        version=tectum.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=DOCS,
        redoc_url=None,
    )
    app.state.client, app.state.metrics, app.state.settings = client, metrics, settings
    for part in (embed, similarity, reconstruct, latent_actions, models, openai, operations):
        app.include_router(part.router)
    for kind in (tectum.TectumError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer_error)
    # The last one added is the outermost.
    app.add_middleware(
        BodyLimit,
        most=settings.max_body_bytes,
        most_together=settings.max_buffered_bytes,
        seconds=settings.body_seconds,
    )
    app.add_middleware(ConcurrencyLimit, most=settings.max_concurrent_requests)
    app.add_middleware(Envelope, metrics=metrics)
    app.openapi = partial(_describe, app)  # type: ignore[method-assign]
    return app


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with problems under the media type they really have."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        for path, operations in document["paths"].items():
            for operation in operations.values():
                for status, answer in operation["responses"].items():
                    if status >= "400" and path != OPENAI_ROUTE:
                        answer["content"] = {MEDIA_TYPE: answer["content"]["application/json"]}
        app.openapi_schema = document
    return app.openapi_schema
