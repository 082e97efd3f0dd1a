"""Who asks a command to end is heard, in whatever state the signals were inherited."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tectum_cli.signals import ASKED, ending_as_interrupts


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """The signals of the tests' own process, as they were."""
    before = {number: signal.getsignal(number) for number in ASKED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_script_starts_in_the_background_can_be_ended(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)  # as `&` does to SIGINT

    with pytest.raises(KeyboardInterrupt), ending_as_interrupts():
        os.kill(os.getpid(), number)

    assert signal.getsignal(number) is signal.SIG_IGN


def test_what_nohup_keeps_alive_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with ending_as_interrupts():
        os.kill(os.getpid(), signal.SIGHUP)

    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_end_that_was_asked_where_no_error_comes_out_is_heard_later() -> None:
    class Ends:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with ending_as_interrupts() as heed:
        heed()
        Ends()

        with pytest.raises(KeyboardInterrupt):
            heed()
