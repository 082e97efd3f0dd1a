"""What those who run the gateway see: probes, metrics, logs, headers, documentation."""

import json
import logging
import re
import subprocess
import sys
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from grpc_health.v1 import health_pb2
from prometheus_client.parser import text_string_to_metric_families
from tests.client.fake_errors import R
from tests.client.fake_worker import FakeWorker
from tests.journeys.openapi import Documentation

import tectum
from tectum_server.gateway import GatewaySettings, create_app, examples
from tectum_server.logs import set_up_logs

TEXTS = {"texts": ["a"]}


async def measured(http: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """How many requests each route answered with each code."""
    text = (await http.get("/metrics")).text
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples]
    name = "tectum_gateway_request_duration_seconds_count"
    return {(s.labels["route"], s.labels["code"]): s.value for s in samples if s.name == name}


async def test_alive_says_nothing_about_the_worker(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    worker.__exit__()

    assert (await http.get("/healthz")).json() == {"status": "alive"}


async def test_ready_follows_the_worker(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    assert (await http.get("/readyz")).status_code == 200
    worker.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    not_serving = await http.get("/readyz")
    worker.__exit__()
    gone = await http.get("/readyz")

    for response in (not_serving, gone):
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/problem+json"
        assert worker.address in response.json()["detail"]


async def test_ready_may_follow_one_model(worker: FakeWorker) -> None:
    app = create_app(GatewaySettings(worker_address=worker.address, readiness_model="tiny"))
    worker.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as http,
    ):
        assert (await http.get("/readyz")).status_code == 200


async def test_metrics_are_labelled_by_template_and_code(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    await http.post("/v1/embed/texts", json=TEXTS)
    worker.refuse(R.ERROR_REASON_QUEUE_FULL, retry_after=1)
    await http.post("/v1/embed/texts", json=TEXTS)
    await http.get("/v1/models/tiny")
    await http.get("/v1/models/nobody")
    for path in ("/docs", "/docs/swagger-ui.css", "/docs/nothing.css", "/" + "x" * 100):
        await http.get(path)
    await http.get("/v1/embed/texts")

    counted = await measured(http)

    assert counted == {
        ("/v1/embed/texts", "200"): 1,
        ("/v1/embed/texts", "429"): 1,
        ("/v1/embed/texts", "405"): 1,
        ("/v1/models/{name}", "200"): 1,
        ("/v1/models/{name}", "404"): 1,
        ("/docs", "200"): 1,
        ("/docs/{file}", "200"): 1,
        ("/docs/{file}", "404"): 1,
        ("unmatched", "404"): 1,
    }


async def test_metrics_count_what_is_in_flight(http: httpx.AsyncClient) -> None:
    text = (await http.get("/metrics")).text

    assert "tectum_gateway_requests_in_flight 1.0" in text, "the scrape itself"


async def test_each_request_is_one_log_line_with_its_id(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tectum_server.gateway")
    await http.post("/v1/embed/texts", json=TEXTS, headers={"X-Request-Id": "mine-1"})
    await http.get("/healthz")

    (line,) = [vars(r) for r in caplog.records if r.name == "tectum_server.gateway"]
    assert line["request_id"] == "mine-1"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/embed/texts", 200)
    assert line["duration_ms"] > 0
    assert line["response_bytes"] > 0


async def test_a_log_line_is_json(
    http: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        set_up_logs("gateway", "info")
        await http.post("/v1/embed/texts", json=TEXTS, headers={"X-Request-Id": "mine-2"})
    finally:
        root.handlers, root.level = handlers, level

    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if "mine-2" in line]
    assert [line["status"] for line in lines] == [200]


async def test_a_worker_out_of_reach_is_logged_once_and_once_when_it_is_back(
    http: httpx.AsyncClient, app: FastAPI, worker: FakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        found = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert {vars(r)["worker"] for r in found} <= {worker.address}
        return [r.getMessage() for r in found]

    await http.post("/v1/embed/texts", json=TEXTS)
    worker.refuse(R.ERROR_REASON_DRAINING, retry_after=1)  # it answers, if only with a refusal
    await http.post("/v1/embed/texts", json=TEXTS)
    assert warnings() == []

    reached = app.state.client.embed_texts
    app.state.client.embed_texts = gone
    for path in ("/v1/embed/texts", "/v1/embed/texts", "/v1/embed/texts"):
        assert (await http.post(path, json=TEXTS)).status_code == 503
    await http.post("/v1/embed/texts", json={"texts": []})  # no word of the worker's
    assert warnings() == ["the worker cannot be reached"]

    app.state.client.embed_texts = reached
    await http.post("/v1/embed/texts", json=TEXTS)
    await http.get("/readyz")
    assert warnings() == ["the worker cannot be reached", "the worker answers again"]


async def gone(*_: Any, **__: Any) -> Any:
    """A call of a worker that nobody answers for."""
    raise tectum.Unavailable("no worker answers", request_id="a-1")


async def test_probes_find_a_worker_out_of_reach_too(
    http: httpx.AsyncClient, worker: FakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.__exit__()

    for _ in range(2):
        await http.get("/readyz")

    found = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert found == ["the worker cannot be reached"]


def test_uvicorns_colours_stay_out_of_the_log() -> None:
    code = (
        "import os, signal, threading\n"
        "from tectum_server.gateway import GatewaySettings, serve\n"
        "threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "serve(GatewaySettings(port=0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert "uvicorn.error" in {line["logger"] for line in lines}
    assert not any("color_message" in line for line in lines)


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "semi;colon"])
async def test_a_request_id_that_no_log_should_hold_is_replaced(
    given: str, http: httpx.AsyncClient
) -> None:
    response = await http.get("/healthz", headers={"X-Request-Id": given})

    assert response.headers["x-request-id"] != given
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/nowhere", "/docs"])
async def test_answers_carry_safe_headers(path: str, http: httpx.AsyncClient) -> None:
    headers = (await http.get(path)).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert ("content-security-policy" in headers) == (path != "/docs")


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    paths = app.openapi()["paths"]
    return [(path, method, op) for path, ops in paths.items() for method, op in ops.items()]


async def test_every_example_in_the_documentation_works_when_pasted(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    posted = 0
    for path, method, operation in operations(app):
        content = operation.get("requestBody", {}).get("content", {})
        for example in content.get("application/json", {}).get("examples", {}).values():
            response = await http.request(method, path, json=example["value"])
            assert response.status_code == 200, (path, response.text)
            posted += 1

    posts = sum(method == "post" for _, method, _ in operations(app))
    assert posted >= posts == 8


async def test_every_answer_is_what_the_documentation_says_of_it(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    documentation = Documentation(app.openapi())
    for operation in documentation.operations():
        path = operation.path.format(name="tiny")
        response = await http.request(operation.method, path, json=operation.body)
        assert response.status_code == 200, (path, response.text)
        assert documentation.wrong_with(operation, response) == []


async def test_no_operation_documents_a_status_that_it_cannot_answer_with(app: FastAPI) -> None:
    documented = {
        f"{method} {path}": {int(status) for status in operation["responses"]}
        for path, method, operation in operations(app)
    }

    for name, statuses in documented.items():
        assert ({400, 408, 409, 413, 415} <= statuses) == name.startswith("post"), name
    assert documented["get /healthz"] == documented["get /metrics"] == {200}
    assert documented["get /readyz"] == {200, 503}
    assert documented["get /v1/models/{name}"] - documented["get /v1/models"] == {404}


async def test_every_part_of_the_documentation_is_described(app: FastAPI) -> None:
    for path, method, operation in operations(app):
        assert operation["description"], (path, method)
        for status, answer in operation["responses"].items():
            if status >= "400":
                media = "application/json" if path == "/v1/embeddings" else None
                assert list(answer["content"]) == [media or "application/problem+json"]
    schemas = app.openapi()["components"]["schemas"]
    assert all(schema.get("description") for schema in schemas.values())
    for name in ("EmbedTexts", "Reconstruct", "PredictLatentActions", "ComputeSimilarity"):
        for field, part in schemas[name]["properties"].items():
            assert part.get("description"), (name, field)
        assert schemas[name]["additionalProperties"] is False


async def test_the_documentation_page_needs_nothing_but_the_gateway(
    http: httpx.AsyncClient,
) -> None:
    page = (await http.get("/docs")).text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)

    answers = [await http.get(f"/{file}") for file in [*files, "openapi.json"]]

    assert "SwaggerUIBundle" in page
    assert not any("//" in file for file in files)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.headers["content-type"].split(";")[0] for answer in answers] == [
        "text/css", "image/png", "text/javascript", "application/json",
    ]  # fmt: skip


def test_the_examples_name_what_a_model_must_agree_with() -> None:
    assert examples.INTERVAL_MS == 50


def test_the_gateway_brings_in_no_model() -> None:
    code = (
        "import sys, tectum_server.gateway;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}));"
        "print(*[name for name in sys.modules if name.startswith('tectum_server.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert {"torch", "PIL", "tectum_core", "tectum_train"}.isdisjoint(done.stdout.split())
    assert "tectum_server.worker" not in done.stdout


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        GatewaySettings(wroker_address="a:1")  # type: ignore[call-arg]


async def test_the_address_itself_leads_to_the_documentation(http: httpx.AsyncClient) -> None:
    answer = await http.get("/", follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (307, "docs")


async def test_the_documentation_is_measured_by_its_own_names(http: httpx.AsyncClient) -> None:
    for path in ("/", "/docs", "/openapi.json"):
        await http.get(path)

    measured = (await http.get("/metrics")).text
    assert all(f'route="{path}"' in measured for path in ("/", "/docs", "/openapi.json"))
    assert 'route="unmatched"' not in measured
