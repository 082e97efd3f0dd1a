"""The command as a whole: its help, its version, and what it needs installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests.cli.running import invoke, run_without

from tectum import __version__
from tectum_cli import extras, main
from tectum_cli.app import app
from tectum_cli.extras import fail, needs

GROUP = typer.main.get_command(app)
COMMANDS = sorted(getattr(GROUP, "commands"))  # noqa: B009


def command(name: str) -> object:
    return getattr(GROUP, "commands")[name]  # noqa: B009


# ---------------------------------------------------------------- its end


def test_as_it_ends_nothing_is_looked_through_for_garbage() -> None:
    program = """
import atexit, gc, sys
atexit.register(lambda: print(len(gc.get_objects()) < 1000 < gc.get_freeze_count()))
from tectum_cli import main
sys.argv = ["tectum", "models", "--help"]
main()"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout.endswith("True\n")


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize(("given", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None, kept: str
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(sys, "argv", ["tectum", "--version"])

    with pytest.raises(SystemExit):
        main()

    assert os.environ["OMP_WAIT_POLICY"] == kept


# ---------------------------------------------------------------- help


def test_alone_it_shows_its_commands() -> None:
    output = invoke().output

    assert "Pretrain compact vision-language-action representations" in output
    assert all(name in output for name in COMMANDS)


def test_the_commands_are_those_of_the_documents() -> None:
    assert COMMANDS == [
        "bench", "demo", "embed", "eval", "gateway", "health", "models", "publish", "serve",
        "train", "up",
    ]  # fmt: skip


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_each_option(name: str, flag: str) -> None:
    result = invoke(name, flag)
    told = " ".join(result.output.split())

    assert result.exit_code == 0
    for parameter in command(name).params:  # type: ignore[attr-defined]
        if parameter.name == "help":
            continue
        argument = parameter.metavar or parameter.name
        shown = parameter.opts[0] if parameter.param_type_name == "option" else argument
        assert shown in told
        assert parameter.help, f"{shown} is not explained"
        assert parameter.help in told


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_sentence_in_the_list(name: str) -> None:
    listed = invoke("--help").output

    summary = command(name).help.split("\n")[0]  # type: ignore[attr-defined]
    assert summary[:40] in listed


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)])
def test_help_fits_a_terminal_of_eighty_columns_and_cuts_no_word(arguments: list[str]) -> None:
    _, *lines = invoke(*arguments, "--help").output.splitlines()

    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.endswith("...")] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_calls_values_by_plain_words(name: str) -> None:
    output = invoke(name, "--help").output

    assert re.findall(r"<(?:str|int|float|path|list)[^>]*>", output) == []
    assert re.findall("[{}]", output.splitlines()[0]) == []
    for parameter in command(name).params:  # type: ignore[attr-defined]
        if parameter.param_type_name == "option" and not parameter.is_flag:
            assert re.search(rf"{parameter.opts[0]} [A-Z=]+\s", output)


def test_arguments_are_named_in_the_usage() -> None:
    for name, usage in (
        ("embed", "[OPTIONS] PATH...\n"),
        ("eval", "[OPTIONS] FOLDER...\n"),
        ("train", "[OPTIONS] [RECIPE]\n"),
        ("publish", "[OPTIONS] FOLDER\n"),
    ):
        assert f"{name} {usage}" in invoke(name, "--help").output


def test_help_works_where_nothing_heavy_is_installed() -> None:
    heavy = ["torch", "fastapi", "av", "matplotlib", "pyarrow", "yaml", "PIL", "grpc"]

    for arguments in (["--help"], ["serve", "--help"], ["train", "--help"]):
        done = run_without(heavy, *arguments)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments", [["fly"], ["serve", "--prot", "1"], ["serve", "--port", "many"], ["embed"]]
)
def test_what_is_not_understood_is_answered_with_usage(arguments: list[str]) -> None:
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_the_version_is_the_sdks() -> None:
    result = invoke("--version")

    assert result.exit_code == 0
    assert result.output == f"tectum {__version__}\n"


# ---------------------------------------------------------------- extras


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_the_base_install_says_which_extra_brings_the_command(missing: str) -> None:
    done = run_without([missing], "--help")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"tectum: the command needs the cli extra ({missing} is missing): "
        "install tectum[cli], in a checkout with pip install '.[cli]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["train", "tectum-tiny"], "torch", "train"),
        (["train", "--list"], "yaml", "train"),
        (["eval", "folder"], "torch", "train"),
        (["demo"], "pyarrow", "train"),
        (["serve"], "msgspec", "worker"),
        (["serve"], "prometheus_client", "worker"),
        (["gateway"], "fastapi", "gateway"),
        (["gateway"], "uvicorn", "gateway"),
        (["embed", "x.png", "--out", "y"], "pyarrow", "cli"),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(
    arguments: list[str], missing: str, extra: str, tmp_path: Path
) -> None:
    done = run_without([missing], *arguments)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (
        f"this command needs the {extra} extra ({missing} is missing): "
        f"install tectum[{extra}], in a checkout with pip install '.[{extra}]'"
    ) in done.stderr


def test_needs_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, needs("train"):
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

    assert ended.value.exit_code == 1
    assert "(torch.nn is missing): install tectum[train], in a ch" in capsys.readouterr().err


def test_a_hole_in_our_own_house_is_not_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError), needs("train"):
        raise ModuleNotFoundError("No module named 'tectum_core.gone'", name="tectum_core.gone")


def test_other_errors_pass_through() -> None:
    with pytest.raises(ImportError, match="half a library"), needs("train"):
        raise ImportError("half a library")


@pytest.mark.parametrize(
    "message", ["found [/tmp/x.png] and [red]", "a [/closing] tag", "pip install '.[cli]'"]
)
def test_a_message_is_told_as_it_is(message: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended = fail(message, 3)

    assert ended.exit_code == 3
    assert capsys.readouterr().err == f"tectum: {message}\n"


def test_messages_go_to_standard_error() -> None:
    assert extras.errors.stderr
    assert not extras.console.stderr
