"""What a data set says about itself, and reading it back without the simulator."""

import json
from pathlib import Path

import numpy as np
import pytest

from tabletop.dataset import Dataset
from tabletop.families import FAMILIES, NAMES
from tabletop.generate import main
from tabletop.recorder import Recorder
from tabletop.video import Encoding
from tabletop.world import CONTROL_RATE, describe, features

SIZE = 16


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Two drawn episodes of different families and lengths."""
    root = tmp_path / "train"
    with Recorder(root, rate=CONTROL_RATE, features=features(SIZE), robot_type="drawn") as recorder:
        for family, length in ((0, 5), (3, 9)):
            columns = {
                name: np.full((length, *(() if f.shape == (1,) else f.shape)), family, f.dtype)
                for name, f in features(SIZE).items()
                if f.dtype != "video"
            }
            columns["observation.images.front"] = np.full(
                (length, SIZE, SIZE, 3), 60 * family, np.uint8
            )
            recorder.add_episode(columns, f"do {family}")
    (root / "meta/world.json").write_text(json.dumps(world()))
    return root


def world() -> dict:
    return describe(
        split="train",
        seed=3,
        size=SIZE,
        noise=0.0,
        wander=0.0,
        encoding=Encoding(),
        command="python -m tabletop.generate",
        attempts={0: [1, 3], 5: [1]},
    )


def test_the_record_lists_every_family_with_its_partner_and_attempts() -> None:
    families = world()["families"]

    assert [family["name"] for family in families] == list(NAMES)
    assert [family["partner"] for family in families] == [family.partner for family in FAMILIES]
    assert (families[0]["episodes"], families[0]["attempts"]) == (2, 4)
    assert (families[1]["episodes"], families[1]["attempts"]) == (0, 0)


def test_the_record_survives_json_and_says_which_sentences_are_held_out() -> None:
    record = json.loads(json.dumps(world()))

    held_out = [line["text"] for line in record["instructions"] if line["held_out"]]
    assert "please open the drawer" in held_out
    assert "open the drawer" not in held_out
    assert record["fps"] == CONTROL_RATE
    assert record["nuisances"]["camera"]["uniform_spread"]["azimuth"] == 30


def test_a_recorded_set_is_read_back_episode_by_episode(recorded: Path) -> None:
    dataset = Dataset(recorded)

    extents = dataset.extents()
    assert [(e.begin, e.end, e.family, e.instruction) for e in extents] == [
        (0, 5, 0, "do 0"),
        (5, 14, 3, "do 3"),
    ]
    assert dataset.column("camera.extrinsics").shape == (14, 16)
    films = list(dataset.films())
    assert [film.shape for film in films] == [(5, SIZE, SIZE, 3), (9, SIZE, SIZE, 3)]
    assert np.abs(films[1].astype(int) - 180).max() <= 2


def test_an_existing_set_is_not_generated_over(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(recorded.parent)]) == 2
    assert "already there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--size", "95", "95 is odd"),
        ("--processes", "0", "0 is below 1"),
        ("--noise", "2", "outside [0, 1]"),
        ("--wander", "-1", "outside [0, 1]"),
        ("--tasks", "juggle", "unknown task 'juggle'"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_reason(
    option: str, value: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), option, value])

    assert complaint in capsys.readouterr().err
