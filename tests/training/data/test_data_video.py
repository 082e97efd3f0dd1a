"""Frames by position: seeking, order, files that lie about themselves, and bounded open files."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tectum_train.data import video
from tectum_train.data.errors import MissingFile, VideoError
from tectum_train.data.video import VideoFiles, VideoReader, decode_in_order

Film = Callable[..., Path]
LENGTH = 150
SIZE = (32, 32)


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 frames at 10 frames/s with B-frames and a key frame every 12; level 40 + number."""
    path: Path = tmp_path_factory.mktemp("film") / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=10, options={"g": "12", "bf": "3", "crf": "1"}
        )
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(LENGTH):
            level = np.full((32, 32, 3), 40 + number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(level, "rgb24")))
        container.mux(stream.encode())
    return path


def numbers(frames: NDArray[np.uint8]) -> list[int]:
    """Which frames of `film` these are, by their grey levels."""
    return [round((float(frame.mean()) - 40) / 8) for frame in frames]


@given(st.lists(st.lists(st.integers(0, LENGTH - 1), min_size=1, max_size=6), max_size=4))
@settings(max_examples=40, deadline=None)
def test_frames_come_in_the_order_asked_for_wherever_the_reader_stood(
    long_film: Path, requests: list[list[int]]
) -> None:
    reader = VideoReader(long_film, 10, SIZE)

    for positions in requests:
        found = reader.read(positions).mean(axis=(1, 2, 3)) - 40
        assert np.abs(found - positions).max() <= 1.5  # neighbours differ by one level
    reader.close()


def test_frames_from_seeking_equal_those_decoded_in_order(long_film: Path) -> None:
    whole = [frame for _, frame in decode_in_order(long_film, 10, SIZE)]
    reader = VideoReader(long_film, 10, SIZE)

    for position in (149, 0, 77, 12, 13, 11, 148, 60):
        np.testing.assert_array_equal(reader.read([position])[0], whole[position])


def test_a_film_read_forwards_is_opened_once_and_never_sought_in(
    long_film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []
    from_time, from_start = video._Decoder.from_time, video._Decoder.from_start

    def counted_time(decoder: video._Decoder, seconds: float) -> video._Frames:
        begun.append(seconds)
        return from_time(decoder, seconds)

    def counted_start(decoder: video._Decoder) -> video._Frames:
        begun.append(0.0)
        return from_start(decoder)

    monkeypatch.setattr(video._Decoder, "from_time", counted_time)
    monkeypatch.setattr(video._Decoder, "from_start", counted_start)
    reader = VideoReader(long_film, 10, SIZE)

    for first in range(0, LENGTH, 10):
        reader.read(range(first, first + 9))
    assert begun == [0.0]
    reader.read([20])
    assert begun == [0.0, 2.0]


def test_in_the_film_with_malformed_times_seeking_is_truly_wrong(fixtures: Path) -> None:
    # Guards the test of `one_frame_first`: were seeking right in it, that would prove nothing.
    with av.open(str(fixtures / "one_frame_first.mp4")) as container:
        container.seek(0, stream=container.streams.video[0], backward=True)
        first = next(container.decode(video=0))

    assert first.pts
    assert first.time == pytest.approx(0.1)


def test_a_frame_is_found_by_its_time_within_half_a_frame(film: Film) -> None:
    jittering = film(5, ticks=[0, 14, 20, 26, 43])  # hundredths of a second

    assert [position for position, _ in decode_in_order(jittering, 10, SIZE)] == [0, 1, 2, 3, 4]
    assert numbers(VideoReader(jittering, 10, SIZE).read([4, 3, 1])) == [4, 3, 1]


def test_a_frame_that_is_not_at_its_time_is_missed_not_replaced(film: Film) -> None:
    gap = film(5, ticks=[0, 10, 20, 40, 50])

    reader = VideoReader(gap, 10, SIZE)
    assert len(reader.read([0, 1, 2, 4, 5])) == 5
    with pytest.raises(VideoError, match=r"half a frame of 0\.300 s \(position 3 at 10 frames/s\)"):
        reader.read([2, 3, 4])
    with pytest.raises(VideoError, match=r"position 6"):
        reader.read([6])


def test_two_frames_at_one_place_are_refused(film: Film) -> None:
    doubled = film(4, ticks=[0, 10, 12, 30])

    with pytest.raises(VideoError, match="two frames at position 1"):
        list(decode_in_order(doubled, 10, SIZE))


def test_a_file_that_is_no_film_is_refused(tmp_path: Path, long_film: Path) -> None:
    nothing = tmp_path / "nothing.mp4"
    with pytest.raises(MissingFile, match=r"nothing\.mp4 is missing"):
        VideoReader(nothing, 10, SIZE)
    nothing.write_bytes(b"no film at all" * 100)
    with pytest.raises(VideoError, match="cannot be opened as a video"):
        VideoReader(nothing, 10, SIZE)
    nothing.write_bytes(long_film.read_bytes()[:-3000])  # its index stands at the end
    with pytest.raises(VideoError):
        list(decode_in_order(nothing, 10, SIZE))


@pytest.mark.parametrize("size", [(16, 64), (33, 32), (4096, 4096)])
def test_a_film_of_another_size_is_refused_before_it_is_decoded(
    long_film: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(video._Decoder, "_decode", None)
    words = rf"long\.mp4 has frames of 32×32 pixels .* declares {size[0]}×{size[1]}"

    for read in (
        lambda: VideoReader(long_film, 10, size),
        lambda: VideoFiles(10).reader(long_film, size),
        lambda: list(decode_in_order(long_film, 10, size)),
    ):
        with pytest.raises(VideoError, match=words):
            read()


def test_a_frame_the_decoder_had_to_guess_is_refused(long_film: Path, tmp_path: Path) -> None:
    with av.open(str(long_film)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    random = np.random.default_rng(0)
    refused = 0
    for place, size in (packets[int(n)] for n in random.integers(20, 140, 16)):
        assert place is not None
        film = bytearray(long_film.read_bytes())
        for at in random.integers(6, size, 3):
            film[place + at] ^= 1 << int(random.integers(8))
        damaged = tmp_path / "damaged.mp4"
        damaged.write_bytes(film)
        with av.open(str(damaged)) as container:
            try:
                guessed = any(frame.is_corrupt for frame in container.decode(video=0))
            except av.FFmpegError:
                guessed = True
        if not guessed:
            continue  # the flipped bits were not noticed by anyone, or changed nothing
        refused += 1
        with pytest.raises(VideoError, match=r"is damaged|cannot be decoded"):
            list(decode_in_order(damaged, 10, SIZE))
        with pytest.raises(VideoError, match=r"is damaged|cannot be decoded"):
            VideoReader(damaged, 10, SIZE).read(range(LENGTH))

    assert refused >= 4


def test_no_more_than_its_capacity_of_files_is_open(film: Film) -> None:
    paths = [film(2, name=f"{n}.mp4") for n in range(5)]
    files = VideoFiles(10, capacity=3)

    first = files.reader(paths[0], SIZE)
    for path in (*paths[1:3], paths[0], *paths[3:]):
        files.reader(path, SIZE).read([1])

    assert len(files) == 3
    assert files.reader(paths[0], SIZE) is first  # used between, so not the oldest
    files.close()
    assert len(files) == 0
    assert numbers(files.reader(paths[0], SIZE).read([1])) == [1]
