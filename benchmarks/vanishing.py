"""Clients that do not behave, in a process that can be killed: started by `faults.py`.

python benchmarks/vanishing.py ADDRESS COUNT      each has a connection of its own and, once a
                                                  line comes, asks for one picture; says how
                                                  many connect and ask, and waits for its end
python benchmarks/vanishing.py ADDRESS --deaf S   streams frames for so many seconds and reads
                                                  nothing; says how many it has sent
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import grpc

from small import PICTURE, SIDE
from tectum.v1 import call_pb2, embed_pb2, image_pb2, perception_pb2_grpc, stream_pb2

HZ = 30.0
_IMAGE = image_pb2.Image(raw=image_pb2.RawImage(height=SIDE, width=SIDE, data=PICTURE.tobytes()))
_OWN = [("grpc.use_local_subchannel_pool", 1)]


def vanish(address: str, count: int) -> None:
    """Ask as often, and wait to be killed."""
    request = embed_pb2.EmbedImagesRequest(images=[_IMAGE])
    request.vector.kind = call_pb2.VECTOR_KIND_POOLED
    channels = [grpc.insecure_channel(address, options=_OWN) for _ in range(count)]
    for channel in channels:
        grpc.channel_ready_future(channel).result(60)
    print(len(channels), flush=True)
    sys.stdin.readline()
    calls = [
        perception_pb2_grpc.PerceptionServiceStub(channel).EmbedImages.future(request, timeout=60)
        for channel in channels
    ]
    print(len(calls), flush=True)
    time.sleep(600)


def stream(address: str, seconds: float) -> None:
    """Send and do not read."""
    sent = 0

    def messages() -> Iterator[stream_pb2.StreamPerceptionRequest]:
        nonlocal sent
        setup = stream_pb2.StreamSetup(embed=True)
        setup.vector.kind = call_pb2.VECTOR_KIND_TOKENS
        yield stream_pb2.StreamPerceptionRequest(setup=setup)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            frame = stream_pb2.StreamFrame(frame_id=sent, image=_IMAGE)
            frame.captured_at.GetCurrentTime()
            frame.lifespan.FromMilliseconds(2000)
            yield stream_pb2.StreamPerceptionRequest(frame=frame)
            sent += 1
            time.sleep(1 / HZ)

    with grpc.insecure_channel(address, options=_OWN) as channel:
        call = perception_pb2_grpc.PerceptionServiceStub(channel).StreamPerception(messages())
        time.sleep(seconds)
        call.cancel()
    print(sent, flush=True)


if __name__ == "__main__":
    if sys.argv[2] == "--deaf":
        stream(sys.argv[1], float(sys.argv[3]))
    else:
        vanish(sys.argv[1], int(sys.argv[2]))
