"""The folder on disk: whole, or refused with the file and the reason."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.bundles import full_model, tokenizer, write_bare, write_full

from tectum_core.bundle import Bundle, BundleError, files, read_bundle, write_bundle
from tectum_core.bundle.files import content_version
from tectum_core.predictor import Predictor

FILES = ("config.json", "model.safetensors", "golden.safetensors", "tokenizer.json", "README.md")
WEIGHTS = "model.safetensors"


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read_bundle(folder, "arm")
    words = str(caught.value)
    assert words.startswith("arm")  # whose bundle it is
    return words


def test_what_is_written_is_what_is_read(full_folder: Path, full_bundle: Bundle) -> None:
    again = read_bundle(full_folder, "again")

    assert again.config == full_bundle.config
    assert again.version == full_bundle.version == content_version(full_folder)
    assert again.golden_texts == ("open the drawer", "close the door", "push the red button")
    assert again.card.startswith("# Untrained")
    assert not again.model.training
    assert not any(parameter.requires_grad for parameter in again.model.parameters())
    for key, value in full_bundle.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value)


def test_reading_and_writing_again_gives_the_same_version(
    full_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = full_bundle

    version = write_bundle(
        tmp_path / "copy",
        bundle.config,
        bundle.model,
        bundle.tokenizer,
        bundle.golden,
        bundle.golden_texts,
        bundle.card,
    )

    assert version == bundle.version
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]  # no scratch is left


def test_equal_seeds_make_equal_bundles_and_others_do_not(tmp_path: Path) -> None:
    versions = [write_bare(tmp_path / str(place), seed) for place, seed in enumerate((1, 1, 2))]

    assert versions[0] == versions[1] != versions[2]


def test_no_file_holds_a_pickle(full_folder: Path) -> None:
    assert {path.name for path in full_folder.iterdir()} == set(FILES)
    for path in full_folder.iterdir():
        head = path.read_bytes()[:2]
        assert head[:1] != b"\x80"  # pickle's protocol opcode
        assert head != b"PK"  # a zip, as torch.save writes


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()

    assert f"{name} is missing" in refusal(folder)


def test_a_bundle_without_text_needs_no_tokenizer(bare_folder: Path) -> None:
    assert not (bare_folder / "tokenizer.json").exists()
    assert read_bundle(bare_folder, "bare").tokenizer is None


def test_content_that_is_not_its_version_is_refused(folder: Path) -> None:
    version = content_version(folder)
    (folder / "README.md").write_text("# Better\n")

    with pytest.raises(BundleError, match=f"hashes to {content_version(folder)}, not .* {version}"):
        read_bundle(folder, "arm", version)


@pytest.mark.parametrize("name", FILES)
def test_every_file_counts_in_the_version(folder: Path, name: str) -> None:
    before = content_version(folder)

    (folder / name).write_bytes((folder / name).read_bytes() + b" ")

    assert content_version(folder) != before


def test_files_that_are_not_the_bundles_do_not_count(folder: Path) -> None:
    before = content_version(folder)

    (folder / "notes.txt").write_text("hello")

    assert content_version(folder) == before


@pytest.mark.parametrize("name", [WEIGHTS, "golden.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named(folder: Path, name: str, share: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * share)])

    assert name in refusal(folder)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_anywhere_is_refused_or_harmless_but_never_a_surprise(
    full_folder: Path, tmp_path: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(FILES))
    content = bytearray((full_folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Headers come first and matter most.
        place = data.draw(st.integers(0, min(2000, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(full_folder, folder)
    (folder / name).write_bytes(content)

    with contextlib.suppress(BundleError):  # anything else is a surprise
        assert read_bundle(folder, "arm").version == content_version(folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"[]", "config.json: the whole"),
        ("config.json", b"not json", "config.json"),
        (WEIGHTS, b"\x80\x04\x95pickle", WEIGHTS),
        ("golden.safetensors", b"", "golden.safetensors"),
        ("tokenizer.json", b"{}", "tokenizer.json: not a tokenizer"),
        ("tokenizer.json", b"\xff\xfe", "tokenizer.json"),
        ("README.md", b"\xff\xfe", "README.md"),
    ],
)
def test_a_file_of_something_else_is_named(
    folder: Path, name: str, content: bytes, words: str
) -> None:
    (folder / name).write_bytes(content)

    assert words in refusal(folder)


def test_golden_texts_that_are_no_list_are_named(folder: Path) -> None:
    path = folder / "golden.safetensors"
    save_file(load_file(path), path, metadata={"texts": "open the drawer"})

    assert "golden.safetensors" in refusal(folder)


def test_golden_texts_nested_without_end_are_named(folder: Path) -> None:
    path = folder / "golden.safetensors"
    save_file(load_file(path), path, metadata={"texts": "[" * 100_000})

    assert "golden.safetensors: its texts are no JSON" in refusal(folder)


def test_a_file_that_cannot_be_read_is_a_refusal_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path) -> str:
        raise PermissionError("[Errno 13] Permission denied: 'README.md'")

    monkeypatch.setattr(files, "content_version", denied)

    assert "Permission denied: 'README.md'" in refusal(folder)


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    """What new files are not allowed, as the user has set it."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_whoever_may_read_new_files_may_read_every_file_of_a_bundle(
    tmp_path: Path, mask: int
) -> None:
    write_full(tmp_path / "b")

    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "b").iterdir()}
    assert modes == dict.fromkeys(FILES, 0o666 & ~mask)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o777 & ~mask


