"""Commands that ask a worker behind TLS, with its roots and without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.bundles import picture
from tests.checkout import ROOT
from tests.cli.running import Worker, invoke

TLS = ROOT / "tests" / "fixtures" / "tls"
ROOTS = TLS / "certificate.pem"
SHORT = ("--seconds", 0.3, "--warmup", 0, "--size", 32)


@pytest.fixture(scope="module")
def behind(repository: Path) -> Iterator[str]:
    """The address of a worker that serves `tiny` by TLS alone."""
    with Worker(repository, "tiny", tls_certificate=ROOTS, tls_key=TLS / "key.pem") as worker:
        yield worker.address


@pytest.mark.parametrize("command", [("models",), ("health",), ("bench", *SHORT)], ids=str)
def test_a_command_reaches_a_worker_behind_tls_by_its_roots(
    behind: str, command: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = invoke(*command, "--worker", behind, "--roots", ROOTS)
    monkeypatch.setenv("TECTUM_WORKER_ROOTS", str(ROOTS))
    by_variable = invoke(*command, "--worker", behind)

    assert found.exit_code == by_variable.exit_code == 0
    assert "serving" in found.output or "tiny" in found.output


@pytest.mark.parametrize("flags", [(), ("--tls",)])
def test_without_its_roots_it_is_not_reached(behind: str, flags: tuple[str, ...]) -> None:
    found = invoke("health", "--worker", behind, "--timeout", 1, *flags)

    assert found.exit_code == 1
    assert f"{behind} does not serve" in found.stderr


def test_pictures_are_embedded_behind_tls(behind: str, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "one.png")
    out = tmp_path / "vectors.parquet"

    found = invoke(
        "embed", tmp_path / "one.png", "--out", out, "--worker", behind,
        "--roots", ROOTS,
    )  # fmt: skip

    assert found.exit_code == 0
    assert len(pq.read_table(out)) == 1


@pytest.mark.parametrize(
    "whom", [("--worker", "127.0.0.1:1"), ("--gateway", "127.0.0.1:1"), ("--gateway", "https://x")]
)
def test_roots_that_are_not_there_are_named(tmp_path: Path, whom: tuple[str, str]) -> None:
    found = invoke("bench", *SHORT, *whom, "--roots", tmp_path / "nothing.pem")

    assert found.exit_code == 1
    assert "cannot read" in found.stderr
    assert "nothing.pem" in found.stderr
