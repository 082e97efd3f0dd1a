"""The command line beside a running product, as somebody at a terminal uses it."""

from __future__ import annotations

import base64
import re
import socket
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.bundles import picture, png
from tests.cli.running import Running, free_port
from tests.journeys.product import Up, tectum
from tests.server.worker.serving import until

from tectum import Client

SAME = 1e-5


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(png(picture(seed)))
    return folder


def test_health_is_said_of_both(product: Up) -> None:
    for where in (["--worker", product.worker], ["--gateway", product.gateway]):
        done = tectum("health", *where)
        assert (done.returncode, done.stdout) == (0, "serving\n")


def test_models_are_listed_and_described(product: Up) -> None:
    with Client(product.worker) as client:
        model = client.get_model()
    listed = tectum("models", "--worker", product.worker)
    described = tectum("models", model.name, "--worker", product.worker)

    assert listed.returncode == described.returncode == 0
    assert f"{model.name} (default)" in listed.stdout
    assert model.version in listed.stdout
    assert all(space.space_id in listed.stdout for space in model.spaces)
    assert model.card.splitlines()[0].strip("# ") in described.stdout


def test_a_picture_has_one_vector_whichever_door_it_came_through(
    product: Up, pictures: Path, tmp_path: Path
) -> None:
    files = sorted(pictures.iterdir())
    out = tmp_path / "vectors.parquet"

    done = tectum("embed", pictures, "--out", out, "--worker", product.worker)
    with Client(product.worker) as client:
        by_file = client.embed_images(files)
        by_pixels = client.embed_images([picture(seed) for seed in range(3)])
    encoded = [base64.b64encode(file.read_bytes()).decode() for file in files]
    over_rest = product.http.post("/v1/embed/images", json={"images": encoded}).json()["results"]

    assert done.returncode == 0, done.stderr
    rows = pq.read_table(out).to_pylist()
    assert [row["path"] for row in rows] == [str(file) for file in files]
    assert {row["space_id"] for row in rows} == {by_file.space_id, by_pixels.space_id}
    assert {r["embedding"]["space_id"] for r in over_rest} == {by_file.space_id}
    for found in (
        [row["vector"] for row in rows],
        by_pixels.vectors,
        [result["embedding"]["values"] for result in over_rest],
    ):
        np.testing.assert_allclose(found, by_file.vectors, atol=SAME)


def test_a_short_bench_says_how_fast_it_was(product: Up) -> None:
    done = tectum("bench", "--worker", product.worker, "--seconds", 0.5, "--callers", 2)

    assert done.returncode == 0, done.stderr
    assert re.search(r"items/s answered, [\d.]+ in time, of \d+ calls: \d+ answered\n", done.stdout)
    assert "latency ms: p50" in done.stdout


def test_the_demo_shows_words_pictures_and_latent_actions(product: Up, tmp_path: Path) -> None:
    done = tectum("demo", "--worker", product.worker, "--pictures", tmp_path / "shown")

    assert done.returncode == 0, done.stderr
    for words in ("thinks is being done", "chance", "latent actions of an episode", "true action"):
        assert words in done.stdout
    written = {file.name: file.stat().st_size for file in (tmp_path / "shown").iterdir()}
    assert set(written) == {"reconstructions.png", "latent-actions.png"}
    assert min(written.values()) > 1000


# ---------------------------------------------------------------- one id from door to door


def test_a_callers_request_id_is_in_the_gateways_and_the_workers_log(product: Up) -> None:
    headers = {"X-Request-Id": "journey-1"}

    response = product.http.post("/v1/embed/texts", json={"texts": ["open it"]}, headers=headers)

    assert response.headers["x-request-id"] == "journey-1"
    assert response.json()["info"]["request_id"] == "journey-1"
    until(lambda: {"gateway", "worker.front"} <= logging_of(product, "journey-1"))


def test_so_is_that_of_a_request_that_is_refused(product: Up) -> None:
    headers = {"X-Request-Id": "journey-2"}

    response = product.http.post("/v1/embed/texts", json={"texts": [" "]}, headers=headers)

    assert response.json()["request_id"] == "journey-2"
    until(lambda: {"gateway", "worker.front"} <= logging_of(product, "journey-2"))


def logging_of(product: Up, request_id: str) -> set[str]:
    """Which processes' logs know a request."""
    return {line["process"] for line in product.logged() if line.get("request_id") == request_id}


# ---------------------------------------------------------------- ports that are taken


@pytest.mark.parametrize("flag", ["--port", "--gateway-port", "--metrics-port"])
def test_a_port_that_is_taken_is_named_with_the_flag_that_chooses_another(
    flag: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {
            "--port": free_port(), "--gateway-port": free_port(), "--metrics-port": free_port(),
        } | {flag: port}  # fmt: skip
        arguments = [part for pair in ports.items() for part in pair]

        with Running("up", *arguments, folder=tmp_path) as running:
            assert running.ended() == 1
            assert running.family() == []

    assert f"port {port} is in use; choose another with {flag}" in running.output
    assert "Traceback" not in running.output


def test_a_second_product_on_the_same_ports_leaves_the_first_alone(
    product: Up, tmp_path: Path
) -> None:
    ports = ["--port", product.port, "--gateway-port", product.gateway_port]

    with Running("up", *ports, folder=tmp_path) as second:
        assert second.ended() == 1
        assert second.family() == []

    assert f"port {product.port} is in use" in second.output
    assert product.http.get("/readyz").status_code == 200
