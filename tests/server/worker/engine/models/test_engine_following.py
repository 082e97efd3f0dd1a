"""What a watched repository asks for: bookkeeping alone."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.models.following import ALL, Asked, Change, changes
from tectum_server.worker.jobs import ModelEntry, Rejection


def entry(
    name: str, version: str = "v1", state: str = "ready", default: bool = False, rejected: str = ""
) -> ModelEntry:
    rejection = Rejection(rejected, "no good", 1.0) if rejected else None
    return ModelEntry(name, version, state, default, b"", rejection=rejection)  # type: ignore[arg-type]


def told(
    asked: tuple[str, ...], found: Mapping[str, str | None], *entries: ModelEntry
) -> list[tuple[str, str]]:
    known = {one.name: one for one in entries}
    return [(c.name, c.what) for c in changes(Asked.of(asked), found, known)]


def test_a_name_without_a_version_is_followed_and_one_with_is_not() -> None:
    asked = Asked.of(("arm", "leg@v1"))

    assert [asked.follows(name) for name in ("arm", "leg", "hand")] == [True, False, False]


def test_everything_is_followed_but_what_is_named_with_a_version() -> None:
    asked = Asked.of(("leg@v1", ALL))

    assert [asked.follows(name) for name in ("arm", "leg", "hand")] == [True, False, True]


def test_a_newer_version_is_loaded_and_an_older_one_too() -> None:
    assert told(("arm",), {"arm": "v2"}, entry("arm")) == [("arm", "load")]
    assert told(("arm",), {"arm": "v1"}, entry("arm", "v2")) == [("arm", "load")]


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert told(("arm",), {"arm": "v1", "leg": "v5"}, entry("arm")) == []
    assert told(("arm@v1",), {"arm": "v2"}, entry("arm")) == []


def test_what_was_rejected_is_tried_again_only_once_it_is_another() -> None:
    rejected = entry("arm", rejected="v2")

    assert told(("arm",), {"arm": "v2"}, rejected) == []
    assert told(("arm",), {"arm": "v3"}, rejected) == [("arm", "load")]
    failed = entry("leg", "", "failed", rejected="v2")
    assert told(("leg",), {"leg": "v2"}, failed) == []
    assert told(("leg",), {"leg": "v3"}, failed) == [("leg", "load")]


def test_a_latest_that_goes_back_to_what_serves_settles_it() -> None:
    assert told(("arm",), {"arm": "v1"}, entry("arm", rejected="v2")) == [("arm", "settle")]


def test_what_has_made_room_is_not_brought_back_for_a_newer_version() -> None:
    assert told(("arm",), {"arm": "v2"}, entry("arm", state="evicted")) == []
    assert told(("arm",), {"arm": "v2"}, entry("arm", state="loading")) == []


def test_with_everything_names_come_and_go_and_those_asked_for_stay() -> None:
    found = {"hand": "v1"}
    known = entry("arm", default=True), entry("leg"), entry("wing")

    assert told(("arm", "leg", ALL), found, *known) == [("hand", "load"), ("wing", "unload")]
    assert told(("arm", "leg"), found, *known) == []


def test_the_default_is_not_unloaded_though_an_admin_chose_it() -> None:
    assert told(("arm", ALL), {"arm": "v1"}, entry("arm"), entry("leg", default=True)) == []


def test_what_is_not_known_of_a_name_changes_nothing() -> None:
    known = entry("arm", default=True), entry("leg")

    assert told(("arm", ALL), {"arm": None, "leg": None, "hand": None}, *known) == []


def test_a_latest_that_names_no_version_is_tried_once() -> None:
    assert told(("arm",), {"arm": ""}, entry("arm")) == [("arm", "load")]
    unsaid = ModelEntry("arm", "v1", "ready", True, b"", rejection=Rejection("", "what?", 1.0))
    assert told(("arm",), {"arm": ""}, unsaid) == []


NAMES = st.sampled_from(["arm", "leg", "hand"])
VERSIONS = st.sampled_from(["v1", "v2", "v3"])


@given(
    found=st.dictionaries(NAMES, VERSIONS),
    versions=st.dictionaries(NAMES, VERSIONS, min_size=1),
    everything=st.booleans(),
)
def test_once_all_is_done_there_is_nothing_left_to_do(
    found: dict[str, str], versions: dict[str, str], everything: bool
) -> None:
    asked = Asked.of(("arm", ALL) if everything else ("arm",))
    known = {name: entry(name, version) for name, version in versions.items()}

    for change in list(changes(asked, found, known)):
        if change.what == "load":
            known[change.name] = entry(change.name, found[change.name])
        else:
            assert change == Change(change.name, "unload")
            del known[change.name]

    assert list(changes(asked, found, known)) == []
