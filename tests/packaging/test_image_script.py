"""scripts/images.sh: which engine it takes, and what it asks of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.packaging.fake_engines import Engines


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


# ---------------------------------------------------------------- which engine


def test_docker_is_taken_before_podman_and_podman_before_buildah(engines: Engines) -> None:
    chosen = []
    for name in ("buildah", "podman", "docker"):
        engines.add(name)
        chosen.append(engines.images("--engine").stdout.strip())

    assert chosen == ["buildah", "podman", "docker"]


def test_a_docker_whose_daemon_does_not_answer_is_passed_over(engines: Engines) -> None:
    engines.add("docker", fails="info")
    engines.add("buildah")

    assert engines.images("--engine").stdout.strip() == "buildah"


def test_the_engine_can_be_named_or_be_a_path(engines: Engines) -> None:
    engines.add("docker")
    path = engines.add("podman")

    assert engines.images("--engine", ENGINE="podman").stdout.strip() == "podman"
    assert engines.images("--engine", ENGINE=str(path)).stdout.strip() == str(path)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("", "none of these answers: docker podman buildah"),
        ("docker", "none of these answers: docker"),
        ("kaniko", "ENGINE is docker, podman or buildah, not kaniko"),
    ],
)
def test_without_an_engine_it_says_what_it_looked_for(
    engines: Engines, engine: str, said: str
) -> None:
    result = engines.images(ENGINE=engine)

    assert result.returncode == 2
    assert said in result.stderr


# ---------------------------------------------------------------- what is built


def test_all_three_images_are_built_from_their_own_dockerfiles(engines: Engines) -> None:
    engines.add("docker")

    result = engines.images()

    assert result.returncode == 0, result.stderr
    assert [line.split("--build-arg")[0].strip() for line in engines.asked("build")] == [
        "docker build --file docker/worker.Dockerfile --tag tectum-worker:cpu",
        "docker build --file docker/gateway.Dockerfile --tag tectum-gateway:latest .",
        "docker build --file docker/train.Dockerfile --tag tectum-train:cpu",
    ]


def test_the_device_and_the_index_reach_those_that_have_torch(engines: Engines) -> None:
    engines.add("docker")

    engines.images(DEVICE="cuda", TORCH_INDEX="https://index.example/cuda")

    worker, gateway, train = engines.asked("build")
    for line in (worker, train):
        assert "--build-arg DEVICE=cuda" in line
        assert "--build-arg TORCH_INDEX=https://index.example/cuda" in line
    assert "--tag tectum-worker:cuda" in worker
    assert "DEVICE" not in gateway


def test_only_the_named_images_are_built(engines: Engines) -> None:
    engines.add("docker")

    engines.images("gateway")

    (line,) = engines.asked("build")
    assert "gateway.Dockerfile" in line


def test_tag_base_image_and_further_arguments_reach_the_engine(engines: Engines) -> None:
    engines.add("docker")

    engines.images(
        "gateway",
        TAG="0.1.0",
        PYTHON_IMAGE="example/python:3.11",
        BUILD_ARGS="--no-cache  --volume *:/here",
    )

    (line,) = engines.asked("build")
    assert "--tag tectum-gateway:0.1.0 --build-arg PYTHON_IMAGE=example/python:3.11" in line
    assert line.endswith("--no-cache --volume *:/here .")


@pytest.mark.parametrize("engine", ["podman", "buildah"])
def test_an_engine_with_a_format_of_its_own_is_asked_for_the_one_with_healthchecks(
    engines: Engines, engine: str
) -> None:
    engines.add(engine)

    engines.images("worker")

    (line,) = engines.asked("build")
    assert "--format docker" in line


@pytest.mark.parametrize(("engine", "size"), [("docker", "1305 MB"), ("buildah", "1.31 GB")])
def test_each_image_is_told_with_its_name_size_and_time(
    engines: Engines, engine: str, size: str
) -> None:
    engines.add(engine)

    told = [line.split() for line in engines.images().stdout.splitlines() if line]

    assert [line[0] for line in told] == [
        "tectum-worker:cpu", "tectum-gateway:latest", "tectum-train:cpu",
    ]  # fmt: skip
    assert {" ".join(line[1:3]) for line in told} == {size}
    assert all(line[4] == "min" and line[6] == "s" for line in told)


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("worker",), {"DEVICE": "gpu"}, "DEVICE is cpu or cuda, not gpu"),
        (("worker", "web"), {}, "there is no image web, only: worker gateway train"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_built(
    engines: Engines, arguments: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    engines.add("docker")

    result = engines.images(*arguments, **environment)

    assert result.returncode == 2
    assert said in result.stderr
    assert not engines.asked("build")


def test_a_failed_build_ends_it_with_the_engines_status(engines: Engines) -> None:
    engines.add("docker", fails="build")

    result = engines.images()

    assert result.returncode == 7
    assert len(engines.asked("build")) == 1
