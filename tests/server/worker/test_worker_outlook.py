"""What follows from what engines told, for a call that comes now."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.outlook import Asked, Outlook, Price, Step, done

CONTROL, INTERACTIVE, BULK = 1, 2, 3
EMBED = Price("arm@1", "embed_images", 0.01, 0.02, 1.0, 4)
TEXTS = Price("arm@1", "embed_texts", 0.001, 0.001, 0.5, 4)
ASKED = Asked("arm@1", {"embed_images": 1}, INTERACTIVE, deadline=12.0)


def outlook(
    items: int = 0, first: float = 0.0, others: float = 0.0, speed: float = 1.0, at: float = 10.0
) -> Outlook:
    """Of an engine that has so much before every call."""
    steps = tuple(Step(p, 0.0, first, others, items, 4, speed) for p in (1, 2, 3))
    return Outlook(at, EMBED, 0.1, steps, (EMBED, TEXTS))


def milliseconds(moment: float | None, since: float = 10.0) -> int | None:
    """Since then, whole ones."""
    return None if moment is None else round(1000 * (moment - since))


OUTLOOKS = st.builds(
    outlook,
    items=st.integers(0, 200),
    first=st.floats(0, 5),
    others=st.floats(0, 5),
    speed=st.floats(0.01, 1),
    at=st.floats(9, 10),
)
CALLS = st.builds(
    Asked,
    model=st.just("arm@1"),
    items=st.dictionaries(
        st.sampled_from(["embed_images", "embed_texts", "rollout"]), st.integers(1, 64)
    ),
    priority=st.sampled_from([1, 2, 3]),
    deadline=st.floats(9, 20),
)
UNHEARD = st.lists(st.tuples(CALLS, st.none() | st.floats(8, 11)), max_size=6)


def test_a_call_is_answered_after_what_runs_and_what_waits_and_itself() -> None:
    assert milliseconds(done(ASKED, [outlook(items=1, first=0.5, others=0.1)], (), 10.0)) == 650


def test_beyond_a_batch_others_fill_the_last_one_and_there_is_a_margin() -> None:
    assert milliseconds(done(ASKED, [outlook(items=4)], (), 10.0)) == 198 - 30 + 30


def test_what_its_class_does_not_get_of_the_engine_makes_it_wait_longer() -> None:
    assert milliseconds(done(ASKED, [outlook(others=0.1, speed=0.5)], (), 10.0)) == 230


def test_of_steps_the_last_counts_that_is_due_before_the_call() -> None:
    steps = tuple(Step(INTERACTIVE, due, due / 10, 0.0, 0, 4, 1.0) for due in (0.0, 11.0, 13.0))
    one = replace_steps(outlook(), steps)

    assert milliseconds(done(ASKED, [one], (), 10.0)) == 1130
    assert milliseconds(done(replace(ASKED, deadline=10.5), [one], (), 10.0)) == 30


def test_what_this_front_has_not_sent_when_the_engine_told_comes_on_top() -> None:
    one, other = outlook(items=1), replace(ASKED, items={"embed_images": 2, "embed_texts": 8})

    def with_other(sent: float | None, asked: Asked = other) -> int | None:
        return milliseconds(done(ASKED, [one], [(asked, sent)], 10.0))

    assert with_other(9.9) == 50
    assert with_other(None) == with_other(10.1) == 95
    assert with_other(None, replace(other, priority=BULK)) == 50
    assert with_other(None, replace(other, deadline=12.5)) == 50
    assert with_other(None, replace(other, priority=CONTROL, deadline=12.5)) == 95


def test_of_several_engines_the_first_that_is_free_counts_and_each_does_its_part() -> None:
    others = [(ASKED, None), (ASKED, None)]

    assert milliseconds(done(ASKED, [outlook(first=3.0), outlook(first=1.0)], others, 10.0)) == 1050


def test_what_takes_too_long_by_itself_is_the_engines_to_judge() -> None:
    assert done(replace(ASKED, deadline=10.02), [outlook(first=3.0)], (), 10.0) is None


def test_what_is_told_crosses_the_link() -> None:
    one = outlook(items=3)

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Outlook) == one


@given(asked=CALLS, unheard=UNHEARD, now=st.floats(9, 11))
def test_without_a_word_of_an_engine_nobody_is_refused(
    asked: Asked, unheard: list[tuple[Asked, float | None]], now: float
) -> None:
    assert done(asked, [], unheard, now) is None
    assert done(asked, [None], unheard, now) is None
    assert done(asked, [outlook(first=9.0), None], unheard, now) is None


@given(asked=CALLS, one=OUTLOOKS, unheard=UNHEARD, age=st.floats(0.5, 60))
def test_nobody_is_refused_for_what_was_told_long_ago(
    asked: Asked, one: Outlook, unheard: list[tuple[Asked, float | None]], age: float
) -> None:
    assert done(asked, [one], unheard, one.at + age + 0.001) is None


@given(asked=CALLS, one=OUTLOOKS, unheard=UNHEARD, later=st.floats(0, 0.4))
def test_what_was_told_says_less_the_longer_ago_it_was(
    asked: Asked, one: Outlook, unheard: list[tuple[Asked, float | None]], later: float
) -> None:
    first, then = (done(asked, [one], unheard, one.at + age) for age in (0.0, later))

    assert then is None or first == then


@given(asked=CALLS, one=OUTLOOKS, unheard=UNHEARD, more=CALLS)
def test_more_before_a_call_never_makes_it_earlier(
    asked: Asked, one: Outlook, unheard: list[tuple[Asked, float | None]], more: Asked
) -> None:
    first, then = (done(asked, [one], u, 10.0) for u in (unheard, [*unheard, (more, None)]))

    assert (first is None) == (then is None)
    assert first is None or then is None or first <= then + 1e-9


def replace_steps(one: Outlook, steps: tuple[Step, ...]) -> Outlook:
    """The same with other steps."""
    return msgspec.structs.replace(one, steps=steps)
