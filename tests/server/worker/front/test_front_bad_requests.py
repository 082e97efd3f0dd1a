"""What cannot be filled in or paired: one row a condition."""

import numpy as np
import pytest
from tests.server.worker.asking import (
    BLOCK,
    IMAGE,
    IMPORTANCE,
    NO_IMAGE,
    TUBE,
    Row,
    fill,
    mask,
    pairs,
    steps,
    timed,
)
from tests.server.worker.messages import floats, seconds
from tests.server.worker.serving import Caller

NAN = np.full((8, 4), np.nan, np.float32)

ROWS = {
    # Reconstruction
    "no target": Row.of(fill(), "FIELD_MISSING", "target"),
    "bad picture": Row.of(fill(image=NO_IMAGE), "IMAGE_UNREADABLE", "image.encoded"),
    "tube over an image": Row.of(
        fill(image=IMAGE, mask=mask(kind=TUBE)), "FIELD_OUT_OF_RANGE", "mask.kind"
    ),
    "block over a text": Row.of(
        fill(text={"text": "open the door"}, mask=mask(kind=BLOCK)),
        "FIELD_OUT_OF_RANGE",
        "mask.kind",
    ),
    "importance over actions": Row.of(
        fill(actions=steps(), mask=mask(kind=IMPORTANCE)), "FIELD_OUT_OF_RANGE", "mask.kind"
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
}


@pytest.mark.parametrize("name", ROWS)
def test_what_cannot_succeed_is_refused_with_its_reason(worker: Caller, name: str) -> None:
    ROWS[name].check(worker)
