"""Whether somebody is still heard of, by turns of who listens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.pulse import Pulse


def test_who_is_not_heard_of_for_so_many_turns_is_lost_until_heard_of_again() -> None:
    pulse = Pulse(2)
    pulse.turn()
    before = pulse.lost
    pulse.turn()

    assert (before, pulse.lost) == (False, True)
    assert pulse.heard()  # was lost
    assert not pulse.lost
    assert not pulse.heard()


@given(st.integers(1, 9), st.lists(st.booleans()))
def test_only_the_turns_since_the_last_word_count(patience: int, beats: list[bool]) -> None:
    pulse = Pulse(patience)

    for beat in beats:
        pulse.heard() if beat else pulse.turn()

    silent = beats[::-1].index(True) if True in beats else len(beats)
    assert pulse.lost == (silent >= patience)
