"""Looking at a repository every so often, on a thread that a slow one may keep waiting.

What is to be done about what is there, `following` says, and `keeping` does it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from tectum.v1 import errors_pb2
from tectum_core.bundle import BundleError, BundleNotFound, Repository
from tectum_core.panics import NO_FAULTS
from tectum_server.worker.engine.models.following import Asked, Change, changes
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import ModelEntry

__all__ = ["Follower", "Watch"]

_log = logging.getLogger(__name__)


class Watch:
    """What a repository has, again and again.

    Args:
        repository: where to look.
        seconds: between two looks.
    """

    def __init__(self, repository: Repository, seconds: float) -> None:
        self._repository = repository
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._trouble = ""
        self._troubles: dict[str, str] = {}
        self._seen: set[str] = set()

    async def look(self) -> Mapping[str, str | None]:
        """The latest version of every name, as `following.changes` reads it.

        A name whose version cannot be found out is logged, once, and the others are told.

        Raises:
            ConnectionError: the repository is not there; or whatever its library raises.
        """
        loop = asyncio.get_running_loop()
        found, troubles = await loop.run_in_executor(self._thread, self._look)
        self._say_of_models(troubles)
        return found

    async def follow(self, told: Callable[[Mapping[str, str | None]], Awaitable[None]]) -> None:
        """Tell what is there after each look, for ever. A look that fails is logged, once.

        What one look lacks may be a passing fault's doing; it is gone if the next one lacks it too.
        """
        while True:
            await asyncio.sleep(self._seconds)
            try:
                found = await self.look()
            except Exception as error:  # whatever a remote repository's library raises
                self._say(str(error) or type(error).__name__)
                continue
            self._say("")
            lacking = self._seen - found.keys()
            self._seen = set(found)
            await told({**dict.fromkeys(lacking), **found})

    def close(self) -> None:
        """Look no more; nobody waits for a look under way."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> tuple[dict[str, str | None], dict[str, str]]:
        """The versions by name, and why some are not known."""
        if not self._repository.exists():
            raise ConnectionError("it is not there")
        found, troubles = dict[str, str | None](), dict[str, str]()
        for name in self._repository.names():
            try:
                found[name] = self._repository.latest(name)
            except BundleNotFound:
                found[name] = None  # a folder that is being published has no `latest` yet
            except BundleError:
                found[name] = ""
            except Exception as error:  # whatever a remote repository's library raises
                found[name], troubles[name] = None, str(error) or type(error).__name__
        return found, troubles

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            _log.error("the repository cannot be looked at", extra={"reason": trouble})
        elif self._trouble and not trouble:
            _log.info("the repository can be looked at again")
        self._trouble = trouble

    def _say_of_models(self, troubles: dict[str, str]) -> None:
        for name, reason in troubles.items():
            if self._troubles.get(name) != reason:
                extra = {"model": name, "reason": reason}
                _log.error("a model's latest version cannot be looked up", extra=extra)
        self._troubles = troubles


class Follower:
    """Has done what a repository asks for.

    Args:
        watch: looks at it.
        asked: what the worker is to serve.
        entries: what is known of by now.
        act: does one change; what it raises concerns that model alone.
    """

    def __init__(
        self,
        watch: Watch,
        asked: Asked,
        entries: Callable[[], Mapping[str, ModelEntry]],
        act: Callable[[Change], Awaitable[None]],
    ) -> None:
        self._watch = watch
        self._asked = asked
        self._entries = entries
        self._act = act
        self._said: dict[str, str] = {}

    async def follow(self) -> None:
        """Look and do as the repository has it, for ever: a fault is told, and taken up again."""
        while True:
            try:
                await self._watch.follow(self._heed)
            except NO_FAULTS:
                raise
            except BaseException:
                _log.exception("following the repository broke off, and is taken up again")

    async def look(self) -> None:
        """Do as the repository has it, once.

        Raises:
            ConnectionError: it is not there; or whatever its library raises.
        """
        await self._heed(await self._watch.look())

    async def _heed(self, found: Mapping[str, str | None]) -> None:
        """Do as the repository has it, as far as it loads."""
        for change in list(changes(self._asked, found, self._entries())):
            try:
                await self._act(change)
            except Failure as failure:
                self._say_once(change.name, failure)
            except Exception:  # whatever a remote repository's library raises
                _log.exception("a model cannot be fetched", extra={"model": change.name})

    def _say_once(self, name: str, failure: Failure) -> None:
        """Log why a model is not followed; what was rejected has been noted and told already."""
        if failure.reason != errors_pb2.ERROR_REASON_BUNDLE_REJECTED:
            if self._said.get(name) != failure.message:
                extra = {"model": name, "reason": failure.message}
                _log.warning("a model cannot be followed", extra=extra)
            self._said[name] = failure.message
