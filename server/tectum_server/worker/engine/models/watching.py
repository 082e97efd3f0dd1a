"""Looking at a repository every so often, on a thread that a slow one may keep waiting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from tectum_core.bundle import BundleError, BundleNotFound, Repository

__all__ = ["Watch"]

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
