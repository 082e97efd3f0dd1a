"""Requests that work when pasted, for the documentation; a test posts every one of them.

The pictures are real PNG files of 64×64, drawn here. What a model must agree with stands in one
constant each; the values are those of the model that the gateway's own tests and demo serve.
"""

import base64
from typing import Any

import numpy as np

from tectum_server.gateway import png

INTERVAL_MS = 50
"""Time between two frames that the example model's latent actions are trained at."""
CLIP_FRAMES = 4
"""Frames in a clip, even."""
ACTION, ACTION_STEPS = 4, 4
"""Numbers in one of the robot's actions, and actions between two frames of a world model."""
SIDE = 64
"""Rows and columns of the examples' pictures."""


def _drawing(shift: int) -> str:
    """A picture as base64 PNG: a colour gradient, and a square that `shift` moves right."""
    ramp = np.linspace(0, 255, SIDE, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(128)), axis=-1)
    pixels[24:40, 16 + shift : 32 + shift] = (220, 40, 40)
    return base64.b64encode(png.encode(pixels)).decode()


PICTURE, LATER = _drawing(0), _drawing(4)

Examples = dict[str, Any]

EMBED_IMAGES: Examples = {
    "two pictures": {"value": {"images": [PICTURE, LATER]}},
    "compact": {
        "value": {
            "images": [f"data:image/png;base64,{PICTURE}"],
            "data_type": "int8",
            "encoding_format": "base64",
        }
    },
}
EMBED_TEXTS: Examples = {"two texts": {"value": {"texts": ["open the drawer", "push the block"]}}}
EMBED_CLIPS: Examples = {
    "one clip": {
        "summary": "needs a model with a video path",
        "value": {"clips": [{"frames": [PICTURE, LATER] * (CLIP_FRAMES // 2)}]},
    }
}
SIMILARITY: Examples = {
    "a picture and two texts": {
        "value": {
            "left": [{"image": PICTURE}],
            "right": [{"text": "open the drawer"}, {"text": "push the block"}],
        }
    }
}
RECONSTRUCT: Examples = {
    "a picture": {"value": {"image": PICTURE, "mask": {"kind": "random", "ratio": 0.5, "seed": 7}}},
    "a text": {
        "summary": "needs a model that reconstructs texts",
        "value": {"text": "open the [MASK]", "top_k": 3},
    },
}
LATENT_ACTIONS: Examples = {
    "two frames": {
        "value": {
            "frames": [{"image": PICTURE}, {"image": LATER}],
            "interval_ms": INTERVAL_MS,
        }
    }
}
ROLLOUT: Examples = {
    "two candidates": {
        "summary": "needs a model with a world model that reads the robot's own actions",
        "value": {
            "frames": [PICTURE],
            "candidates": [[[0.0] * ACTION] * ACTION_STEPS, [[0.5] * ACTION] * ACTION_STEPS],
            "goal": LATER,
        },
    }
}
OPENAI: Examples = {
    "as OpenAI's clients send it": {
        "value": {"model": "", "input": ["open the drawer"], "encoding_format": "float"}
    }
}
