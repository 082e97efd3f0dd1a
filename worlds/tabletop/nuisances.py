"""What varies from episode to episode and says nothing about the task.

Camera, light, colours, surfaces, distractors and where the hand starts: drawn here as plain
numbers, pure functions of the episode's key, and applied by `stage`. A fixed camera would let raw
pixels solve the world; these draws are what makes representations earn their score.
"""

from collections.abc import Mapping
from colorsys import hsv_to_rgb
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tabletop.camera import View, extrinsics, intrinsics, project
from tabletop.plan import EpisodeKey, generator

Colour = tuple[float, float, float]
"""Red, green, blue in [0, 1]."""
Point = tuple[float, float, float]
"""Metres, world frame."""

LOOK_AT: Point = (0.0, 0.66, 0.20)
"""A point between hand and object, always in the middle of the picture."""
FIELD_OF_VIEW = 42.0
"""Vertical angle of the camera, degrees."""
BASE = {"azimuth": 135.0, "elevation": -30.0, "distance": 1.15}
"""From the robot's right, across its arm: neither the arm nor the object hides the other."""
SPREAD = {"azimuth": 30.0, "elevation": 10.0, "distance": 0.15}
"""Uniform deviation to either side: degrees, degrees, part of the distance."""

START_LOW: Point = (-0.12, 0.42, 0.16)
START_HIGH: Point = (0.12, 0.58, 0.28)
"""Where the hand starts. Meta-World's start is fixed per task and would give the task away."""

AMBIENT = (0.30, 0.50)
HEADLIGHT = (0.15, 0.40)
"""Light from everywhere, and from the camera: a part of full white."""
LIGHTS = 3
"""Directional lights, as many as Meta-World's scenes have."""
LIGHT = (0.10, 0.40)
"""Strength of each, from any side and at least 24° above the horizon."""

PATTERNS = {"plain": 0.35, "original": 0.35, "checker": 0.1, "stripes": 0.1, "blotches": 0.1}
"""Surfaces and how often each is drawn; `original` is the simulator's own texture, tinted."""
HELD_OUT_PATTERNS = {"rings": 0.5, "dots": 0.5}
"""Instead of them, where episodes shall look as none of a usual data set does."""
BLEND = 0.35
"""How far a pattern's second colour goes from the first towards another one of the palette."""
SHAPES = ("sphere", "box", "cylinder", "ellipsoid")
DISTRACTORS = (1, 4)
"""Least and greatest number of distractors."""
LYING_SIZE = (0.02, 0.045)
"""Half the extent of a distractor on the table, metres."""
HANGING_SIZE = (0.03, 0.08)
"""Half the extent of a distractor behind the scene, metres."""
PARTS = 6
"""Colours drawn for the object; its materials take them in turn."""
CONTRAST = 0.35
"""Least distance in RGB between the table and the arm, the fingers and the object's parts."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of any hue within bounds."""

    saturation: tuple[float, float]
    value: tuple[float, float]


# Surroundings are light and pale, what moves is dark or strong; hues are free. With any colour on
# anything 616 episodes were too few: README, "How hard it is".
PALETTES = {
    "arm": Palette((0.3, 1.0), (0.10, 0.60)),
    "pedestal": Palette((0.0, 0.5), (0.05, 0.5)),
    "finger": Palette((0.0, 1.0), (0.10, 0.60)),
    "part": Palette((0.2, 1.0), (0.15, 0.85)),
    "table": Palette((0.0, 0.35), (0.6, 0.95)),
    "rim": Palette((0.0, 0.4), (0.6, 1.0)),
    "floor": Palette((0.0, 0.4), (0.55, 0.95)),
    "sky": Palette((0.0, 0.4), (0.55, 0.95)),
    "distractor": Palette((0.2, 1.0), (0.2, 1.0)),
}


@dataclass(frozen=True, slots=True)
class Surface:
    """The look of a plane."""

    pattern: str
    first: Colour
    second: Colour
    seed: int
    """Of the pattern's own draws."""