def test_an_unknown_key_in_the_configuration_is_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["vision"]["flips"] = True
    (folder / "config.json").write_text(json.dumps(config))

    assert "config.json: model.vision.flips: Extra inputs" in refusal(folder)


KEY = "vision.embed.weight"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda w: w.pop(KEY), f"model.safetensors lacks {KEY}"),
        (
            lambda w: w.update({"world_model.embed_action.weight": torch.ones(2)}),
            "model.safetensors is of an older version (world_model.embed_action.weight)",
        ),
        (
            lambda w: w.update({"vision.extra": torch.ones(2)}),
            "has vision.extra, which the architecture does not",
        ),
        (
            lambda w: w.update({KEY: w[KEY][:5].clone()}),
            r"vision.embed.weight has shape (5, 192), the architecture wants (32, 192)",
        ),
        (lambda w: w[KEY].__setitem__((0, 0), float("nan")), f"{KEY} has numbers that are not"),
        (lambda w: w[KEY].__setitem__((0, 0), float("inf")), f"{KEY} has numbers that are not"),
    ],
)
def test_weights_that_do_not_fit_the_architecture_are_named(
    folder: Path, edit: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    weights = load_file(folder / WEIGHTS)
    edit(weights)
    save_file(weights, folder / WEIGHTS)

    assert words in refusal(folder)


def test_a_tokenizer_larger_than_the_models_vocabulary_is_refused(tmp_path: Path) -> None:
    text = full_model().text
    assert text is not None
    larger = text.model_copy(update={"vocabulary_size": tokenizer().vocabulary_size + 9})
    write_full(tmp_path / "large", text=larger)
    read_bundle(tmp_path / "large", "arm")  # room to spare is fine
    config = json.loads((tmp_path / "large" / "config.json").read_text())
    config["model"]["text"]["vocabulary_size"] = 10
    (tmp_path / "large" / "config.json").write_text(json.dumps(config))

    last = tokenizer().vocabulary_size - 1
    assert f"tokenizer's ids go up to {last}, the model has only 10 entries" in refusal(
        tmp_path / "large"
    )


def test_it_is_the_largest_id_that_must_fit_not_the_number_of_entries(folder: Path) -> None:
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text())
    told["model"]["vocab"]["zebra"] = told["model"]["vocab"].pop("drawer") + 5000
    path.write_text(json.dumps(told))

    assert "ids go up to 50" in refusal(folder)


def test_ids_that_no_entry_has_but_the_template_adds_must_fit_too(folder: Path) -> None:
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text())
    told["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [900]
    path.write_text(json.dumps(told))

    assert "ids go up to 900" in refusal(folder)


def test_a_gap_in_the_ids_is_room_that_is_not_used(folder: Path, tmp_path: Path) -> None:
    text = full_model().text
    assert text is not None
    write_full(tmp_path / "b", text=text.model_copy(update={"vocabulary_size": 200}))
    path = tmp_path / "b" / "tokenizer.json"
    told = json.loads(path.read_text())
    told["model"]["vocab"]["zebra"] = 199
    path.write_text(json.dumps(told))

    bundle = read_bundle(tmp_path / "b", "b")

    assert bundle.tokenizer is not None
    assert bundle.tokenizer.vocabulary_size == 200
    assert Predictor(bundle).embed_texts(["zebra"]).shape == (1, 16)


def test_a_folder_that_exists_is_not_overwritten(bare_folder: Path) -> None:
    before = content_version(bare_folder)

    with pytest.raises(OSError, match="not empty"):
        write_bare(bare_folder, seed=9)

    assert content_version(bare_folder) == before
    assert not list(bare_folder.parent.glob(".writing-*"))
