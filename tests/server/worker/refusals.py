"""What can never succeed, and what is said of it: one row a condition, for gRPC and for REST.

The worker's own tests ask every row over gRPC; the journeys ask what REST can say of them
through a gateway. Rows are of a worker that serves the bundles `full` and `bare`.
"""

from __future__ import annotations

import numpy as np
from tests.server.worker.asking import (
    BLOCK,
    CHANGE,
    CUT,
    FLAT,
    GIF,
    HUGE,
    IMAGE,
    IMPORTANCE,
    LIAR,
    NO_IMAGE,
    SMALL,
    TUBE,
    WIDE,
    Row,
    clip_of,
    clips,
    fill,
    images,
    mask,
    options,
    pairs,
    rollout,
    similar,
    steps,
    texts,
    timed,
    vector,
)
from tests.server.worker.messages import build, floats, seconds

from tectum.v1 import embed_pb2, image_pb2, model_pb2, rollout_pb2

FOREIGN = {"embedding": {"values": floats(np.ones(16)), "space_id": "0" * 16}}
NAN = np.full((8, 4), np.nan, np.float32)

INPUTS = {
    # Images
    "no image": Row.of(images(NO_IMAGE), "IMAGE_UNREADABLE", "images[0].encoded"),
    "cut image": Row.of(images(CUT), "IMAGE_UNREADABLE", "images[0].encoded"),
    "gif": Row.of(images(GIF), "IMAGE_UNSUPPORTED", "images[0].encoded", words="GIF"),
    "raw bytes missing": Row.of(
        images(LIAR), "SHAPE_MISMATCH", "images[0].raw.data", words="300 bytes, found 299"
    ),
    "flat image": Row.of(images(FLAT), "SHAPE_MISMATCH", "images[0].raw"),
    "too many pixels": Row.of(images(HUGE), "IMAGE_TOO_LARGE", "images[0].raw", words="at most"),
    "too many pixels in a file": Row.of(
        images(WIDE), "IMAGE_TOO_LARGE", "images[0].encoded", words="16777216"
    ),
    "no content": Row.of(images(image_pb2.Image()), "FIELD_MISSING", "images[0]"),
    "no images": Row.of(embed_pb2.EmbedImagesRequest(), "FIELD_MISSING", "images"),
    "too many images": Row.of(
        images(*[IMAGE] * 65), "TOO_MANY_ITEMS", "images", words="65 items, at most 64"
    ),
    "all bad": Row.of(
        images(NO_IMAGE, LIAR), "IMAGE_UNREADABLE", "images[0].encoded", "images[1].raw.data"
    ),
    "all files bad": Row.of(
        images(NO_IMAGE, GIF), "IMAGE_UNREADABLE", "images[0].encoded", "images[1].encoded"
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
        texts("ü" * 2049), "FIELD_OUT_OF_RANGE", "texts[0]", words="4098 bytes, at most"
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
        words="0.1 s apart, 0.09 to 0.11 s are allowed; found 0.2 s",
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
"""What cannot be embedded or compared."""

REQUESTS = {
    # Reconstruction
    "no target": Row.of(fill(), "FIELD_MISSING", "target"),
    "bad picture": Row.of(fill(image=NO_IMAGE), "IMAGE_UNREADABLE", "image.encoded"),
    "tube over an image": Row.of(
        fill(image=IMAGE, mask=mask(kind=TUBE)),
        "FIELD_OUT_OF_RANGE",
        "mask.kind",
        words="found tube; allowed for an image: random, block, importance or explicit",
    ),
    "block over a text": Row.of(
        fill(text={"text": "open the door"}, mask=mask(kind=BLOCK)),
        "FIELD_OUT_OF_RANGE",
        "mask.kind",
        words="found block; allowed for a text: random or explicit",
    ),
    "importance over actions": Row.of(
        fill(actions=steps(), mask=mask(kind=IMPORTANCE)),
        "FIELD_OUT_OF_RANGE",
        "mask.kind",
        words="found importance; allowed for an action sequence: random, block or explicit",
    ),
    "change over an image": Row.of(
        fill(image=IMAGE, mask=mask(kind=IMPORTANCE, source=CHANGE)),
        "FIELD_OUT_OF_RANGE",
        "mask.source",
        words="needs a clip",
    ),
    "hints of a block": Row.of(
        fill(image=IMAGE, mask=mask(kind=BLOCK, hint=0.5)), "FIELD_OUT_OF_RANGE", "mask.hint"
    ),
    "unknown mask": Row.of(
        fill(image=IMAGE, mask=mask(kind=42)), "FIELD_OUT_OF_RANGE", "mask.kind"
    ),
    "index beyond": Row.of(
        fill(image=IMAGE, mask=mask(hidden=[16])),
        "FIELD_OUT_OF_RANGE",
        "mask.hidden",
        words="index 16 lies outside 0..15",
    ),
    "index twice": Row.of(
        fill(image=IMAGE, mask=mask(hidden=[3, 3])), "FIELD_OUT_OF_RANGE", "mask.hidden"
    ),
    "all hidden": Row.of(
        fill(text={"text": "open it"}, mask=mask(hidden=list(range(40)))),
        "FIELD_OUT_OF_RANGE",
        "mask.hidden",
    ),
    "one token": Row.of(fill(text={"text": "open"}), "FIELD_OUT_OF_RANGE", "text.text"),
    "mask beyond what is read": Row.of(
        fill(text={"text": "open the red door " * 4 + "[MASK]"}),
        "FIELD_OUT_OF_RANGE",
        "text.text",
        words="reads 10 tokens of this text, and no [MASK] is among them",
    ),
    "many candidates": Row.of(
        fill(text={"text": "open [MASK]"}, top_k=21), "FIELD_OUT_OF_RANGE", "top_k"
    ),
    "text condition of a text": Row.of(
        fill(text={"text": "open it"}, text_condition="now"), "FIELD_OUT_OF_RANGE", "text_condition"
    ),
    "picture condition of a picture": Row.of(
        fill(image=IMAGE, image_condition=IMAGE), "FIELD_OUT_OF_RANGE", "image_condition"
    ),
    "state of a picture": Row.of(
        fill(image=IMAGE, state_condition=floats(np.zeros(3))),
        "FIELD_OUT_OF_RANGE",
        "state_condition",
    ),
    "bad condition": Row.of(
        fill(text={"text": "open it"}, image_condition=NO_IMAGE),
        "IMAGE_UNREADABLE",
        "image_condition.encoded",
    ),
    "blank condition": Row.of(
        fill(image=IMAGE, text_condition=" "), "FIELD_MISSING", "text_condition"
    ),
    "NaN actions": Row.of(fill(actions=steps(NAN)), "NOT_FINITE", "actions.actions"),
    "actions beyond what float32 can follow": Row.of(
        fill(actions=steps(np.full((8, 4), 1e30))),
        "NOT_FINITE",
        "actions.actions",
        words="the model's answer holds NaN or infinity",
    ),
    "wide actions": Row.of(
        fill(actions=steps(np.zeros((8, 5)))),
        "SHAPE_MISMATCH",
        "actions.actions",
        words="[any, 4], found [8, 5]",
    ),
    "long actions": Row.of(
        fill(actions=steps(np.zeros((9, 4)))),
        "SHAPE_MISMATCH",
        "actions.actions",
        words="2 to 8 steps, found 9",
    ),
    "one action": Row.of(
        fill(actions=steps(np.zeros((1, 4)))), "SHAPE_MISMATCH", "actions.actions"
    ),
    "slow actions": Row.of(
        fill(actions=steps(step_interval=seconds(0.5))),
        "INTERVAL_MISMATCH",
        "actions.step_interval",
    ),
    "wide state": Row.of(
        fill(actions=steps(), state_condition=floats(np.zeros(4))),
        "SHAPE_MISMATCH",
        "state_condition",
    ),
    # Latent actions
    "one frame": Row.of(pairs(1), "FIELD_MISSING", "frames"),
    "too many frames to pair": Row.of(pairs(65), "TOO_MANY_ITEMS", "frames"),
    "wrong interval": Row.of(
        pairs(interval=seconds(0.08)),
        "INTERVAL_MISMATCH",
        "interval",
        words="0.05 ± 0.01 s apart, these are 0.08",
    ),
    "endless interval": Row.of(pairs(interval=seconds(4000)), "FIELD_OUT_OF_RANGE", "interval"),
    "neither times nor interval": Row.of(timed(None, None), "FIELD_MISSING", "interval"),
    "times for some": Row.of(timed(1.0, None), "FIELD_MISSING", "frames"),
    "frames too far apart": Row.of(timed(1.0, 1.5), "INTERVAL_MISMATCH", "frames[1].captured_at"),
    "time runs backwards": Row.of(timed(1.05, 1.0), "INTERVAL_MISMATCH", "frames[1].captured_at"),
    "both times and interval": Row.of(
        pairs(frames=timed(1.0, 1.05).frames), "FIELD_OUT_OF_RANGE", "interval"
    ),
    "latents as bool": Row.of(pairs(data_type=7), "FIELD_OUT_OF_RANGE", "data_type"),
    # Rollouts
    "nothing seen": Row.of(rollout(0), "FIELD_MISSING", "frames"),
    "more seen than is looked back on": Row.of(
        rollout(4), "TOO_MANY_ITEMS", "frames", words="1 to 3 frames, found 4"
    ),
    "slow frames": Row.of(
        rollout(frame_interval=seconds(0.2)),
        "INTERVAL_MISMATCH",
        "frame_interval",
        words="0.05 s apart, 0.045 to 0.055 s are allowed; found 0.2 s",
    ),
    "bad frame": Row.of(rollout(frames=[IMAGE, NO_IMAGE]), "IMAGE_UNREADABLE", "frames[1].encoded"),
    "bad goal": Row.of(rollout(goal=NO_IMAGE), "IMAGE_UNREADABLE", "goal.encoded"),
    "nothing to do": Row.of(
        rollout_pb2.RolloutRequest(frames=[IMAGE]), "FIELD_MISSING", "candidates"
    ),
    "steps of a model that reads actions": Row.of(
        rollout_pb2.RolloutRequest(frames=[IMAGE], steps=2),
        "FIELD_MISSING",
        "candidates",
        words="this model reads actions: give candidates, not steps",
    ),
    "half an interval": Row.of(
        rollout(steps=6), "SHAPE_MISMATCH", "candidates", words="[K, F × 4, 4]"
    ),
    "too far ahead": Row.of(
        rollout(steps=28), "SHAPE_MISMATCH", "candidates", words="F of 1 to 6, found [3, 28, 4]"
    ),
    "wide candidates": Row.of(
        rollout(candidates=floats(np.zeros((2, 4, 5)))),
        "SHAPE_MISMATCH",
        "candidates",
        words="[any, any, 4], found [2, 4, 5]",
    ),
    "NaN candidates": Row.of(
        rollout(candidates=floats(np.full((2, 4, 4), np.nan))), "NOT_FINITE", "candidates"
    ),
    "candidates beyond what float32 can follow": Row.of(
        rollout(candidates=floats(np.full((2, 4, 4), 3e38))),
        "NOT_FINITE",
        "candidates[0]",
        "candidates[1]",
        words="the model's answer holds NaN or infinity",
    ),
    "too many candidates": Row.of(
        rollout(count=65), "TOO_MANY_ITEMS", "candidates", words="65 items, at most 64"
    ),
    "nothing done between frames": Row.of(
        rollout(past_actions=None), "FIELD_MISSING", "past_actions"
    ),
    "something done before a single frame": Row.of(
        rollout(1, past_actions=floats(np.zeros((4, 4)))), "FIELD_OUT_OF_RANGE", "past_actions"
    ),
    "too little done between frames": Row.of(
        rollout(past_actions=floats(np.zeros((3, 4)))),
        "SHAPE_MISMATCH",
        "past_actions",
        words="[4, 4], found [3, 4]",
    ),
    "latent actions for real ones": Row.of(
        rollout(action_space_id="0" * 16), "FIELD_OUT_OF_RANGE", "action_space_id"
    ),
    "latents of rollouts as bool": Row.of(rollout(data_type=7), "FIELD_OUT_OF_RANGE", "data_type"),
    "distances in another space": Row.of(
        rollout(options=options(expected_space_ids=["0" * 16])),
        "SPACE_MISMATCH",
        "options.expected_space_ids",
    ),
}
"""What cannot be filled in, paired or rolled out."""
