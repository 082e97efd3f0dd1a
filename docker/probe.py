"""What a caller sees who is inside the network: run by check_images.py in the gateway's image.

Reaches worker and gateway by the names and ports that compose.yaml and prometheus.yml give them.
Prints one JSON object per check: {"image", "what", "passed", "seen"}.

    python - TARGET … < docker/probe.py      TARGET: HOST:PORT that Prometheus would scrape
"""

from __future__ import annotations

import base64
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

import tectum
from tectum_server.gateway import png

WORKER, GATEWAY = "worker:50051", "http://gateway:8000"
ROUTE = "/v1/embed/images"
PICTURES = [np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8) for seed in (1, 2)]
NO_PICTURE = b"this is not a picture"
COUNTS = {
    "worker": "tectum_request_duration_seconds_count",
    "gateway": "tectum_gateway_request_duration_seconds_count",
}
"""The sample that counts requests, by the host that has it."""


class Differs(Exception):
    """A check found something else than it should."""


def main() -> None:
    """Run all checks, in an order in which the scrape comes after what it counts."""
    with tectum.Client(WORKER, timeout=30) as client:
        tell("worker", "embeds pictures over gRPC", pictures, client)
        tell("worker", "embeds texts into the pictures' space", texts, client)
        tell("gateway", "gives the same vectors over REST", rest, client)
        tell("worker", "refuses what is no picture", refusal, client)
        tell("gateway", "refuses what is no picture", rest_refusal)
    for target in sys.argv[1:]:
        tell(target.partition(":")[0], f"answers Prometheus at {target}", scrape, target)


def tell(image: str, what: str, run: Callable[..., str], *given: object) -> None:
    """Run one check and print what came of it; none may keep the others from running."""
    try:
        passed, seen = True, run(*given)
    except Exception as error:
        passed, seen = False, f"{type(error).__name__}: {error}"
    print(json.dumps({"image": image, "what": what, "passed": passed, "seen": seen}), flush=True)


def expect(holds: bool, found: object) -> None:
    """Differs, with what was found, unless it holds."""
    if not holds:
        raise Differs(f"found {found}")


def pictures(client: tectum.Client) -> str:
    """Two pictures have two different vectors of length 1."""
    vectors = client.embed_images(PICTURES).vectors
    expect(vectors.dtype == np.float32 and vectors.shape[0] == 2, vectors)
    expect(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3), vectors)
    expect(not np.allclose(*vectors), vectors)
    return f"float32{list(vectors.shape)}"


def texts(client: tectum.Client) -> str:
    """Texts and pictures live in one space."""
    found = client.embed_texts(["open the drawer", "close the drawer"])
    expect(found.space_id == client.embed_images(PICTURES).space_id, found.space_id)
    return f"float32{list(found.vectors.shape)}"


def rest(client: tectum.Client) -> str:
    """A PNG file by way of the gateway is what its pixels are by way of the SDK."""
    files = [base64.b64encode(png.encode(picture)).decode() for picture in PICTURES]
    status, answer = post({"images": files})
    expect(status == 200, answer)
    found = np.array([result["embedding"]["values"] for result in answer["results"]])
    difference = np.abs(found - client.embed_images(PICTURES).vectors).max()
    expect(bool(difference < 1e-5), difference)
    return f"largest difference {difference:.1e}"


def refusal(client: tectum.Client) -> str:
    """The SDK raises what the contract's table of errors says."""
    try:
        client.embed_images([NO_PICTURE])
    except tectum.InvalidInput as error:
        expect(error.reason == "IMAGE_UNREADABLE", error.reason)
        return f"InvalidInput, {error.reason}"
    raise Differs("an answer")


def rest_refusal() -> str:
    """The gateway answers with the status and reason of the same table."""
    status, answer = post({"images": [base64.b64encode(NO_PICTURE).decode()]})
    expect((status, answer.get("reason")) == (422, "IMAGE_UNREADABLE"), (status, answer))
    return f"{status}, {answer['reason']}"


def scrape(target: str) -> str:
    """The metrics are readable, and have counted what this probe asked."""
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=30) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    name = COUNTS[target.partition(":")[0]]
    counted = [sample.value for family in families for sample in family.samples
               if sample.name == name]  # fmt: skip
    expect(sum(counted) > 0, counted)
    return f"{sum(counted):.0f} requests counted"


def post(body: object) -> tuple[int, Any]:
    """Status and JSON of a POST to the gateway's route."""
    request = urllib.request.Request(
        GATEWAY + ROUTE, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


if __name__ == "__main__":
    main()
