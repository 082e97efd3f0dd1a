"""Dockerfiles, .dockerignore and compose files: that what they name exists, without an engine."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tests.checkout import ROOT, files
from tests.packaging.fake_engines import Engines
from typer.core import TyperCommand, TyperGroup

from tectum_cli.app import app
from tectum_cli.gateway import PREFIX
from tectum_server.gateway import GatewaySettings
from tectum_server.worker.settings import WorkerSettings

DOCKER = ROOT / "docker"
DOCKERFILES = sorted(path.name for path in DOCKER.glob("*.Dockerfile"))
COMPOSE = sorted(path.name for path in DOCKER.glob("compose*.yaml"))

Instruction = tuple[str, str]


@cache
def stages(name: str) -> list[list[Instruction]]:
    """A Dockerfile's instructions, stage by stage: (INSTRUCTION, arguments)."""
    text = (DOCKER / name).read_text(encoding="utf-8")
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    found: list[list[Instruction]] = [[]]
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest.strip()))
    return found[1:]


def copied(name: str) -> list[str]:
    """What a Dockerfile takes from the repository."""
    return [
        source
        for stage in stages(name)
        for word, rest in stage
        if word == "COPY" and not rest.startswith("--from")
        for source in shlex.split(rest)[:-1]
    ]


def last(name: str, word: str) -> list[str]:
    """The arguments of an instruction in the stage that becomes the image."""
    return [rest for found, rest in stages(name)[-1] if found == word]


def commands(name: str) -> list[list[str]]:
    """What the image runs by itself: its entry point and its health check."""
    lines = last(name, "ENTRYPOINT") + last(name, "HEALTHCHECK")
    return [json.loads(line[line.index("[") :]) for line in lines if "[" in line]


def sent(path: str) -> bool:
    """Whether .dockerignore lets a file through: its last pattern that fits decides."""
    places = [path, *(parent.as_posix() for parent in Path(path).parents)]
    through = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split():
        pattern = re.escape(line.removeprefix("!"))
        pattern = pattern.replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, place) for place in places):
            through = line.startswith("!")
    return through


def below(path: str, sources: list[str]) -> bool:
    """Whether a file is one of `sources` or lies in one."""
    return any(path == source or path.startswith(f"{source}/") for source in sources)


def verbs() -> dict[str, TyperCommand]:
    """What follows `tectum` on its command line."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return {name: verb for name, verb in group.commands.items() if isinstance(verb, TyperCommand)}


def compose(name: str) -> dict[str, Any]:
    """A compose file's services."""
    services: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))
    return dict(services["services"])


# ---------------------------------------------------------------- what goes in


