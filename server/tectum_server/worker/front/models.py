"""ModelService: what the worker serves, and, for admins, what it shall serve."""

from __future__ import annotations

from tectum.v1 import errors_pb2, model_pb2, model_pb2_grpc
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Context
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.catalogue import Catalogue

__all__ = ["Models"]


class Models(model_pb2_grpc.ModelServiceServicer):
    """The service."""

    def __init__(self, calls: Calls, catalogue: Catalogue) -> None:
        self._calls = calls
        self._catalogue = catalogue

    async def ListModels(  # noqa: N802 - the contract's names
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        """Every model."""

        async def work(_: model_pb2.ListModelsRequest) -> model_pb2.ListModelsResponse:
            models = [served.description for served in self._catalogue.all()]
            return model_pb2.ListModelsResponse(models=models)

        return await self._calls.admin("ListModels", request, context, work)

    async def GetModel(  # noqa: N802
        self, request: model_pb2.GetModelRequest, context: Context
    ) -> model_pb2.GetModelResponse:
        """One model, its card included."""

        async def work(request: model_pb2.GetModelRequest) -> model_pb2.GetModelResponse:
            served = self._catalogue.find(request.model, "model")
            response = model_pb2.GetModelResponse(model=served.description)
            response.model.card = served.entry.card
            return response

        return await self._calls.admin("GetModel", request, context, work)

    async def LoadModel(  # noqa: N802
        self, request: model_pb2.LoadModelRequest, context: Context
    ) -> model_pb2.LoadModelResponse:
        """Load, check, warm up, swap, drain."""

        async def work(request: model_pb2.LoadModelRequest) -> model_pb2.LoadModelResponse:
            name = _required(request.name)
            await self._calls.engine.load_model(name, request.version, request.make_default)
            return model_pb2.LoadModelResponse(model=self._catalogue.find(name, "name").description)

        return await self._calls.admin("LoadModel", request, context, work)

    async def UnloadModel(  # noqa: N802
        self, request: model_pb2.UnloadModelRequest, context: Context
    ) -> model_pb2.UnloadModelResponse:
        """Drop a model."""

        async def work(request: model_pb2.UnloadModelRequest) -> model_pb2.UnloadModelResponse:
            await self._calls.engine.unload_model(_required(request.name))
            return model_pb2.UnloadModelResponse()

        return await self._calls.admin("UnloadModel", request, context, work)


def _required(name: str) -> str:
    if not name:
        raise Failure(errors_pb2.ERROR_REASON_FIELD_MISSING, "a model's name is needed", "name")
    return name
