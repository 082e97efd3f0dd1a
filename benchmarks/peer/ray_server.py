"""The tower behind Ray Serve: a JPEG file in, JSON out.

python ray_server.py PORT
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from tower import LARGEST

HERE = Path(__file__).parent
PASSED = {name: value for name, value in os.environ.items() if name.startswith(("TOWER_", "OMP_"))}
PASSED["PYTHONPATH"] = f"{HERE}:{os.environ['PYTHONPATH']}"


@serve.deployment(
    num_replicas=1,
    max_ongoing_requests=4 * LARGEST,
    ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": PASSED}},
)
class Embedding:
    """The replica."""

    def __init__(self) -> None:
        from tower import Tower

        self._tower = Tower()

    @serve.batch(max_batch_size=LARGEST, batch_wait_timeout_s=0.005)
    async def embed(self, files: list[bytes]) -> list[Any]:
        """A batch."""
        return list(self._tower.embed(files))

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One call."""
        return {"embedding": (await self.embed(await request.body())).tolist()}


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        _node_ip_address="127.0.0.1",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Embedding.bind(), route_prefix="/")
    signal.pause()
