"""docker/check_images.py before an engine that lets it down.

What it says of a real one is `make images-test`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.packaging.fake_engines import Engines

CHECK = (sys.executable, "docker/check_images.py", "--no-build")


def test_what_was_started_is_removed_when_a_start_fails(tmp_path: Path) -> None:
    engines = Engines(tmp_path)
    docker = engines.add("docker", fails="run")

    result = engines.run(*CHECK, ENGINE=str(docker))

    assert result.returncode == 1, result.stderr
    (created,) = engines.asked("network")[:1]
    network = created.split()[-1]
    removed = [line for line in engines.asked("rm", "network") if line != created]
    assert removed == [
        f"docker rm --force {network}-worker",
        f"docker network rm {network}",
    ]


def test_a_check_that_could_not_be_made_fails(tmp_path: Path) -> None:
    engines = Engines(tmp_path)
    docker = engines.add("docker", fails="run")

    result = engines.run(*CHECK, ENGINE=str(docker))

    lines = [line for line in result.stdout.splitlines() if line.startswith(("PASS", "FAIL"))]
    assert any("run ended with 7" in line for line in lines)
    assert not [line for line in lines if line.startswith("PASS")]


def test_buildah_alone_cannot_run_what_it_built(tmp_path: Path) -> None:
    engines = Engines(tmp_path)
    buildah = engines.add("buildah")

    result = engines.run(*CHECK, ENGINE=str(buildah))

    assert result.returncode == 1
    assert "buildah builds, but podman runs" in result.stderr
