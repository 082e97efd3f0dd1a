"""What a host lacks for what failed, and whether it still does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tectum_server.worker.engine.models.lacking import is_lacking, what_lacks


class InductorError(RuntimeError):
    """As torch's: it has what it came of in a field."""

    def __init__(self, inner: Exception) -> None:
        super().__init__("the compiler failed")
        self.inner_exception = inner


class TritonMissing(RuntimeError):
    """As torch's."""


def caused(cause: Exception) -> RuntimeError:
    """An error that came of another."""
    error = RuntimeError("it failed")
    error.__cause__ = cause
    return error


CXX = RuntimeError("No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')")


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (CXX, "a C++ compiler"),
        (InductorError(CXX), "a C++ compiler"),
        (caused(InductorError(CXX)), "a C++ compiler"),
        (RuntimeError("Failed to find C compiler. Please specify via CC"), "a C compiler"),
        (ModuleNotFoundError("No module named 'x'", name="x"), "the module x"),
        (InductorError(TritonMissing("Cannot find a working triton")), "the module triton"),
        (MemoryError(), ""),
        (RuntimeError("CUDA out of memory"), ""),
        (InductorError(OSError("No space left on device")), ""),
    ],
)
def test_a_compiler_or_a_module_lasts_and_whatever_else_may_pass(
    error: Exception, lacks: str
) -> None:
    assert what_lacks(error) == lacks


def test_an_error_that_came_of_itself_is_looked_at_once() -> None:
    error = RuntimeError("it failed")
    error.__context__ = caused(error)

    assert what_lacks(error) == ""


def test_a_module_lacks_until_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    before = [is_lacking("the module new_here"), is_lacking("the module new_here.inner")]
    (tmp_path / "new_here.py").touch()

    assert before == [True, True]
    assert not is_lacking("the module new_here")


@pytest.mark.parametrize(("what", "variable"), [("a C++ compiler", "CXX"), ("a C compiler", "CC")])
def test_a_compiler_lacks_until_the_one_that_is_named_or_a_usual_one_is_there(
    what: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    named = is_lacking(what)
    monkeypatch.delenv(variable)
    usual = is_lacking(what)
    for name in ("clang", "clang++"):
        (tmp_path / name).touch(0o755)

    assert named
    assert usual
    assert not is_lacking(what)
