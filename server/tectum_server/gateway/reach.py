"""Whether the worker can be reached, as its calls tell: said in the log once, when it changes.

Knows how calls end, and makes none. Until one has failed, the worker counts as there.
"""

import logging

import tectum

LOGGER = logging.getLogger("tectum_server.gateway")


class Reach:
    """What is known of the way to one worker; for one event loop."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._lost = False

    def note(self, ended: tectum.TectumError | None) -> None:
        """A call has ended.

        Args:
            ended: how; None: with an answer.
        """
        if ended is None or (ended.reason and ended.request_id):  # the worker's own words
            if self._lost:
                LOGGER.warning("the worker answers again", extra={"worker": self._worker})
            self._lost = False
        elif isinstance(ended, tectum.Unavailable):
            if not self._lost:
                about = {"worker": self._worker, "error": str(ended)}
                LOGGER.warning("the worker cannot be reached", extra=about)
            self._lost = True
