"""What an engine loads before it serves: what it was asked for, or what the last one served."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from tectum_server.worker.engine.models.following import Asked
from tectum_server.worker.engine.models.shelf import Shelf
from tectum_server.worker.engine.models.watching import Follower
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Rejection

__all__ = ["Beginning"]

_log = logging.getLogger(__name__)


class Beginning:
    """Loads what is to serve first.

    Args:
        asked: what the worker is to serve.
        shelf: where models are; learns the default, and what could not be loaded.
        follower: finds what else the repository has.
        bring: loads a name's version, or its latest if that is empty.
    """

    def __init__(
        self,
        asked: Asked,
        shelf: Shelf,
        follower: Follower,
        bring: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._asked = asked
        self._shelf = shelf
        self._follower = follower
        self._bring = bring

    async def first(self) -> None:
        """Load what was named, all or none, and of what else there is whatever loads.

        Else a worker would call itself ready, and refuse its second model for good.

        Raises:
            Failure: one that was named is missing or rejected.
        """
        for wanted in self._asked.named:
            await self._begin_with(wanted)
        if self._asked.everything:
            await self._follower.look()

    async def again(self, served: tuple[str, ...]) -> None:
        """Load what served last, as far as it loads: one model's loss is not all the others'.

        Args:
            served: as `name@version`, the default first.

        Raises:
            Failure: none loads.
        """
        instead = {wanted.partition("@")[0]: wanted for wanted in self._asked.named}
        # No other model takes the place of a default that is missing: it answers in other spaces.
        self._shelf.default = served[0].partition("@")[0]
        why: Exception | None = None
        for wanted in served:
            name, _, version = wanted.partition("@")
            for candidate in dict.fromkeys([wanted, instead.get(name, wanted)]):
                try:
                    await self._begin_with(candidate)
                    break
                except Exception as error:  # also whatever a remote repository's library raises
                    why, extra = error, {"model": candidate, "reason": str(error)}
                    _log.error("a model that served does not load", extra=extra)
            else:
                self._shelf.reject(name, Rejection(version, str(why), time.time()))
        if not self._shelf.serves and why is not None:
            raise why

    async def _begin_with(self, wanted: str) -> None:
        """Load a model; the first of all is the default.

        Raises:
            Failure: it is missing or rejected.
        """
        name, _, version = wanted.partition("@")
        self._shelf.default = self._shelf.default or name
        try:
            await self._bring(name, version)
        except Failure as failure:  # of no request, so of no field of one
            raise Failure(failure.reason, failure.message) from failure
