"""What a batch costs: a line through what batches took."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.cost import Cost, CostModel, Length, Preparation, Trifle

MILLISECONDS = st.integers(0, 10_000)
SIZES = st.lists(st.integers(1, 128), unique=True, min_size=2, max_size=8)


def known(model: CostModel, key: str = "a") -> Cost:
    cost = model.cost(key)
    assert cost is not None
    return cost


def test_a_batch_costs_its_fixed_part_and_its_items() -> None:
    assert Cost(fixed_ms=10, per_item_ms=2).of(5) == 20


def test_nothing_is_known_before_the_first_batch() -> None:
    assert CostModel().cost("a") is None
    assert CostModel().known == set()


@given(MILLISECONDS, MILLISECONDS, SIZES)
def test_a_line_is_found_again(fixed: int, each: int, sizes: list[int]) -> None:
    model = CostModel()
    for size in sizes:
        model.observe("a", size, fixed + each * size)

    cost = known(model)

    for size in range(1, 129):
        assert cost.of(size) == pytest.approx(fixed + each * size, rel=1e-6, abs=1e-3)


def test_one_size_alone_is_taken_as_proportional() -> None:
    model = CostModel()
    model.observe("a", 4, 20.0)

    assert known(model) == Cost(0.0, 5.0)


@given(MILLISECONDS, st.integers(1, 100), SIZES, st.data())
def test_one_slow_batch_does_not_bend_the_line(
    fixed: int, each: int, sizes: list[int], data: st.DataObject
) -> None:
    model = CostModel()
    for size in sizes:
        for _ in range(3):
            model.observe("a", size, fixed + each * size)
    before = known(model)

    model.observe("a", data.draw(st.sampled_from(sizes)), 1e7)

    for size in sizes:
        assert known(model).of(size) == pytest.approx(before.of(size))


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 1e6)), min_size=1, max_size=40))
def test_no_observations_whatever_make_a_negative_cost(seen: list[tuple[int, float]]) -> None:
    model = CostModel()
    for size, took in seen:
        model.observe("a", size, took)

        cost = known(model)
        assert cost.fixed_ms >= 0
        assert cost.per_item_ms >= 0


def test_what_happened_long_ago_is_forgotten() -> None:
    model = CostModel()
    for took in [100.0] * 50 + [10.0] * 16:
        model.observe("a", 1, took)

    assert known(model).of(1) == pytest.approx(10)


def test_sizes_that_no_longer_come_do_not_hold_the_engine_to_a_bad_moment() -> None:
    model = CostModel()
    for size in (1, 2, 4, 8, 16, 32):
        model.observe("a", size, 300.0 + size)  # while something else held the machine

    model.observe("a", 1, 10.0)
    at_best = known(model).of(1) * known(model).least
    for _ in range(15):
        model.observe("a", 1, 10.0)

    assert at_best == pytest.approx(10.0)
    assert known(model).of(1) == pytest.approx(10.0)
    assert known(model).of(32) < 20  # the sizes still compare as they did


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.1, 1e6)), min_size=1, max_size=40))
def test_at_its_best_a_cost_is_no_more_than_any_of_the_last_batches_took(
    seen: list[tuple[int, float]],
) -> None:
    model = CostModel()
    for size, took in seen:
        model.observe("a", size, took)

    cost = known(model)

    assert 0 <= cost.least <= 1
    for size, took in seen[-16:]:
        assert cost.of(size) * cost.least <= took * (1 + 1e-9)


def test_however_many_keys_come_few_are_kept_and_the_latest_are() -> None:
    model = CostModel()
    for number in range(5000):
        model.observe(number, 1, 1.0)
        model.observe("a", 1, 5.0)  # seen again and again

    assert len(model.known) <= 512
    assert {"a", 4999} <= model.known
    assert model.cost(0) is None


def test_keys_do_not_mix_and_are_forgotten_one_by_one() -> None:
    model = CostModel()
    model.observe("a", 1, 5.0)
    model.observe("b", 1, 50.0)

    model.forget({"a", "never seen"})

    assert model.known == {"b"}
    assert model.cost("a") is None
    assert known(model, "b").of(1) == 50


@given(st.integers(0, 50), st.floats(0, 50), st.floats(0.01, 500), st.integers(1, 200))
def test_a_limit_allows_the_largest_batch_that_keeps_it_and_one_item_always(
    fixed_ms: int, per_item_ms: float, limit_ms: float, most: int
) -> None:
    cost = Cost(fixed_ms, per_item_ms)

    keep_it = [size for size in range(1, most + 1) if cost.of(size) <= limit_ms]
    assert cost.within(limit_ms, most) == max(keep_it, default=1)


# ---------------------------------------------------------------- kin


def rolled(frames: int, seen: int = 4, decodes: bool = False) -> tuple[object, ...]:
    return ("m@1", "rollout", Length(frames), Trifle(seen), decodes)


@given(MILLISECONDS, MILLISECONDS, st.integers(2, 64), st.data())
def test_what_has_not_run_yet_lies_between_the_next_shorter_and_the_next_longer(
    fixed: int, each: int, longest: int, data: st.DataObject
) -> None:
    model = CostModel()
    for frames in (1, longest):
        for size in (1, 2, 4):
            model.observe(rolled(frames), size, fixed + each * frames * size)
    frames = data.draw(st.integers(1, longest))

    cost = model.cost(rolled(frames, seen=data.draw(st.integers(1, 4))))

    assert cost is not None
    for size in (1, 3, 8):
        assert cost.of(size) == pytest.approx(fixed + each * frames * size, rel=1e-6, abs=1e-3)


def test_beyond_what_has_run_the_nearest_counts_and_of_equals_the_dearest() -> None:
    model = CostModel()
    model.observe(rolled(2, seen=1), 1, 5.0)
    model.observe(rolled(2, seen=3), 1, 9.0)
    model.observe(rolled(4), 1, 20.0)

    assert model.cost(rolled(1)) == model.cost(rolled(2, seen=2)) == Cost(0.0, 9.0)
    assert model.cost(rolled(9)) == Cost(0.0, 20.0)


def test_what_differs_in_more_is_no_kin() -> None:
    model = CostModel()
    model.observe(rolled(2), 1, 5.0)

    assert model.cost(rolled(2, decodes=True)) is None
    assert model.cost(("m@2", *rolled(2)[1:])) is None
    assert model.known == {rolled(2)}


def test_its_own_batches_count_before_those_of_its_kin() -> None:
    model = CostModel()
    model.observe(rolled(1), 1, 5.0)
    model.observe(rolled(3), 1, 500.0)

    model.observe(rolled(2), 1, 7.0)

    assert model.cost(rolled(2)) == Cost(0.0, 7.0)


def test_kin_that_are_forgotten_tell_nothing() -> None:
    model = CostModel()
    model.observe(rolled(1), 1, 5.0)

    model.forget({rolled(1)})

    assert model.cost(rolled(2)) is None


def test_what_a_preparation_takes_goes_by_its_size_and_several_take_it_again() -> None:
    costs = CostModel()
    assert costs.cost(Preparation("resize", 4)) is None

    for _ in range(3):
        costs.observe("resize", 2, 5.0)
        costs.observe("resize", 4, 9.0)
    costs.observe("resize", 4, 90.0)  # which bends nothing

    told = costs.cost(Preparation("resize", 8))
    assert told is not None
    assert [told.of(count) for count in (0, 1, 3)] == pytest.approx([0, 17, 51])
