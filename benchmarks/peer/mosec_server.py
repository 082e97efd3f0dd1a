"""The tower behind mosec: a JPEG file in, JSON out.

MOSEC_PORT=8000 python mosec_server.py
"""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker
from tower import LARGEST, Tower


class Embedding(Worker):
    """One process that computes."""

    def __init__(self) -> None:
        super().__init__()
        self._tower = Tower()

    def deserialize(self, data: bytes) -> bytes:
        """The file itself."""
        return data

    def forward(self, data: list[bytes]) -> list[Any]:
        """A batch."""
        return [{"embedding": row.tolist()} for row in self._tower.embed(data)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Embedding, num=1, max_batch_size=LARGEST, max_wait_time=5)
    server.run()
