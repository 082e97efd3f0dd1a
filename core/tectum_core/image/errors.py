"""Everything that decoding an image raises.

    ImageError              a ValueError: the bytes can never succeed as they are
    ├── Unreadable          empty, truncated, damaged, or no image at all
    ├── Unsupported         a sound file of a kind that is not decoded here; named in the message
    └── TooLarge            more pixels than the caller allows; refused before any is decoded

Each message says what was found and what is allowed.
"""

__all__ = ["ImageError", "TooLarge", "Unreadable", "Unsupported"]


class ImageError(ValueError):
    """The bytes cannot become pixels; sending them again will not help."""


class Unreadable(ImageError):
    """Empty, truncated or damaged data, or data in which no image was recognised."""


class Unsupported(ImageError):
    """An image of a format or variant that is refused on purpose."""


class TooLarge(ImageError):
    """The header announces more pixels than allowed."""
