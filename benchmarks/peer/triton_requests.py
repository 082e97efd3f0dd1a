"""What Triton is asked with, byte for byte: a ModelInfer request of each JPEG file in a folder.

Written once, with the stubs of Triton's own client: what times the answers makes no messages.

python triton_requests.py FOLDER     N.jpg → N.request
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor


def request_of(file: bytes) -> bytes:
    """The request."""
    tensors = service_pb2.ModelInferRequest
    message = service_pb2.ModelInferRequest(
        model_name="tower",
        inputs=[tensors.InferInputTensor(name="FILE", datatype="BYTES", shape=[1, 1])],
        outputs=[tensors.InferRequestedOutputTensor(name="VECTOR")],
        raw_input_contents=[serialize_byte_tensor(np.array([[file]], object)).item()],
    )
    written: bytes = message.SerializeToString()
    return written


if __name__ == "__main__":
    for path in Path(sys.argv[1]).glob("*.jpg"):
        path.with_suffix(".request").write_bytes(request_of(path.read_bytes()))
