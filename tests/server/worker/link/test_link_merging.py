"""What several engines serve, told as if it were one that does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.jobs import ModelEntry, Rejection
from tectum_server.worker.link.merging import merged

Catalogue = Mapping[str, ModelEntry]


def entry(name: str, version: str, state: str = "ready", default: bool = False) -> ModelEntry:
    """A model as an engine announces it."""
    return ModelEntry(name, version, state, default, b"", memory_bytes=10)  # type: ignore[arg-type]


def catalogue(**versions: str) -> Catalogue:
    """Models that serve, by name."""
    return {name: entry(name, version) for name, version in versions.items()}


entries = st.builds(
    entry,
    st.just("arm"),
    st.sampled_from(["v1", "v2", "v3"]),
    st.sampled_from(["ready", "loading", "evicted", "failed"]),
)
catalogues = st.lists(
    st.one_of(st.just({}), entries.map(lambda one: {"arm": one})), min_size=1, max_size=5
)


@given(st.dictionaries(st.sampled_from(["arm", "leg"]), entries), st.booleans())
def test_one_engine_is_told_as_it_is(models: Catalogue, default: bool) -> None:
    own = {
        name: msgspec.structs.replace(one, name=name, default=default and name == "arm")
        for name, one in models.items()
    }

    assert merged([own], {}) == own


@given(catalogues, catalogues)
def test_a_model_serves_if_it_does_anywhere_in_the_version_of_most(
    engines: Sequence[Catalogue], earlier: Sequence[Catalogue]
) -> None:
    before = merged(earlier, {})

    found = merged(engines, before)

    all_of_them = [one["arm"] for one in engines if one]
    ready = Counter(one.version for one in all_of_them if one.state == "ready")
    assert ("arm" in found) == bool(all_of_them)
    if all_of_them:
        assert (found["arm"].state == "ready") == bool(ready)
    if ready:
        assert ready[found["arm"].version] == max(ready.values())


@given(catalogues, catalogues)
def test_what_was_announced_stays_while_no_other_version_serves_in_more_engines(
    engines: Sequence[Catalogue], earlier: Sequence[Catalogue]
) -> None:
    before = merged(earlier, {})

    found = merged(engines, before)

    ready = Counter(one["arm"].version for one in engines if one and one["arm"].state == "ready")
    old = before["arm"].version if "arm" in before else ""
    if ready and ready[old] == max(ready.values()):
        assert found["arm"].version == old


def test_a_version_that_takes_anothers_place_is_announced_once_more_engines_have_it() -> None:
    told, announced = merged([catalogue(arm="v1")] * 4, {}), list[str]()
    for swapped in range(5):
        engines = [catalogue(arm="v2")] * swapped + [catalogue(arm="v1")] * (4 - swapped)
        told = merged(engines, told)
        announced.append(told["arm"].version)

    assert announced == ["v1", "v1", "v1", "v2", "v2"]


def test_an_engine_that_comes_back_with_an_older_one_changes_nothing() -> None:
    told = merged([catalogue(arm="v2"), {}], catalogue(arm="v2"))

    for engines in ([catalogue(arm="v2"), catalogue(arm="v1")], [{}, catalogue(arm="v1")]):
        last, told = told, merged(engines, told)

    assert (last["arm"].version, told["arm"].version) == ("v2", "v1")  # all that is left


def test_of_a_model_that_serves_nowhere_what_is_nearest_to_it_is_told() -> None:
    states = ["failed", "evicted", "loading"]
    engines = [{"arm": entry("arm", "v1", state)} for state in states]

    found = [merged(engines[: count + 1], {})["arm"].state for count in range(3)]

    assert found == ["failed", "evicted", "loading"]


def test_memory_is_that_of_all_and_a_rejection_anywhere_is_told() -> None:
    rejection = Rejection("v2", "no good", 1.0)
    rejecting = {"arm": msgspec.structs.replace(entry("arm", "v1"), rejection=rejection)}

    found = merged([catalogue(arm="v1"), rejecting], {})

    assert (found["arm"].memory_bytes, found["arm"].rejection) == (20, rejection)


@given(catalogues)
def test_a_version_that_serves_is_not_told_to_be_rejected(engines: Sequence[Catalogue]) -> None:
    rejecting = [
        {"arm": msgspec.structs.replace(one["arm"], rejection=Rejection(version, "no", 1.0))}
        for one, version in zip([e for e in engines if e], ["v1", "v2", "v3", "v1", "v2"])  # noqa: B905
    ]

    found = merged(rejecting, {}).get("arm")

    told = [one["arm"].rejection for one in rejecting]
    if found is not None and found.state == "ready":
        others = [one for one in told if one is not None and one.version != found.version]
        assert bool(found.rejection) == bool(others)
        assert found.rejection is None or found.rejection.version != found.version
    elif found is not None:
        assert found.rejection in told


def test_there_is_one_default_that_of_the_first_engine_that_is_there() -> None:
    first = {"arm": entry("arm", "v1", default=True), "leg": entry("leg", "v1")}
    second = {"arm": entry("arm", "v1"), "leg": entry("leg", "v1", default=True)}

    found = [merged(engines, {}) for engines in ([first, second], [{}, second])]

    defaults = [[name for name, one in told.items() if one.default] for told in found]
    assert defaults == [["arm"], ["leg"]]
