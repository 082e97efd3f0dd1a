"""Whatever kind of method strangers may ask, it is answered as grpc itself answers it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from tests.server.worker.serving import PATIENCE

from tectum_server.worker.front.door.guests import Bounds, Guests


async def _list(asked: Any) -> list[bytes]:
    return [one async for one in asked] if hasattr(asked, "__aiter__") else [asked]


async def returned(asked: Any, _: Any) -> bytes:
    return b"+".join(await _list(asked))


async def written(asked: Any, context: Any) -> None:
    for one in await _list(asked):
        await context.write(one + b"!")


async def yielded(asked: Any, _: Any) -> AsyncIterator[bytes]:
    for one in await _list(asked):
        yield one + b"!"


def plain(asked: Any, _: Any) -> bytes:
    return bytes(asked)


KINDS: dict[str, tuple[Callable[..., Any], Any]] = {
    "One": (grpc.unary_unary_rpc_method_handler, returned),
    "Many": (grpc.unary_stream_rpc_method_handler, written),
    "Many, yielded": (grpc.unary_stream_rpc_method_handler, yielded),
    "Gather": (grpc.stream_unary_rpc_method_handler, returned),
    "Talk": (grpc.stream_stream_rpc_method_handler, yielded),
    "Talk, written": (grpc.stream_stream_rpc_method_handler, written),
}


async def answered(handler: Any, words: list[bytes], guarded: bool) -> list[bytes]:
    """What a method says, with these bounds before it or without them."""

    class Only(grpc.GenericRpcHandler):
        def service(self, _: Any) -> Any:
            return handler

    bounds = {"/any.Service/Method": Bounds(places=1, patience=PATIENCE)}
    server = grpc.aio.server(interceptors=[Guests(bounds, 1)] if guarded else [])
    server.add_generic_rpc_handlers((Only(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.stream_stream("/any.Service/Method")
            return [one async for one in call(iter(words), timeout=PATIENCE)]
    finally:
        await server.stop(0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_method_is_answered_as_grpc_answers_it(kind: str) -> None:
    shape, method = KINDS[kind]
    words = [b"a", b"b"] if kind.startswith(("Gather", "Talk")) else [b"a"]

    theirs = await answered(shape(method), words, guarded=False)

    assert await answered(shape(method), words, guarded=True) == theirs
    assert theirs


async def test_a_method_that_is_no_async_function_is_not_offered_to_strangers() -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(plain)
    details: Any = type("Details", (), {"method": "/any.Service/Method"})

    async def found(_: Any) -> Any:
        return handler

    guarded = Guests({details.method: Bounds(places=1, patience=1.0)}, 1)

    with pytest.raises(TypeError, match="/any.Service/Method is no async function"):
        await guarded.intercept_service(found, details)
