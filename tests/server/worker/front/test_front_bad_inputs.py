"""What cannot be embedded or compared: one row a condition."""

import numpy as np
import pytest
from tests.server.worker.asking import (
    CUT,
    FLAT,
    GIF,
    HUGE,
    IMAGE,
    LIAR,
    NO_IMAGE,
    SMALL,
    Row,
    clip_of,
    clips,
    fill,
    images,
    options,
    similar,
    texts,
    vector,
)
from tests.server.worker.messages import build, floats, seconds
from tests.server.worker.serving import Caller

from tectum.v1 import embed_pb2, image_pb2, model_pb2

FOREIGN = {"embedding": {"values": floats(np.ones(16)), "space_id": "0" * 16}}
NOWHERE = "0" * 16

ROWS = {
    # Images
    "no image": Row.of(images(NO_IMAGE), "IMAGE_UNREADABLE", "images[0].encoded"),
    "cut image": Row.of(images(CUT), "IMAGE_UNREADABLE", "images[0].encoded"),
    "gif": Row.of(images(GIF), "IMAGE_UNSUPPORTED", "images[0].encoded", words="GIF"),
    "raw bytes missing": Row.of(
        images(LIAR), "SHAPE_MISMATCH", "images[0].raw.data", words="300 bytes, found 299"
    ),
    "flat image": Row.of(images(FLAT), "SHAPE_MISMATCH", "images[0].raw"),
    "too many pixels": Row.of(images(HUGE), "IMAGE_TOO_LARGE", "images[0].raw", words="at most"),
    "no content": Row.of(images(image_pb2.Image()), "FIELD_MISSING", "images[0]"),
    "no images": Row.of(embed_pb2.EmbedImagesRequest(), "FIELD_MISSING", "images"),
    "too many images": Row.of(
        images(*[IMAGE] * 65), "TOO_MANY_ITEMS", "images", words="65 items, at most 64"
    ),
    "all bad": Row.of(
        images(NO_IMAGE, LIAR), "IMAGE_UNREADABLE", "images[0].encoded", "images[1].raw.data"
    ),
    # Options
    "unknown priority": Row.of(
        images(options=options(priority=9)), "FIELD_OUT_OF_RANGE", "options.priority"
    ),
    "unknown kind": Row.of(images(vector=vector(kind=99)), "FIELD_OUT_OF_RANGE", "vector.kind"),
    "kind of a pair": Row.of(images(vector=vector(kind=4)), "FIELD_OUT_OF_RANGE", "vector.kind"),
    "unknown data type": Row.of(
        images(vector=vector(data_type=77)), "FIELD_OUT_OF_RANGE", "vector.data_type"
    ),
    "data type of no vector": Row.of(
        images(vector=vector(data_type=6)), "FIELD_OUT_OF_RANGE", "vector.data_type"
    ),
    "too many spaces": Row.of(
        images(options=options(expected_space_ids=["a"] * 9)),
        "TOO_MANY_ITEMS",
        "options.expected_space_ids",
    ),
    "untrained truncation": Row.of(
        images(vector=vector(dimensions=5)),
        "CAPABILITY_MISSING",
        "vector.dimensions",
        words="it was for: 8",
    ),
    "space mismatch": Row.of(
        images(options=options(expected_space_ids=["0" * 16])),
        "SPACE_MISMATCH",
        "options.expected_space_ids",
    ),
    "space of another kind": Row.of(
        fill(image=IMAGE, options=options(expected_space_ids=["0" * 16])),
        "SPACE_MISMATCH",
        "options.expected_space_ids",
    ),
    "unknown model": Row.of(
        images(options=options(model="leg")), "MODEL_NOT_FOUND", "options.model", words="bare@"
    ),
    "unknown version": Row.of(
        images(options=options(model="full@" + "0" * 16)), "MODEL_NOT_FOUND", "options.model"
    ),
    # Texts
    "empty text": Row.of(texts(" \n"), "FIELD_MISSING", "texts[0]"),
    "long text": Row.of(
        texts("ü" * 151), "FIELD_OUT_OF_RANGE", "texts[0]", words="302 bytes, at most 300"
    ),
    "text with NUL": Row.of(texts("a\0b"), "FIELD_OUT_OF_RANGE", "texts[0]"),
    "no texts": Row.of(embed_pb2.EmbedTextsRequest(), "FIELD_MISSING", "texts"),
    "pooled texts": Row.of(
        texts(vector=vector(kind=2)), "FIELD_OUT_OF_RANGE", "vector.kind", words="always JOINT"
    ),
    # Clips
    "short clip": Row.of(
        clips(3), "SHAPE_MISMATCH", "clips[0].frames", words="clips of 4 frames, found 3"
    ),
    "slow clip": Row.of(
        clips(frame_interval=seconds(0.2)),
        "INTERVAL_MISMATCH",
        "clips[0].frame_interval",
        words="0.1 s apart, found 0.2",
    ),
    "timeless clip": Row.of(
        clips(frame_interval=seconds(0)), "FIELD_OUT_OF_RANGE", "clips[0].frame_interval"
    ),
    "uneven clip": Row.of(clip_of(*[IMAGE] * 3, SMALL), "SHAPE_MISMATCH", "clips[0].frames"),
    "clip with a bad frame": Row.of(
        clip_of(*[IMAGE] * 3, NO_IMAGE), "IMAGE_UNREADABLE", "clips[0].frames[3].encoded"
    ),
    "joint clips": Row.of(clip_of(*[IMAGE] * 4, vector=vector(kind=1)), "CAPABILITY_MISSING"),
    "too many frames": Row.of(
        build(embed_pb2.EmbedClipsRequest, clips=[{"frames": [IMAGE] * 4}] * 17),
        "TOO_MANY_ITEMS",
        "clips",
        words="68 items",
    ),
    "no clips": Row.of(embed_pb2.EmbedClipsRequest(), "FIELD_MISSING", "clips"),
    # Similarity
    "nothing left": Row.of(similar([], [{"text": "a"}]), "FIELD_MISSING", "left"),
    "nothing right": Row.of(similar([{"text": "a"}], []), "FIELD_MISSING", "right"),
    "items of nothing": Row.of(similar([{}], [{}]), "FIELD_MISSING", "left[0]", "right[0]"),
    "vectors of another space": Row.of(
        similar([FOREIGN], [{"text": " "}]),
        "SPACE_MISMATCH",
        "left[0].embedding.space_id",
        "right[0].text",
    ),
    "too many to compare": Row.of(
        similar([{"text": "a"}] * 32, [{"text": "a"}] * 33), "TOO_MANY_ITEMS", "left"
    ),
    # Models
    "unknown model to tell of": Row.of(
        model_pb2.GetModelRequest(model="leg"), "MODEL_NOT_FOUND", "model"
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_cannot_succeed_is_refused_with_its_reason(worker: Caller, name: str) -> None:
    ROWS[name].check(worker)
