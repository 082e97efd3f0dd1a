"""What a data set says about itself: its columns, and `meta/world.json`.

Knows no simulator. The report and any reader that wants families, held-out sentences or reserved
layouts finds them in world.json, not in this package.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tabletop import GENERATOR_VERSION
from tabletop.families import FAMILIES
from tabletop.instructions import INSTRUCTIONS
from tabletop.layouts import COLUMNS, MARGIN, ROWS, TEST_CELLS
from tabletop.nuisances import ranges
from tabletop.tables import Feature
from tabletop.video import Encoding

CONTROL_RATE = 80
"""Rows per second: Meta-World acts every five physics steps of 2.5 ms."""
ROBOT = "meta-world sawyer"
CAMERA = "observation.images.front"


def features(size: int) -> dict[str, Feature]:
    """The recorded columns for pictures of `size`×`size` pixels."""
    matrix = tuple(f"row{row}_column{column}" for row in range(4) for column in range(4))
    return {
        "observation.state": Feature(
            "float32", (4,), ("hand_x", "hand_y", "hand_z", "gripper_opening")
        ),
        "action": Feature("float32", (4,), ("hand_dx", "hand_dy", "hand_dz", "gripper_effort")),
        "next.success": Feature("bool", (1,)),
        "camera.intrinsics": Feature("float32", (4,), ("fx", "fy", "cx", "cy")),
        "camera.extrinsics": Feature("float32", (16,), matrix),
        "layout": Feature("int64", (1,)),
        "task_family": Feature("int64", (1,)),
        CAMERA: Feature("video", (size, size, 3), ("height", "width", "channels")),
    }


def describe(
    *,
    split: str,
    seed: int,
    size: int,
    noise: float,
    wander: float,
    held_out_look: bool = False,
    encoding: Encoding,
    command: str,
    attempts: Mapping[int, list[int]],
) -> dict[str, Any]:
    """The content of world.json.

    Args:
        split: which split the folder holds.
        seed: of the run.
        size: side of the pictures, pixels.
        noise: on the expert's displacement commands.
        wander: share of stretches in which the hand went anywhere.
        held_out_look: surfaces have patterns that no usual episode has.
        encoding: of the films.
        command: that made it, without the output folder's path.
        attempts: per family index, how many attempts each kept episode took.
    """
    return {
        "generator_version": GENERATOR_VERSION,
        "command": command,
        "split": split,
        "seed": seed,
        "size": size,
        "noise": noise,
        "wander": wander,
        "encoding": asdict(encoding),
        "fps": CONTROL_RATE,
        "families": [
            {
                "index": index,
                "name": family.name,
                "environment": family.environment,
                "partner": family.partner,
                "object_low": family.low,
                "object_high": family.high,
                "episodes": len(attempts.get(index, [])),
                "attempts": sum(attempts.get(index, [])),
            }
            for index, family in enumerate(FAMILIES)
        ],
        "instructions": [
            {"text": text, "family": name, "held_out": held_out}
            for name, paraphrases in INSTRUCTIONS.items()
            for held_out, texts in ((False, paraphrases.train), (True, paraphrases.held_out))
            for text in texts
        ],
        "layouts": {
            "columns": COLUMNS,
            "rows": ROWS,
            "margin": MARGIN,
            "test_cells": sorted(TEST_CELLS),
        },
        "nuisances": ranges(held_out_look),
    }
