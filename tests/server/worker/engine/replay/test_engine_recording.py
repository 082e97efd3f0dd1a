"""What came to an engine, kept to be played back."""

from __future__ import annotations

from dataclasses import replace
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.cost import Preparation
from tectum_server.worker.engine.replay.arrivals import Arrival
from tectum_server.worker.engine.replay.cameras import Camera
from tectum_server.worker.engine.replay.recording import Framed, Recorder, read_recording

MS = st.integers(0, 2000)
CALLS = st.builds(
    Arrival,
    at_ms=MS,
    keys=st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(tuple),
    priority=st.sampled_from([1, 2, 3]),
    patience_ms=MS,
    leaves_after_ms=st.none() | MS,
    preparation=st.none() | st.builds(Preparation, st.just("resize"), st.integers(1, 20)),
)


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    recorder = Recorder(path)

    recorder.came(700, [("m@1", "embed_images", "joint"), ("m@1", "embed_texts")], 1, 40)
    recorder.ran(("m@1", "embed_texts"), 1, 2.50049)
    recorder.came(705, ["other"], 3, 1000)
    recorder.close()

    found = read_recording(path)
    assert found.arrivals == (
        Arrival(0, ("m@1/embed_images/joint", "m@1/embed_texts"), 1, 40),
        Arrival(5, ("other",), 3, 1000),
    )
    assert found.batches == (("m@1/embed_texts", 1, 2.5),)


def test_another_start_goes_on_after_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"

    for at_ms in (10, 30):
        recorder = Recorder(path)
        recorder.came(at_ms, ["a"], 2, 100)
        recorder.close()

    assert [one.at_ms for one in read_recording(path).arrivals] == [0, 20]