@pytest.mark.parametrize("name", DOCKERFILES)
def test_whatever_a_dockerfile_copies_exists(name: str) -> None:
    assert copied(name)
    assert [source for source in copied(name) if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("name", DOCKERFILES)
def test_whatever_the_wheel_is_built_from_is_copied(name: str) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        read = tomllib.load(file)
    needed = [
        "pyproject.toml",
        read["project"]["readme"],
        *read["project"]["license-files"],
        *read["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
    ]

    assert [path for path in needed if not below(path, copied(name))] == []


def test_the_engine_is_sent_what_is_copied_and_nothing_else() -> None:
    sources = [source for name in DOCKERFILES for source in copied(name)]

    assert [path for path in files() if sent(path) != below(path, sources)] == []


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_made_in_stages_and_its_user_is_not_root(name: str) -> None:
    assert len(stages(name)) == 2
    assert last(name, "USER") == ["10001"]
    assert not [rest for rest in last(name, "RUN") if "pip" in rest or "apt" in rest]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_runs_is_a_command_with_options_that_exist(name: str) -> None:
    assert commands(name)
    for program, verb, *arguments in commands(name):
        assert program == "tectum"
        verbs()[verb].make_context(verb, arguments)


@pytest.mark.parametrize("name", ["worker.Dockerfile", "gateway.Dockerfile"])
def test_a_server_says_whether_it_is_healthy(name: str) -> None:
    assert [command[1] for command in commands(name)][1:] == ["health"]


def test_every_variable_that_is_set_is_one_that_a_command_reads() -> None:
    named = [parameter.envvar for command in verbs().values() for parameter in command.params]
    read = {
        name for names in named for name in ([names] if isinstance(names, str) else names or ())
    }
    read |= {f"{PREFIX}{name.upper()}" for name in GatewaySettings.model_fields}
    files = [DOCKER / name for name in (*DOCKERFILES, *COMPOSE)]

    found = {
        variable
        for file in files
        for variable in re.findall(r"\bTECTUM_\w+", file.read_text(encoding="utf-8"))
    }
    assert found
    assert found <= read


# ---------------------------------------------------------------- side by side


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_names_the_images_that_make_images_makes(name: str, tmp_path: Path) -> None:
    engines = Engines(tmp_path)
    for service, settings in compose(name).items():
        if "build" in settings:
            device = settings["build"].get("args", {}).get("DEVICE", "cpu")
            made = engines.images("--name", service, DEVICE=device).stdout.strip()
            assert made in (settings["image"], f"{settings['image']}:latest")


def test_what_compose_builds_and_mounts_exists() -> None:
    for settings in compose("compose.yaml").values():
        if "build" in settings:
            context = DOCKER / settings["build"]["context"]
            assert context.resolve() == ROOT
            assert (context / settings["build"]["dockerfile"]).is_file()
        for volume in settings.get("volumes", []):
            if volume.startswith("."):
                assert (DOCKER / volume.split(":")[0]).is_file()


def test_what_a_worker_keeps_outlasts_its_container() -> None:
    settings = " ".join(last("worker.Dockerfile", "ENV")).split()
    (base,) = [one.partition("=")[2] for one in settings if one.startswith("XDG_CACHE_HOME=")]
    (volume,) = compose("compose.yaml")["worker"]["volumes"]
    name, _, place = volume.partition(":")
    read = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))

    assert place == f"{base}/tectum"
    assert name in read["volumes"]
    assert any(f"-o tectum {place}" in rest for rest in last("worker.Dockerfile", "RUN"))


def test_every_service_is_hardened() -> None:
    for service, settings in compose("compose.yaml").items():
        assert settings["read_only"] is True, service
        assert settings["cap_drop"] == ["ALL"], service
        assert settings["security_opt"] == ["no-new-privileges:true"], service
        assert all(port.startswith("127.0.0.1:") for port in settings["ports"]), service


@pytest.mark.parametrize(
    ("service", "drain"),
    [
        ("worker", WorkerSettings.model_fields["drain_timeout"].default),
        ("gateway", GatewaySettings.model_fields["shutdown_seconds"].default),
    ],
)
def test_a_service_may_take_as_long_to_end_as_it_takes_to_drain(service: str, drain: float) -> None:
    grace = compose("compose.yaml")[service]["stop_grace_period"]

    assert int(grace.removesuffix("s")) >= drain + 10


def test_the_images_check_stops_a_service_as_compose_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCKER)
    from check_images import grace

    for service, settings in compose("compose.yaml").items():
        assert f"{grace(service)}s" == settings.get("stop_grace_period", "10s")
    assert grace("gateway") > 10


def test_what_changes_for_a_gpu_changes_a_service_that_is_there() -> None:
    assert set(compose("compose.gpu.yaml")) <= set(compose("compose.yaml"))


def test_prometheus_scrapes_services_of_this_network_at_ports_they_have() -> None:
    read = yaml.safe_load((DOCKER / "prometheus.yml").read_text(encoding="utf-8"))
    targets = [target for job in read["scrape_configs"]
               for group in job["static_configs"] for target in group["targets"]]  # fmt: skip

    assert targets
    for target in targets:
        service, port = target.split(":")
        assert service in compose("compose.yaml")
        (exposed,) = last(f"{service}.Dockerfile", "EXPOSE")
        assert port in exposed.split()