@dataclass(frozen=True, slots=True)
class Light:
    """A directional light."""

    direction: Point
    """Unit vector, from the light into the scene."""
    diffuse: Colour


@dataclass(frozen=True, slots=True)
class Distractor:
    """A coloured shape that nothing can touch."""

    shape: str
    size: Point
    """Half extents, metres; equal where the shape is round."""
    position: Point
    turn: float
    """Around the vertical, radians."""
    colour: Colour


@dataclass(frozen=True, slots=True)
class Nuisances:
    """All of an episode's draws, except where the hand starts."""

    view: View
    arm: Colour
    pedestal: Colour
    fingers: tuple[Colour, Colour]
    parts: tuple[Colour, ...]
    table: Surface
    rim: Colour
    floor: Surface
    sky: tuple[Colour, Colour]
    """At the horizon and above."""
    ambient: float
    headlight: float
    lights: tuple[Light, ...]
    distractors: tuple[Distractor, ...]


def draw_start(key: EpisodeKey, attempt: int) -> Point:
    """Where the hand starts, metres; belongs to the attempt, for it changes what happens."""
    x, y, z = generator(key, attempt, "start").uniform(START_LOW, START_HIGH)
    return float(x), float(y), float(z)


def draw_view(key: EpisodeKey) -> View:
    """The episode's camera."""
    azimuth, elevation, distance = generator(key, 0, "camera").uniform(-1, 1, size=3)
    return View(
        LOOK_AT,
        distance=BASE["distance"] * (1 + SPREAD["distance"] * distance),
        azimuth=BASE["azimuth"] + SPREAD["azimuth"] * azimuth,
        elevation=BASE["elevation"] + SPREAD["elevation"] * elevation,
    )


def draw_nuisances(key: EpisodeKey, held_out_look: bool = False) -> Nuisances:
    """Everything about how an episode looks.

    Args:
        key: which one.
        held_out_look: table and floor have patterns that no usual episode has.
    """
    view = draw_view(key)
    patterns = HELD_OUT_PATTERNS if held_out_look else PATTERNS
    paint = generator(key, 0, "colour")
    table = _surface(paint, "table", patterns)
    against = (table.first, table.second)
    bright = generator(key, 0, "light")
    return Nuisances(
        view=view,
        arm=_distinct(paint, "arm", against),
        pedestal=_colour(paint, "pedestal"),
        fingers=(_distinct(paint, "finger", against), _distinct(paint, "finger", against)),
        parts=tuple(_distinct(paint, "part", against) for _ in range(PARTS)),
        table=table,
        rim=_colour(paint, "rim"),
        floor=_surface(paint, "floor", patterns),
        sky=(_colour(paint, "sky"), _colour(paint, "sky")),
        ambient=float(bright.uniform(*AMBIENT)),
        headlight=float(bright.uniform(*HEADLIGHT)),
        lights=tuple(_light(bright) for _ in range(LIGHTS)),
        distractors=_distractors(generator(key, 0, "objects"), view),
    )


def ranges(held_out_look: bool = False) -> dict[str, Any]:
    """The constants of this module, for the data set's own record."""
    return {
        "camera": {
            "look_at": LOOK_AT,
            "field_of_view": FIELD_OF_VIEW,
            "base": BASE,
            "uniform_spread": SPREAD,
        },
        "hand_start": {"low": START_LOW, "high": START_HIGH},
        "light": {
            "ambient": AMBIENT,
            "headlight": HEADLIGHT,
            "directional": LIGHT,
            "lights": LIGHTS,
        },
        "surfaces": HELD_OUT_PATTERNS if held_out_look else PATTERNS,
        "distractors": {"shapes": SHAPES, "number": DISTRACTORS},
        "colours": {name: asdict(palette) for name, palette in PALETTES.items()},
        "contrast_with_table": CONTRAST,
    }


def _colour(random: np.random.Generator, palette: str) -> Colour:
    bounds = PALETTES[palette]
    return hsv_to_rgb(
        random.uniform(0, 1), random.uniform(*bounds.saturation), random.uniform(*bounds.value)
    )


