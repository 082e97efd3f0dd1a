"""From an answer to its bytes."""

from pydantic import BaseModel
from starlette.responses import Response


def reply(answer: BaseModel) -> Response:
    """The answer as JSON; what was not asked for or is not there is left out.

    Written straight from the model: checking an answer again on its way out, as FastAPI would,
    costs more than making it once vectors are large.
    """
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")
