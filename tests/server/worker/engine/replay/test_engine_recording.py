"""What came to an engine, kept to be played back."""

from __future__ import annotations

from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.replay.arrivals import Arrival
from tectum_server.worker.engine.replay.recording import Recorder, read_recording


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
