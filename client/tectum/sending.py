"""How a stream's pixels travel: raw, in shared memory, brought to the model's size, or as JPEG.

Done where frames leave, so that one which a newer one replaces costs nothing. Pictures that are
files already travel as they are.
"""

import io
import re
from dataclasses import dataclass

from tectum import images, models
from tectum.errors import invalid
from tectum.resizing import resized
from tectum.sharing import SharedPlaces
from tectum.v1 import image_pb2, model_pb2, stream_pb2
from tectum.vocabulary import Interpolation, ResizeMode

_JPEG_SIDE = 65_500
"""Pixels, as libjpeg has it."""
_ALLOWED = 'allowed: "raw", "shared", "resized", or "jpeg:Q" with a quality Q of 1 to 100'


@dataclass(frozen=True, slots=True)
class Sending:
    """One way."""

    resizes: bool = False
    """Whether pixels are brought to the model's size first."""
    quality: int | None = None
    """Of JPEG. None: pixels stay pixels."""
    shares: bool = False
    """Whether they lie in the worker's shared memory, where it gives some to this host."""

    def check(self, image: image_pb2.Image) -> None:
        """Refuse a picture that cannot travel so.

        Raises:
            InvalidInput: it is too long or too wide for a JPEG.
        """
        height, width = image.raw.height, image.raw.width
        if self.quality is not None and max(height, width) > _JPEG_SIDE:
            found = f"found {height}×{width} pixels"
            raise invalid("image", f"{found}; allowed as JPEG: at most {_JPEG_SIDE} a side")

    def dress(
        self,
        frame: stream_pb2.StreamFrame,
        read_as: model_pb2.ImageInput | None,
        places: SharedPlaces | None = None,
    ) -> None:
        """Make of a frame with pixels what shall travel.

        Args:
            frame: the message, in place.
            read_as: what the worker said pictures become; None: nothing, and none is resized.
            places: the shared memory that it gave; None: none.
        """
        if not frame.image.HasField("raw"):
            return
        if places is not None:
            shared = places.put(frame.frame_id, frame.image.raw)
            if shared is not None:
                frame.ClearField("image")
                frame.shared.CopyFrom(shared)
        elif self.quality is not None:
            frame.image.encoded = _jpeg(frame.image.raw, self.quality)
        elif self.resizes and read_as is not None and (to := _known(read_as)) is not None:
            images.put_image(frame.image, resized(images.pixels(frame.image.raw), to), "image")
            frame.resized.size, frame.resized.resize_to = read_as.size, read_as.resize_to
            frame.resized.resize_mode = read_as.resize_mode
            frame.resized.interpolation = read_as.interpolation


RAW = Sending()
"""Pixels as they are."""


def sending(send: str) -> Sending:
    """The way that a stream's option `send` names.

    Raises:
        InvalidInput: it names none, or one that needs a library which is not there.
    """
    jpeg = re.fullmatch(r"jpeg:(\d{1,3})", send) if isinstance(send, str) else None
    if jpeg is not None and 1 <= int(jpeg[1]) <= 100:
        try:
            import PIL  # noqa: F401
        except ImportError:
            needs = 'JPEG needs Pillow: pip install "tectum[jpeg]"'
            raise invalid("send", f"found {send!r}; {needs}") from None
        return Sending(quality=int(jpeg[1]))
    if send not in ("raw", "resized", "shared"):
        raise invalid("send", f"found {send!r}; {_ALLOWED}")
    return Sending(resizes=send == "resized", shares=send == "shared")


def _known(read_as: model_pb2.ImageInput) -> models.ImageInput | None:
    """What the worker said, if this SDK knows how that is done; None: it is newer."""
    to = models.image_input(read_as)
    unknown = ResizeMode.UNKNOWN, Interpolation.UNKNOWN
    return None if to.resize_mode in unknown or to.interpolation in unknown else to


def _jpeg(raw: image_pb2.RawImage, quality: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(images.pixels(raw)).save(file, "jpeg", quality=quality)
    return file.getvalue()
