"""The gateway's application: routes within limits within an envelope."""

from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

import tectum
from tectum_server.gateway import openai
from tectum_server.gateway.envelope import DOCS, Envelope
from tectum_server.gateway.limits import BodyLimit, ConcurrencyLimit, most_bytes
from tectum_server.gateway.metrics import Metrics
from tectum_server.gateway.problems import MEDIA_TYPE, OPENAI_ROUTE, answer_error
from tectum_server.gateway.reach import Reach
from tectum_server.gateway.reading import MOST_VALUES, components
from tectum_server.gateway.routes import (
    embed,
    latent_actions,
    models,
    operations,
    reconstruct,
    rollout,
    similarity,
)
from tectum_server.gateway.schemas.embed import EmbedClips, EmbedImages, EmbedTexts
from tectum_server.gateway.schemas.latent_actions import PredictLatentActions
from tectum_server.gateway.schemas.reconstruct import Reconstruct
from tectum_server.gateway.schemas.rollout import PredictRollout
from tectum_server.gateway.schemas.similarity import ComputeSimilarity
from tectum_server.gateway.settings import MEBIBYTE, GatewaySettings

_REQUESTS = (
    EmbedImages, EmbedTexts, EmbedClips, ComputeSimilarity, Reconstruct, PredictLatentActions,
    PredictRollout, openai.CreateEmbeddings,
)  # fmt: skip
_DESCRIPTION = """
Perception for robots over HTTP: vectors of pictures, texts and clips, similarity,
reconstruction, latent actions, rollouts. For a control loop, use gRPC.

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
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    _add_documentation(app)
    app.state.client, app.state.metrics, app.state.settings = client, metrics, settings
    app.state.reach = Reach(settings.worker_address)
    inference = (embed, similarity, reconstruct, latent_actions, rollout)
    for part in (*inference, models, openai, operations):
        app.include_router(part.router)
    for kind in (tectum.TectumError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer_error)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(ConcurrencyLimit, most=settings.max_concurrent_requests)
    app.add_middleware(Envelope, metrics=metrics)
    app.openapi = partial(_describe, app)  # type: ignore[method-assign]
    return app


def _add_documentation(app: FastAPI) -> None:
    """Swagger UI from files of the gateway's own: robots' networks seldom reach a CDN."""
    # Relative: the gateway may stand under a prefix.
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{app.title} {app.version}",
        swagger_js_url=f"{DOCS[1:]}/swagger-ui-bundle.js",
        swagger_css_url=f"{DOCS[1:]}/swagger-ui.css",
        swagger_favicon_url=f"{DOCS[1:]}/favicon-32x32.png",
    )

    @app.get("/", include_in_schema=False)
    async def start() -> RedirectResponse:
        return RedirectResponse(DOCS[1:])

    @app.get(DOCS, include_in_schema=False)
    async def documentation() -> HTMLResponse:
        return page

    files = StaticFiles(packages=[("fastapi_swagger", "resources")])

    # A route, not a mount, which would have no template for metrics and logs.
    @app.get(f"{DOCS}/{{file}}", include_in_schema=False)
    async def documentation_file(file: str, request: Request) -> Response:
        return await files.get_response(file, request.scope)


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document.

    FastAPI knows neither the bodies that `reading.py` reads, nor the gateway's limits on them, nor
    the media type that problems have.
    """
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        document["components"]["schemas"] |= components(*_REQUESTS)
        for path, operations in document["paths"].items():
            for operation in operations.values():
                if body := operation.get("requestBody"):
                    body["description"] = _limits_of(app.state.settings, path, body["content"])
                for status, answer in operation["responses"].items():
                    if status >= "400" and path != OPENAI_ROUTE:
                        answer["content"] = {MEDIA_TYPE: answer["content"]["application/json"]}
        app.openapi_schema = document
    return app.openapi_schema


def _limits_of(settings: GatewaySettings, path: str, forms: Container[str]) -> str:
    """What a body may hold, whatever the model's own limits are."""
    files = f", or at most {settings.max_files} files" if embed.FORM in forms else ""
    most = f"At most {most_bytes(settings, path)} bytes, and at most {MOST_VALUES} values in JSON"
    return f"{most}{files}. A model's own limits are usually lower."
