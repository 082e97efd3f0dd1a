"""A way to a server that goes silent: connections stay open, and nothing passes any more."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Self


class Link:
    """One connection through it."""

    def __init__(self) -> None:
        self.silent = False
        self.left = threading.Event()
        """Its client has closed it."""
        self.dropped = threading.Event()
        """Its server has."""


class SilentProxy:
    """Passes on what comes; a context manager.

    Args:
        port: the server's, on this host.
    """

    def __init__(self, port: int) -> None:
        self.links: list[Link] = []
        self._server_port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: list[asyncio.StreamWriter] = []
        """Of all connections that there ever were, to either side."""
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def address(self) -> str:
        """Where to call it."""
        return f"127.0.0.1:{self.port}"

    def silence(self) -> None:
        """From now on nothing passes over the connections that there are; new ones are as ever."""
        for link in self.links:
            link.silent = True

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
        self._server = serving.result(30)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        ended: Future[None] = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        ended.result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accepted, "127.0.0.1", 0)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Told at once, so that one whose task never begins is closed, too.
        self._writers.append(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _end(self) -> None:
        self._server.close()
        await asyncio.sleep(0.02)  # what was just accepted becomes a connection
        while self._serving:
            for task in self._serving:
                task.cancel()
            await asyncio.wait(self._serving)
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with suppress(OSError):  # its other side was first
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link()
        self.links.append(link)
        back, there = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers.append(there)
        try:
            await asyncio.gather(
                self._pass(reader, there, link, link.left),
                self._pass(back, writer, link, link.dropped),
            )
        except asyncio.CancelledError:  # the proxy ends
            pass
        finally:
            writer.close()
            there.close()

    async def _pass(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        link: Link,
        ended: threading.Event,
    ) -> None:
        try:
            while data := await source.read(65536):
                if not link.silent:
                    target.write(data)
                    await target.drain()
        except OSError:
            pass
        ended.set()
        if not link.silent:
            target.close()
