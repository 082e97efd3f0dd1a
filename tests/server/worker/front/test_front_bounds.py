"""However much a request lists, it is counted before any of it is looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from tests.server.worker.asking import IMAGE, clips, fill, images, mask, similar, steps
from tests.server.worker.messages import build, reason
from tests.server.worker.serving import Fronted, Loop

from tectum.v1 import (
    call_pb2,
    embed_pb2,
    image_pb2,
    latent_action_pb2,
    perception_pb2,
    rollout_pb2,
    tensor_pb2,
)
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call, Record
from tectum_server.worker.front.methods import latents, reconstruction, rollouts, similarity
from tectum_server.worker.front.perception import Perception

MANY = 100_000
EMPTY = image_pb2.Image()
FRAMES = image_pb2.Clip(frames=[EMPTY] * MANY)
AXES = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1] * MANY)
Work = Callable[[Any, Call], Awaitable[Any]]


class Counted:
    """A list so long that nothing but its length may be asked for."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: object) -> Any:
        raise AssertionError(f"item {place} was looked at")

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("the items were looked at")


class Guarded:
    """A message whose long lists are `Counted`."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._message, name)
        return value if callable(value) else guarded(value)


def guarded(value: Any) -> Any:
    if isinstance(value, Message):
        return Guarded(value)
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        return value
    return Counted(len(value)) if len(value) >= MANY else [guarded(one) for one in value]


ROWS: dict[str, tuple[Message, str, str]] = {
    "EmbedImagesRequest.images": (images(*[EMPTY] * MANY), "TOO_MANY_ITEMS", "images"),
    "EmbedTextsRequest.texts": (
        embed_pb2.EmbedTextsRequest(texts=[""] * MANY),
        "TOO_MANY_ITEMS",
        "texts",
    ),
    "EmbedClipsRequest.clips": (
        embed_pb2.EmbedClipsRequest(clips=[image_pb2.Clip()] * MANY),
        "TOO_MANY_ITEMS",
        "clips",
    ),
    "Clip.frames": (
        build(embed_pb2.EmbedClipsRequest, clips=[FRAMES]),
        "TOO_MANY_ITEMS",
        "clips",
    ),
    "Clip.frames to fill in": (fill(clip=FRAMES), "SHAPE_MISMATCH", "clip.frames"),
    "ComputeSimilarityRequest.left": (
        similar([{}] * MANY, [{"text": "a"}]),
        "TOO_MANY_ITEMS",
        "left",
    ),
    "ComputeSimilarityRequest.right": (
        similar([{"text": "a"}], [{}] * MANY),
        "TOO_MANY_ITEMS",
        "left",
    ),
    "PredictLatentActionsRequest.frames": (
        latent_action_pb2.PredictLatentActionsRequest(frames=[image_pb2.TimedImage()] * MANY),
        "TOO_MANY_ITEMS",
        "frames",
    ),
    "RolloutRequest.frames": (
        rollout_pb2.RolloutRequest(frames=[EMPTY] * MANY),
        "TOO_MANY_ITEMS",
        "frames",
    ),
    "RequestOptions.expected_space_ids": (
        images(options=call_pb2.RequestOptions(expected_space_ids=[""] * MANY)),
        "TOO_MANY_ITEMS",
        "options.expected_space_ids",
    ),
    "Mask.hidden": (
        fill(image=IMAGE, mask=mask(hidden=[1] * MANY)),
        "FIELD_OUT_OF_RANGE",
        "mask.hidden",
    ),
    "Mask.hidden of a clip": (
        fill(clip=clips().clips[0], mask=mask(hidden=[1] * MANY)),
        "FIELD_OUT_OF_RANGE",
        "mask.hidden",
    ),
    "Mask.hidden of a text": (
        fill(text={"text": "open"}, mask=mask(hidden=[1] * MANY)),
        "FIELD_OUT_OF_RANGE",
        "mask.hidden",
    ),
    "Mask.hidden of actions": (
        fill(actions=steps(), mask=mask(hidden=[1] * MANY)),
        "FIELD_OUT_OF_RANGE",
        "mask.hidden",
    ),
    "Tensor.shape": (fill(actions={"actions": AXES}), "SHAPE_MISMATCH", "actions.actions"),
    "Tensor.shape of a state": (
        fill(actions=steps(), state_condition=AXES),
        "SHAPE_MISMATCH",
        "state_condition",
    ),
}
"""Each list of the contract's requests, far too long: what is said of it."""


def work_of(front: Fronted) -> dict[str, Work]:
    """What answers each request."""
    calls, reader = front.front._calls, front.front._images
    perception = Perception(calls, reader, front.front._sharing)

    def plain(function: Any) -> Work:
        return lambda request, call: function(request, call, calls, reader)

    return {
        "EmbedImagesRequest": perception._embed_images,
        "EmbedTextsRequest": perception._embed_texts,
        "EmbedClipsRequest": perception._embed_clips,
        "ComputeSimilarityRequest": plain(similarity.compare),
        "ReconstructRequest": plain(reconstruction.reconstruct),
        "PredictLatentActionsRequest": plain(latents.predict),
        "RolloutRequest": plain(rollouts.roll_out),
    }


@pytest.mark.parametrize("field", ROWS)
def test_a_list_is_refused_by_its_length_alone(field: str, front: Fronted, loop: Loop) -> None:
    message, wanted, path = ROWS[field]
    work = work_of(front)[type(message).__name__]
    request = Guarded(message)

    async def answer() -> None:
        call = front.front._calls.open(request.options, Record("Any", "r-1"), None)
        await work(request, call)

    with pytest.raises(Failure) as caught:
        loop.run(answer())

    assert (reason(caught.value.reason), caught.value.field) == (wanted, path)
    assert len(caught.value.message) < 500


def test_every_list_of_every_request_is_among_them() -> None:
    found, seen = set[str](), set[str]()

    def look(message: Descriptor) -> None:
        if message.full_name in seen:
            return
        seen.add(message.full_name)
        for field in message.fields:
            if field.is_repeated:
                found.add(f"{message.name}.{field.name}")
            if field.message_type is not None:
                look(field.message_type)

    for method in perception_pb2.DESCRIPTOR.services_by_name["PerceptionService"].methods:
        look(method.input_type)

    assert len(found) >= 10
    assert found <= set(ROWS)


@pytest.mark.parametrize("side", ["left", "right"])
def test_many_empty_items_are_refused_over_the_wire(side: str, front: Fronted) -> None:
    both: dict[str, Any] = {"left": [{}], "right": [{}]} | {side: [{}] * 20_000}

    told = front.client.refused("ComputeSimilarity", similar(**both))

    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "TOO_MANY_ITEMS")
    assert "20001 items, at most 64" in told.message


@pytest.mark.parametrize("count", [16, 17, 20_000])
def test_a_mask_of_all_elements_or_more_is_refused_over_the_wire(
    count: int, front: Fronted
) -> None:
    told = front.client.refused("Reconstruct", fill(image=IMAGE, mask=mask(hidden=[1] * count)))

    assert (told.code, told.fields) == ("INVALID_ARGUMENT", ("mask.hidden",))
    assert f"1 to 15 of at most 16 elements can be hidden, found {count}" in told.message
