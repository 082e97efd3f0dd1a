"""Commands that ask a worker behind TLS, with its roots and without."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.bundles import picture
from tests.cli.running import Worker, invoke


@dataclass(frozen=True)
class Behind:
    """A worker that speaks TLS alone."""

    address: str
    roots: Path


@pytest.fixture(scope="module")
def behind(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """One that serves `tiny`, by a certificate of its own for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    roots, key = folder / "roots.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=worker", "-keyout", key, "-out", roots),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    with Worker(repository, "tiny", tls_certificate=roots, tls_key=key) as worker:
        yield Behind(worker.address, roots)


SHORT = ("--seconds", 0.3, "--warmup", 0, "--size", 32)


@pytest.mark.parametrize("command", [("models",), ("health",), ("bench", *SHORT)], ids=str)
def test_a_command_reaches_a_worker_behind_tls_by_its_roots(
    behind: Behind, command: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = invoke(*command, "--worker", behind.address, "--roots", behind.roots)
    monkeypatch.setenv("TECTUM_WORKER_ROOTS", str(behind.roots))
    by_variable = invoke(*command, "--worker", behind.address)

    assert found.exit_code == by_variable.exit_code == 0
    assert "serving" in found.output or "tiny" in found.output


@pytest.mark.parametrize("flags", [(), ("--tls",)])
def test_without_its_roots_it_is_not_reached(behind: Behind, flags: tuple[str, ...]) -> None:
    found = invoke("health", "--worker", behind.address, "--timeout", 1, *flags)

    assert found.exit_code == 1
    assert f"{behind.address} does not serve" in found.stderr


def test_pictures_are_embedded_behind_tls(behind: Behind, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "one.png")
    out = tmp_path / "vectors.parquet"

    found = invoke(
        "embed", tmp_path / "one.png", "--out", out, "--worker", behind.address,
        "--roots", behind.roots,
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