@given(st.integers(0, 2000))
def test_it_never_has_more_bytes_than_it_may(
    tmp_path_factory: pytest.TempPathFactory, most_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("recordings") / "arrivals.jsonl"
    recorder = Recorder(path, most_bytes)

    for at_ms in range(30):
        recorder.came(at_ms, ["a"], 2, 100)
    recorder.close()
    recorder.came(31, ["a"], 2, 100)  # as after a full one

    found, size = read_recording(path), path.stat().st_size
    assert size <= most_bytes
    assert [one.at_ms for one in found.arrivals] == list(range(len(found.arrivals)))
    first = '{"type":"came","at_ms":0,"keys":["a"],"priority":2,"patience_ms":100}\n'
    missing = len(first) - 1 + len(str(len(found.arrivals)))  # bytes of the next line
    assert len(found.arrivals) == 30 or size + missing > most_bytes


def test_a_clock_that_begins_anew_goes_on_from_before(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    recorder = Recorder(path)

    for at_ms in (1000, 1500, 20, 30, 5, 6):
        recorder.came(at_ms, ["a"], 2, 100)
    recorder.close()

    assert [one.at_ms for one in read_recording(path).arrivals] == [0, 500, 500, 510, 510, 511]


def test_each_line_is_there_at_once_and_a_full_disk_leaves_no_half_of_one(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    recorder = Recorder(path)
    recorder.came(0, ["a"], 2, 100)
    assert len(read_recording(path).arrivals) == 1
    whole, there = path.read_bytes(), recorder._file
    assert there is not None
    file: FileIO = there

    class Full:
        """Takes half of what it is given."""

        truncate, close = file.truncate, file.close

        def write(self, data: bytes) -> int | None:
            return file.write(data[: len(data) // 2])

    recorder._file = Full()  # type: ignore[assignment]
    recorder.came(1, ["a"], 2, 100)
    recorder.came(2, ["a"], 2, 100)

    assert path.read_bytes() == whole
    assert file.closed


def test_a_line_that_was_cut_off_is_left_out_and_a_strange_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    recorder = Recorder(path)
    recorder.came(0, ["a"], 2, 100)
    recorder.close()
    whole = path.read_bytes()

    path.write_bytes(whole + whole[:-5])
    assert len(read_recording(path).arrivals) == 1

    path.write_bytes(whole + b'{"type":"went"}\n')
    with pytest.raises(ValueError, match=r"arrivals\.jsonl, line 2: "):
        read_recording(path)


def test_what_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no-folder"):
        Recorder(tmp_path / "no-folder" / "arrivals.jsonl")


@given(st.lists(CALLS, max_size=8))
def test_calls_are_read_as_they_came_and_left(
    tmp_path_factory: pytest.TempPathFactory, calls: list[Arrival]
) -> None:
    path = tmp_path_factory.mktemp("recordings") / "arrivals.jsonl"
    recorder, calls = Recorder(path), sorted(calls, key=lambda one: one.at_ms)
    ends = [(one.at_ms + (one.leaves_after_ms or 0), n) for n, one in enumerate(calls)]
    moments = [(one.at_ms, 0, n) for n, one in enumerate(calls)]
    moments += [(at, 1, n) for at, n in ends if calls[n].leaves_after_ms is not None]

    for at_ms, leaves, number in sorted(moments):
        one = calls[number]
        if leaves:
            recorder.left(at_ms, number)
            continue
        needs, given = [one.preparation] * len(one.keys), one.patience_ms
        recorder.came(at_ms, one.keys, one.priority, given, number=number, preparations=needs)
    recorder.close()

    found = read_recording(path).arrivals
    begun_ms = calls[0].at_ms if calls else 0
    assert [replace(one, at_ms=one.at_ms + begun_ms) for one in found] == calls


def test_the_largest_of_what_a_requests_items_need_is_kept(tmp_path: Path) -> None:
    path, needs = tmp_path / "arrivals.jsonl", Preparation(("m@1", "prepare"), 20)
    recorder = Recorder(path)

    recorder.came(0, ["a"] * 3, 2, 100, preparations=[None, Preparation("b", 7), needs])
    recorder.close()

    (found,) = read_recording(path).arrivals
    assert found.preparation == ("m@1/prepare", 20)


def test_a_streams_frames_are_a_camera_and_no_calls(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    recorder = Recorder(path)
    one, other = recorder.stream("robot"), recorder.stream("another")

    recorder.came(1000, ["a"], 1, 400, number=7, frame=Framed(one, 900, 1000))
    recorder.newer(1100, 7, 1066)
    recorder.came(1120, ["a", "b"], 3, 480, number=8, frame=Framed(other, 1000, 1100))
    recorder.newer(1150, 7, 1133)
    recorder.left(1200, 8)
    recorder.came(1300, ["a"], 1, 300, number=9, frame=Framed(one, 1190, 1200))
    recorder.close()

    found = read_recording(path)
    assert found.arrivals == ()
    assert found.cameras == (
        camera(400, (0, 66, 133, 200), priority=1, key="a"),
        camera(500, (100,), priority=3, key="a"),
        camera(500, (100,), priority=3, key="b"),
    )
    assert "robot" not in path.read_text()


def camera(lifespan_ms: int, captures: tuple[int, ...], *, priority: int, key: str) -> Camera:
    first, count = captures[0], len(captures)
    return Camera(first, 0, count, lifespan_ms, key, priority, captures_ms=captures)


def test_numbers_of_another_start_are_others(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    first = Recorder(path)
    first.came(0, ["a"], 2, 100, number=1)
    first.close()

    second = Recorder(path)
    second.came(10, ["b"], 2, 100, number=1)
    second.left(30, 1)
    second.close()

    assert [one.leaves_after_ms for one in read_recording(path).arrivals] == [None, 20]


def test_a_recording_of_before_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    path.write_text(
        '{"type":"came","at_ms":700,"keys":["a"],"priority":1,"patience_ms":40}\n'
        '{"type":"ran","key":"a","items":1,"took_ms":2.5}\n'
    )

    found = read_recording(path)

    assert found.arrivals == (Arrival(0, ("a",), 1, 40),)
    assert (found.batches, found.cameras) == ((("a", 1, 2.5),), ())
