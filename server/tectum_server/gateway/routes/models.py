"""What the worker serves."""

from fastapi import APIRouter
from starlette.responses import Response

from tectum_server.gateway.caller import CallerOf
from tectum_server.gateway.problems import documented
from tectum_server.gateway.reply import reply
from tectum_server.gateway.schemas.models import ModelAnswer, ModelList

router = APIRouter(
    prefix="/v1/models",
    tags=["models"],
    responses=documented(401, 403, 422, 429, 500, 503, 504),
)


@router.get("", response_model=ModelList)
async def list_models(caller: CallerOf) -> Response:
    """Every model on the worker, the default one first."""
    models = await caller.answer(caller.client.list_models(**caller.plain_options()))
    return reply(ModelList(data=[ModelAnswer.of(model) for model in models]))


@router.get("/{name}", response_model=ModelAnswer, responses=documented(404))
async def get_model(name: str, caller: CallerOf) -> Response:
    """One model in full, its card included; `name` or `name@version`."""
    model = await caller.answer(caller.client.get_model(name, **caller.plain_options()))
    return reply(ModelAnswer.of(model))
