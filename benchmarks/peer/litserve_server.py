"""The tower behind LitServe: base64 in JSON in, JSON out.

python litserve_server.py PORT

Annotations are no strings here: the server makes its endpoint of decode_request's.
"""

import base64
import sys
from typing import Any

import litserve
from numpy.typing import NDArray
from tower import LARGEST, Tower


class Embedding(litserve.LitAPI):
    """How its worker computes."""

    def setup(self, _: str) -> None:
        """Load."""
        self._tower = Tower()

    def decode_request(self, request: dict[str, Any]) -> bytes:
        """The file."""
        return base64.b64decode(request["image"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """As they are."""
        return inputs

    def predict(self, x: list[bytes]) -> NDArray[Any]:
        """A batch."""
        return self._tower.embed(x)

    def unbatch(self, output: NDArray[Any]) -> list[NDArray[Any]]:
        """Row by row."""
        return list(output)

    def encode_response(self, output: NDArray[Any]) -> dict[str, Any]:
        """Of one file."""
        return {"embedding": output.tolist()}


if __name__ == "__main__":
    api = Embedding(max_batch_size=LARGEST, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False).run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False
    )
