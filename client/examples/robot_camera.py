"""A live camera's stream: what a robot's perception loop looks like.

    python robot_camera.py video.mp4 [host:port]

A film stands in for the camera. It is shown in its own time, and a frame taken of it at most 30
times a second, stamped with the moment when the film showed it: the latent actions are then those
of the film's own motion. A worker that restarts is waited for; over a thin link, `send="resized"`
brings frames to the model's size here. Needs PyAV beside the SDK (in a checkout:
`pip install . av`).
"""

import sys
import time
from collections.abc import Iterator

import av
import numpy as np

from tectum import Capability, Client, Frame, FrameStatus, TectumError

RATE = 30.0
"""Frames a second, at most."""


def camera(path: str) -> Iterator[Frame]:
    """Frames as a camera before the film would deliver them."""
    began, due = time.time(), 0.0
    with av.open(path) as film:
        for picture in film.decode(video=0):
            if picture.time >= due - 0.002:  # some films round times to milliseconds
                due += 1 / RATE
                time.sleep(max(0.0, began + picture.time - time.time()))
                pixels = np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
                yield Frame(pixels, began + picture.time)


def main(path: str, address: str = "127.0.0.1:50051") -> None:
    """Stream the film and print what became of each frame that was answered."""
    gone = 0
    with Client(address) as client:
        can = client.get_model().capabilities
        see, act = Capability.EMBED_IMAGES in can, Capability.PREDICT_LATENT_ACTIONS in can
        with client.stream(camera(path), embed=see, latent_actions=act, reconnect=30.0) as stream:
            for result in stream:
                gone += result.status == FrameStatus.SUPERSEDED
                line = f"frame {result.frame_id} {result.status} age {1000 * result.age:.0f} ms"
                if result.embedding is not None:
                    line += f" norm {np.linalg.norm(result.embedding.as_float32()):.3f}"
                if result.latent_action is not None:
                    latent = np.round(result.latent_action.latent.as_float32()[:4], 3)
                    line += f" latent {latent} over {result.latent_action.interval:.3f} s"
                print(line)
        print(f"gave way to newer frames: {stream.dropped + stream.unread} here, {gone} there")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python robot_camera.py video.mp4 [host:port]")
    try:
        main(*sys.argv[1:])
    except (TectumError, av.FFmpegError) as error:
        sys.exit(f"robot_camera.py: {error}")
