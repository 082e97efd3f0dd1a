"""Who is in memory, who makes room, and for whom: bookkeeping alone."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.models.loading import Loaded
from tectum_server.worker.engine.models.shelf import NoRoom, Shelf, Slot
from tectum_server.worker.jobs import ModelEntry, Rejection


def loaded(name: str, memory: int = 10, version: str = "v1") -> Loaded:
    entry = ModelEntry(name, version, "ready", False, b"", memory_bytes=memory)
    return Loaded(cast(Any, None), entry, [])


def shelf(capacity: int | None, *models: Loaded) -> Shelf:
    """The first is the default, and each is used after the one before it."""
    made = Shelf(capacity)
    made.default = models[0].entry.name if models else ""
    for model in models:
        made.put(model)
    return made


def slot(made: Shelf, name: str) -> Slot:
    found = made.find(name)
    assert found is not None
    return found


# ---------------------------------------------------------------- states


def test_what_is_put_serves_and_the_first_is_the_default() -> None:
    made = shelf(None, loaded("arm"), loaded("leg"))

    told = {name: (entry.state, entry.default) for name, entry in made.entries.items()}

    assert told == {"arm": ("ready", True), "leg": ("ready", False)}
    assert made.wanted == ("arm@v1", "leg@v1")


def test_the_one_it_replaces_is_given_back() -> None:
    old = loaded("arm")
    made = shelf(None, old)

    assert made.put(loaded("arm", version="v2")) is old
    assert made.entries["arm"].version == "v2"


def test_what_has_made_room_keeps_its_name_and_takes_nothing() -> None:
    made = shelf(None, loaded("arm"), loaded("leg"))

    gone = made.evict("leg")

    assert gone is not None
    assert (made.entries["leg"].state, made.entries["leg"].memory_bytes) == ("evicted", 0)
    assert made.wanted == ("arm@v1", "leg@v1")
    slot(made, "leg").coming = True
    assert made.entries["leg"].state == "loading"


def test_a_rejected_version_leaves_what_serves_and_is_told() -> None:
    made, rejection = shelf(None, loaded("arm")), Rejection("v2", "golden outputs differ", 1.0)

    made.reject("arm", rejection)

    entry = made.entries["arm"]
    assert (entry.state, entry.version, entry.rejection) == ("ready", "v1", rejection)
    assert made.wanted == ("arm@v1",)
    made.put(loaded("arm", version="v3"))
    assert made.entries["arm"].rejection is None


@pytest.mark.parametrize(("version", "wanted"), [("v2", "leg@v2"), ("", "leg")])
def test_what_never_loaded_has_failed_and_is_tried_by_the_next_engine(
    version: str, wanted: str
) -> None:
    made = shelf(None, loaded("arm"))

    made.reject("leg", Rejection(version, "no such bundle", 1.0))

    assert (made.entries["leg"].state, made.entries["leg"].version) == ("failed", "")
    assert set(made.wanted) == {"arm@v1", wanted}


# ---------------------------------------------------------------- room


def test_without_a_limit_nobody_makes_room() -> None:
    assert shelf(None, loaded("arm"), loaded("leg")).to_make_room("hand", 10**12) == []


def test_the_longest_unused_makes_room_and_never_the_default() -> None:
    made = shelf(35, loaded("arm"), loaded("leg"), loaded("hand"))
    made.touch(slot(made, "leg"))

    assert made.to_make_room("wing", 10) == ["hand"]
    assert made.to_make_room("wing", 20) == ["hand", "leg"]
    assert made.to_make_room("wing", 5) == []


def test_who_computes_makes_room_after_who_does_not() -> None:
    made = shelf(30, loaded("arm"), loaded("leg"), loaded("hand"))
    busy = slot(made, "leg").loaded
    assert busy is not None

    with busy.in_flight:
        assert made.to_make_room("wing", 10) == ["hand"]
    assert made.to_make_room("wing", 10) == ["leg"]


def test_a_newer_version_finds_room_beside_the_older_one_or_is_refused() -> None:
    made = shelf(40, loaded("arm"), loaded("leg"))

    assert made.to_make_room("leg", 20) == []
    with pytest.raises(NoRoom, match="leg takes 25 bytes; model_memory_bytes is 40, and arm, leg"):
        made.to_make_room("leg", 25)
    with pytest.raises(NoRoom, match="wing takes 31 bytes; .* 40, and arm must stay in memory"):
        made.to_make_room("wing", 31)


def test_a_model_larger_than_the_limit_is_refused_on_an_empty_shelf() -> None:
    with pytest.raises(NoRoom, match=r"^arm takes 11 bytes; model_memory_bytes is 10$"):
        shelf(10).to_make_room("arm", 11)


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    uses=st.lists(st.integers(0, 7), max_size=20),
    capacity=st.integers(1, 300),
    needed=st.integers(1, 120),
)
def test_as_few_go_as_must_the_longest_unused_first(
    sizes: list[int], uses: list[int], capacity: int, needed: int
) -> None:
    made = shelf(capacity, *(loaded(f"m{i}", size) for i, size in enumerate(sizes)))
    for use in uses:
        if use < len(sizes):
            made.touch(slot(made, f"m{use}"))
    by_use = sorted((f"m{i}" for i in range(1, len(sizes))), key=lambda n: slot(made, n).used)
    taken = {f"m{i}": size for i, size in enumerate(sizes)}
    free = capacity - sum(sizes)

    try:
        victims = made.to_make_room("new", needed)
    except NoRoom:
        assert free + sum(taken[name] for name in by_use) < needed
        return

    assert victims == by_use[: len(victims)]
    assert free + sum(taken[name] for name in victims) >= needed
    assert not victims or free + sum(taken[name] for name in victims[:-1]) < needed
