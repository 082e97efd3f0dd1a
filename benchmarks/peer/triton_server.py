"""The tower behind Triton, through pytriton: a JPEG file in, a vector out, over KServe's gRPC.

python triton_server.py PORT     gRPC; HTTP and metrics are on the two ports after it
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig
from tower import LARGEST, Tower


def main(port: int) -> None:
    """Serve until killed."""
    tower = Tower()

    @batch  # type: ignore[untyped-decorator]
    def embed(FILE: NDArray[Any]) -> dict[str, NDArray[np.float32]]:  # noqa: N803 - Triton's name
        return {"VECTOR": tower.embed([row[0] for row in FILE])}

    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=port,
        http_address="127.0.0.1",
        http_port=port + 1,
        metrics_port=port + 2,
    )
    # No token: whoever reaches the port may ask, as with all the others here.
    with Triton(
        config=config, security_config=TritonSecurityConfig(restricted_endpoints=[])
    ) as triton:
        triton.bind(
            model_name="tower",
            infer_func=embed,
            inputs=[Tensor(name="FILE", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="VECTOR", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(
                max_batch_size=LARGEST,
                batcher=DynamicBatcher(max_queue_delay_microseconds=5000),
            ),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
