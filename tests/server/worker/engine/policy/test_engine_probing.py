"""Who is let in although its own cost rules it out: seldom, one at a time, and until it has run."""

from collections.abc import Hashable

from tectum_server.worker.engine.policy.probing import Probing

NOTHING: frozenset[Hashable] = frozenset()


def refused(*keys: str) -> Probing:
    """That refused a request for these at 0 ms."""
    probing = Probing()
    assert not probing.lets_in(set(keys), 5, NOTHING, 0)
    return probing


def test_one_is_let_in_once_none_of_its_keys_has_run_for_long_enough() -> None:
    assert not refused("a").lets_in({"a"}, 5, NOTHING, 999)
    assert refused("a").lets_in({"a"}, 5, NOTHING, 1000)


def test_what_takes_long_is_tried_in_a_tenth_of_the_time_at_most() -> None:
    assert not refused("a").lets_in({"a"}, 300, NOTHING, 2999)
    assert refused("a").lets_in({"a"}, 300, NOTHING, 3000)


def test_no_second_one_is_let_in_while_the_first_waits() -> None:
    assert not refused("a").lets_in({"a"}, 5, {"a"}, 1000)


def test_what_has_run_need_not_be_tried() -> None:
    probing = refused("a")

    probing.ran("a")

    assert not probing.lets_in({"a"}, 5, NOTHING, 1000)


def test_of_requests_that_ask_for_a_key_later_one_is_let_in_for_all_it_asks() -> None:
    probing = Probing()
    assert not probing.lets_in({"a"}, 5, NOTHING, 0, ahead=True)

    first = probing.lets_in({"a"}, 5, NOTHING, 1000, ahead=True)
    second = probing.lets_in({"a"}, 5, NOTHING, 1001, ahead=True)
    then = probing.lets_in({"a"}, 5, NOTHING, 1050)

    assert (first, second, then) == (True, False, True)


def test_however_many_keys_are_refused_few_are_kept_and_the_latest_are() -> None:
    probing = refused("first")
    for number in range(512):
        probing.lets_in({number}, 5, NOTHING, 0)

    assert not probing.lets_in({"first"}, 5, NOTHING, 1000)
    assert probing.lets_in({511}, 5, NOTHING, 1000)
