"""The task families: what the arm can be asked to do, and where the objects may stand.

Knows names and ranges only; the simulator is never imported here. A family's index is its place in
`FAMILIES` and is stored in every episode, so new families go to the end.

The two members of a same-scene pair share object, layout range and hand start. Only what happens,
and the state it starts from, tells them apart.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of task."""

    name: str
    """Short name, also the key of its instructions."""
    environment: str
    """Meta-World's name of the environment and of its scripted expert."""
    partner: str | None
    """The family in the same scene with the opposite aim."""
    low: tuple[float, float]
    """Least (x, y) of the object on the table, metres, world frame."""
    high: tuple[float, float]
    """Greatest (x, y) of the object."""
    vector: tuple[float, ...]
    """Meta-World's layout vector, with zeros where the drawn x and y go."""
    slot: int = 0
    """Where in `vector` x goes; y follows it."""

    def layout_vector(self, x: float, y: float) -> tuple[float, ...]:
        """Meta-World's layout vector for an object at (x, y), metres."""
        return (*self.vector[: self.slot], x, y, *self.vector[self.slot + 2 :])


def _pair(
    noun: str, low: tuple[float, float], high: tuple[float, float], height: float
) -> tuple[Family, Family]:
    """The two families that open and close the same thing, standing at `height` metres."""
    vector = (0.0, 0.0, height)
    opening, closing = f"{noun}-open", f"{noun}-close"
    return (
        Family(opening, f"{noun}-open-v3", closing, low, high, vector),
        Family(closing, f"{noun}-close-v3", opening, low, high, vector),
    )


# The ranges are wider than Meta-World's own, as wide as its experts still succeed nearly always
# from any hand start in `nuisances.START_LOW..START_HIGH`.
FAMILIES: tuple[Family, ...] = (
    *_pair("drawer", (-0.20, 0.82), (0.20, 0.94), 0.0),
    *_pair("door", (-0.05, 0.85), (0.15, 0.95), 0.15),
    *_pair("window", (-0.15, 0.70), (0.15, 0.90), 0.16),
    *_pair("faucet", (-0.20, 0.75), (0.20, 0.90), 0.0),
    Family(
        "button-press",
        "button-press-topdown-v3",
        None,
        (-0.20, 0.75),
        (0.20, 0.90),
        (0.0, 0.0, 0.115),
    ),
    Family(
        "puck-slide",
        "plate-slide-v3",
        None,
        (-0.12, 0.80),
        (0.12, 0.92),
        (0.0, 0.6, 0.0, 0.0, 0.0, 0.0),
        slot=3,
    ),
    Family("handle-press", "handle-press-v3", None, (-0.20, 0.75), (0.20, 0.95), (0.0, 0.0, 0.0)),
    Family("coffee-button", "coffee-button-v3", None, (-0.20, 0.80), (0.20, 0.95), (0.0, 0.0, 0.0)),
    Family("hammer", "hammer-v3", None, (-0.15, 0.40), (0.15, 0.55), (0.0, 0.0, 0.0)),
    Family("dial-turn", "dial-turn-v3", None, (-0.15, 0.65), (0.15, 0.85), (0.0, 0.0, 0.0)),
)

NAMES: tuple[str, ...] = tuple(family.name for family in FAMILIES)


def index_of(name: str) -> int:
    """The stored index of a family.

    Raises:
        ValueError: no family has that name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(NAMES)}")
    return NAMES.index(name)
