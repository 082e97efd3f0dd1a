"""What an image says about itself before any of its pixels is decoded.

The shape every format answers in, and the recognition of formats by their first bytes. Nothing
here knows how a header is laid out; `jpeg`, `png` and `webp` do.
"""

from dataclasses import dataclass
from typing import Literal

from tectum_core.image.errors import TooLarge, Unreadable, Unsupported

__all__ = ["Format", "ImageHeader", "check_size", "recognise"]

Format = Literal["JPEG", "PNG", "WebP"]

ALLOWED = "allowed are JPEG, PNG and WebP"

# Refused by name, so that the sender learns what is wrong with the file rather than that it is.
_FOREIGN = (
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\0\0\x01\0", "ICO"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"qoif", "QOI"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
)
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"hevx": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header announces; that the pixels can be decoded is not proved by it."""

    format: Format
    """The file format."""
    width: int
    """Pixels per row of the decoded image, orientation applied."""
    height: int
    """Rows of the decoded image, orientation applied."""
    mode: str
    """How pixels are stored: "1", "L", "LA", "P", "RGB", "RGBA" or "CMYK" (which includes YCCK);
    with ";16" where a channel has 16 bits."""
    frames: int = 1
    """Pictures in the file; more than one means animated, which `decode` refuses."""
    orientation: int = 1
    """EXIF orientation, 1 to 8: how the stored rows are turned to be upright."""

    @property
    def animated(self) -> bool:
        """Whether the file shows more than one picture."""
        return self.frames > 1

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) of the stored rows, before they are turned upright."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


def recognise(data: bytes) -> Format:
    """Tell the format by the first bytes.

    Raises:
        Unreadable: nothing, or nothing known, was found.
        Unsupported: a known format that is not decoded here; the message names it.
    """
    if not data:
        raise Unreadable("empty image data: 0 bytes")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        name = _BRANDS.get(brand, f"ISO media of brand {brand.decode('ascii', 'replace')!r}")
        raise Unsupported(f"the image is {name}; {ALLOWED}")
    for magic, name in _FOREIGN:
        if data.startswith(magic):
            raise Unsupported(f"the image is {name}; {ALLOWED}")
    start = data[:8].hex(" ")
    raise Unreadable(f"{len(data)} bytes beginning {start} are no known image; {ALLOWED}")


def check_size(header: ImageHeader, max_pixels: int) -> None:
    """Refuse an image whose header announces more than `max_pixels` pixels.

    Raises:
        TooLarge: it does.
    """
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise TooLarge(
            f"the {header.format} is {header.width}×{header.height} = {pixels} pixels; "
            f"allowed are {max_pixels}"
        )
