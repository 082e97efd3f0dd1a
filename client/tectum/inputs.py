"""What a caller hands in besides arrays, texts and pictures: masks and frames.

Plain values; what they become on the wire, and whether the wire allows them, is `requests.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tectum.images import ImageLike
from tectum.vocabulary import ImportanceSourceName, MaskKindName


@dataclass(frozen=True, slots=True)
class Mask:
    """What to hide before the model fills it in.

    Its elements are patches of an image, tubelets of a clip, tokens of a text, or steps of an
    action sequence. `Mask()` is a random one at the ratio the model was trained with, seed 0.
    """

    kind: MaskKindName | None = None
    """`random`: each element alike. `block`: rectangles, or one run of steps. `importance`: what
    matters most in a picture or clip. `tube`: a clip's same patches in every frame. `explicit`: the
    elements in `hidden`. None: random, or explicit if `hidden` is given."""
    ratio: float | None = None
    """Share of elements to hide, above 0 and below 1. None: as trained. Not with `explicit`."""
    seed: int | None = None
    """Equal seeds hide equal elements, 0 to 2**64 − 1. None: 0."""
    hidden: Sequence[int] = ()
    """For `explicit`: indices of the hidden elements, row by row from 0, none twice."""
    source: ImportanceSourceName | None = None
    """For `importance`: what matters. `attention`: what the encoder attends to most. `change`: in a
    clip, what differs most from the frames before and after. None: attention."""
    hint: float | None = None
    """For `importance`: share of what is left visible that is drawn from all elements alike, 0 to
    1; the rest is what matters least. None: 0."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture from a live camera."""

    image: ImageLike
    """The picture; its pixels are copied when it is sent."""
    captured_at: float | None = None
    """When the shutter closed, in seconds since 1970 on this computer's clock (`time.time()`),
    unless the stream says otherwise (`own_clock`); rises from frame to frame. None: when the worker
    received it, and then there are no latent actions."""
    frame_id: int | None = None
    """Names the frame in the answers; rises from frame to frame. None: the next free number."""
    lifespan: float | None = None
    """Seconds the frame stays useful after `captured_at`, at most 60. None: the stream's own."""
