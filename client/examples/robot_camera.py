"""A live camera's stream: what a robot's perception loop looks like.

    python robot_camera.py video.mp4 [host:port]

A video file stands in for the camera: its frames come at 30 Hz, whatever its own rate, stamped
with the moment they were taken. Needs PyAV beside the SDK (`pip install . av` in a checkout).
"""

import sys
import time
from collections.abc import Iterator

import av
import numpy as np

from tectum import Capability, Client, Frame, FrameStatus

RATE = 30.0
"""Frames a second."""


def camera(path: str) -> Iterator[Frame]:
    """Frames as a camera would deliver them."""
    due = time.time()
    with av.open(path) as video:
        for picture in video.decode(video=0):
            time.sleep(max(0.0, due - time.time()))
            due += 1 / RATE
            yield Frame(np.asarray(picture.to_rgb().to_ndarray(), np.uint8), time.time())


def main(path: str, address: str = "127.0.0.1:50051") -> None:
    """Stream the file and print what became of each frame that was answered."""
    superseded = 0
    with Client(address) as client:
        can = client.get_model().capabilities
        vectors, latents = Capability.EMBED_IMAGES in can, Capability.PREDICT_LATENT_ACTIONS in can
        with client.stream(camera(path), embed=vectors, latent_actions=latents) as stream:
            for result in stream:
                superseded += result.status == FrameStatus.SUPERSEDED
                line = f"frame {result.frame_id} {result.status} age {1000 * result.age:.0f} ms"
                if result.embedding is not None:
                    line += f" norm {np.linalg.norm(result.embedding.as_float32()):.3f}"
                if result.latent_action is not None:
                    latent = np.round(result.latent_action.latent.as_float32()[:4], 3)
                    line += f" latent {latent} over {result.latent_action.interval:.3f} s"
                print(line)
        print(f"gave way to newer frames: {stream.dropped} here, {superseded} in the worker")


if __name__ == "__main__":
    main(*sys.argv[1:])
