"""Answers that are not taken at once: the newest wait, and their ages go on."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.streams import SMALL

import tectum
from tectum.conversation import Conversation
from tectum.inbox import MOST, Answer, Inbox
from tectum.results import FrameResult
from tectum.v1 import stream_pb2

OK, STALE = tectum.FrameStatus.OK, tectum.FrameStatus.STALE
ACTIONS = st.lists(st.sampled_from(["ok", "stale", "take"]), max_size=200)


def answer(number: int, status: tectum.FrameStatus = OK, age: float = 0.25) -> Answer:
    """One that came when so many had."""
    result = FrameResult(number, status, None, None, None, None, None, None, age)
    return Answer(result, heard=float(number))


@given(depth=st.integers(1, 16), actions=ACTIONS)
def test_every_answer_is_taken_or_counted_or_waits_and_few_do(
    depth: int, actions: list[str]
) -> None:
    inbox, put, taken = Inbox(depth), 0, list[int]()
    for action in actions:
        if action != "take":
            inbox.put(answer(put, OK if action == "ok" else STALE))
            put += 1
        elif (found := inbox.take(1e6)) is not None:
            taken.append(found.frame_id)

    waiting = list[FrameResult]()
    while (found := inbox.take(1e6)) is not None:
        waiting.append(found)
    assert put == len(taken) + len(waiting) + inbox.unread
    assert sum(one.status is OK for one in waiting) <= depth
    assert len(waiting) <= MOST
    assert all(a < b for a, b in pairwise([*taken, *(one.frame_id for one in waiting)]))


@given(
    depth=st.integers(1, 4),
    rounds=st.lists(st.lists(st.booleans(), max_size=20), min_size=1, max_size=30),
)
def test_the_slowest_reader_hears_the_newest_answers_whatever_comes_between(
    depth: int, rounds: list[list[bool]]
) -> None:
    inbox, number, answered = Inbox(depth), 0, list[int]()
    for came in rounds:
        before = len(answered)
        for ok in [*came, True, True, True, True, True]:  # more than may wait
            inbox.put(answer(number, OK if ok else STALE))
            answered += [number] if ok else []
            number += 1

        found = inbox.take(1e6)

        assert found is not None
        assert found.status is OK
        assert found.frame_id == answered[-depth]
        assert len(answered) - before > depth


def test_without_ok_answers_the_newest_others_wait_up_to_a_bound() -> None:
    inbox = Inbox(1)
    for number in range(1000):
        inbox.put(answer(number, STALE))

    oldest = inbox.take(1e6)

    assert oldest is not None
    assert oldest.frame_id == 1000 - MOST
    assert inbox.unread == 1000 - MOST


@pytest.mark.parametrize(
    ("captured", "age"), [(None, 0.25 + 5.0), (2.0, 13.0), (15.0, 0.0), (16.0, 0.0)]
)
def test_an_age_is_that_of_the_moment_when_it_is_taken(captured: float | None, age: float) -> None:
    found = Answer(answer(10).result, heard=10.0, captured=captured)

    assert found.taken(15.0).age == age


def heard(conversation: Conversation, captured_at: float | None) -> Answer:
    """A frame's way there and back; the worker tells an age of 0.25 s."""
    frame_id = conversation.say(tectum.Frame(SMALL, captured_at=captured_at))
    conversation.to_send()
    result = stream_pb2.FrameResult(frame_id=frame_id, status=stream_pb2.FRAME_STATUS_OK)
    result.age.FromMilliseconds(250)
    found = conversation.hear(stream_pb2.StreamPerceptionResponse(result=result))
    assert found is not None
    return found


def accepted(own_clock: bool) -> Conversation:
    """A stream on a clock that says 1000 s."""
    conversation = Conversation("a-1", 2**20, own_clock, now=lambda: 1000.0)
    ready = stream_pb2.StreamPerceptionResponse(ready=stream_pb2.StreamReady())
    assert conversation.hear(ready) is None
    return conversation


def test_what_this_clock_timed_is_as_old_as_this_clock_says() -> None:
    found = heard(accepted(own_clock=True), captured_at=993.0)

    assert found.captured is not None
    assert found.heard - found.captured >= 7.0
    assert found.taken(found.captured + 9.0).age == pytest.approx(9.0)


@pytest.mark.parametrize(("own_clock", "captured_at"), [(False, 993.0), (True, None)])
def test_what_another_clock_timed_is_as_old_as_it_was_told_and_what_it_waited(
    own_clock: bool, captured_at: float | None
) -> None:
    found = heard(accepted(own_clock), captured_at)

    assert found.taken(found.heard + 2.0).age == pytest.approx(2.25)
