"""A server that does nothing: grpc.aio, any method, the same bytes to whatever is asked.

python benchmarks/echoing.py PORT BYTES
"""

from __future__ import annotations

import asyncio
import sys

import grpc


class _Anything(grpc.GenericRpcHandler):
    """Answers every unary call alike; nothing is parsed."""

    def __init__(self, answer: bytes) -> None:
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            self._echo
        )
        self._answer = answer

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Whatever it is."""
        return self._handler

    async def _echo(self, _: bytes, __: object) -> bytes:
        return self._answer


async def main(port: int, size: int) -> None:
    """Serve until killed."""
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((_Anything(bytes(size)),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
