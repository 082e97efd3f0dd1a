"""Who may not ask is told so before a byte of the request is read.

grpc hands a unary call over together with its message. A caller's metadata is there before that,
so who has no credentials, or comes while the worker drains, takes no memory for what it sends.
What others send is bounded while it arrives (`inbound`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, NoReturn

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Context, Record, metadata_of, request_id_of
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.door.access import Access, Role
from tectum_server.worker.front.door.inbound import Inbound
from tectum_server.worker.jobs import Priority

__all__ = ["Admission"]

_FOR_USERS = frozenset({"ListModels", "GetModel"})
"""What ModelService answers to whoever may infer; the rest of it is for admins."""


class _Rpc(NamedTuple):
    """A method, as it is refused."""

    name: str
    role: Role
    priority: Priority
    """Of a call that has not said anything yet."""


class Admission(grpc.aio.ServerInterceptor):
    """The door of these services; other ones it does not know.

    Args:
        inference: services for whoever may infer.
        management: services for admins, but for what only reads.
        access: who may call.
        calls: where refusals are told, measured and logged; knows whether the worker drains.
    """

    def __init__(
        self,
        inference: ServiceDescriptor,
        management: ServiceDescriptor,
        access: Access,
        calls: Calls,
    ) -> None:
        self._access = access
        self._calls = calls
        self._inbound = Inbound(calls)
        self._handlers: dict[str, Any] = {}
        """Of unary methods: what answers one does not change."""
        self._rpcs = {
            f"/{service.full_name}/{method.name}": _Rpc(
                method.name,
                "infer" if service is inference or method.name in _FOR_USERS else "admin",
                Priority.CONTROL if method.client_streaming else Priority.INTERACTIVE,
            )
            for service in (inference, management)
            for method in service.methods
        }

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, or one that refuses."""
        method = handler_call_details.method
        rpc = self._rpcs.get(method)
        if rpc is None:
            return await continuation(handler_call_details)
        try:
            self._calls.refuse_if_draining()
            self._access.check(handler_call_details.invocation_metadata or (), rpc.role)
        except Failure as failure:
            return self._refusal(rpc, failure.with_traceback(None))
        known = self._handlers.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        self._handlers[method] = self._inbound.within(rpc.name, handler)
        return self._handlers[method]

    def _refusal(self, rpc: _Rpc, failure: Failure) -> Any:
        """A handler that reads nothing: a client of any kind of call hears its status alone."""

        async def refuse(_: object, context: Context) -> None:
            request_id = request_id_of(metadata_of(context))
            record = Record(rpc.name, request_id, priority=rpc.priority)
            await self._calls.account(record, context, fail)

        async def fail() -> NoReturn:
            raise failure

        return grpc.stream_stream_rpc_method_handler(refuse)