def _distinct(random: np.random.Generator, palette: str, others: tuple[Colour, ...]) -> Colour:
    """A colour far from all others: the first of some draws that is far enough, else the best."""
    best, best_distance = (0.0, 0.0, 0.0), -1.0
    for _ in range(32):
        colour = _colour(random, palette)
        distance = min(float(np.linalg.norm(np.subtract(colour, other))) for other in others)
        if distance >= CONTRAST:
            return colour
        if distance > best_distance:
            best, best_distance = colour, distance
    return best


def _surface(random: np.random.Generator, palette: str, patterns: Mapping[str, float]) -> Surface:
    pattern = str(random.choice(list(patterns), p=list(patterns.values())))
    first, other = _colour(random, palette), _colour(random, palette)
    red, green, blue = (a + BLEND * (b - a) for a, b in zip(first, other, strict=True))
    return Surface(
        pattern,
        first,
        first if pattern in ("plain", "original") else (red, green, blue),
        int(random.integers(2**31)),
    )


def _light(random: np.random.Generator) -> Light:
    azimuth, height = random.uniform(0, 2 * np.pi), random.uniform(0.4, 1.0)
    level = np.sqrt(1 - height**2)
    direction = (float(level * np.cos(azimuth)), float(level * np.sin(azimuth)), float(-height))
    strength = random.uniform(*LIGHT)
    tint = random.uniform(0.75, 1.0, size=3)
    red, green, blue = strength * tint
    return Light(direction, (float(red), float(green), float(blue)))


def _distractors(random: np.random.Generator, view: View) -> tuple[Distractor, ...]:
    wanted = int(random.integers(DISTRACTORS[0], DISTRACTORS[1] + 1))
    found: list[Distractor] = []
    while len(found) < wanted:
        candidate = _distractor(random)
        if not hides_the_work(candidate, view):
            found.append(candidate)
    return tuple(found)


def _distractor(random: np.random.Generator) -> Distractor:
    """One shape: on the table beside the work, or hanging behind it."""
    lying = random.random() < 0.6
    shape = SHAPES[random.integers(len(SHAPES))]
    size = random.uniform(*(LYING_SIZE if lying else HANGING_SIZE), size=3)
    if shape == "sphere":
        size[:] = size[0]
    elif shape == "cylinder":
        size[1] = size[0]
    if lying:
        side = random.choice([-1.0, 1.0])
        place = (side * random.uniform(0.36, 0.62), random.uniform(0.28, 0.92), size[2])
    elif random.random() < 0.5:
        place = (random.uniform(-1.1, -0.75), random.uniform(0.4, 1.4), random.uniform(-0.1, 0.7))
    else:
        place = (random.uniform(-0.8, 0.5), random.uniform(1.1, 1.5), random.uniform(-0.1, 0.5))
    x, y, z = place
    return Distractor(
        shape,
        (float(size[0]), float(size[1]), float(size[2])),
        (float(x), float(y), float(z)),
        float(random.uniform(0, 2 * np.pi)),
        _colour(random, "distractor"),
    )


# The space in which hand and object meet, as the corners of a box.
_WORK = np.array(
    [(x, y, z) for x in (-0.2, 0.2) for y in (0.45, 0.9) for z in (0.0, 0.3)], np.float64
)


def hides_the_work(distractor: Distractor, view: View) -> bool:
    """Whether a shape is nearer than the work and overlaps its picture."""
    camera = intrinsics(2, FIELD_OF_VIEW)  # any size serves: only overlaps are asked for
    corners, depths = project(_WORK, camera, extrinsics(view))
    centre, depth = project([distractor.position], camera, extrinsics(view))
    radius = float(np.linalg.norm(distractor.size))
    if depth[0] <= radius:
        return True
    reach = camera[0] * radius / depth[0]
    overlaps = np.all(centre[0] + reach > corners.min(0)) and np.all(
        centre[0] - reach < corners.max(0)
    )
    return bool(overlaps and depth[0] < depths.mean())
