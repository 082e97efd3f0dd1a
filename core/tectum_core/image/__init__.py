"""Image bytes in, uint8 RGB out: the first room of the corridor that serving and training share.

Formats, pixel caps, orientation, inks and transparency are settled here, so that no one
downstream sees anything but upright RGB. Knows nothing of models or tensors and never imports
torch: a server's front decodes without it. Deterministic, and safe to call from many threads;
inflating and entropy decoding run without the GIL.

Colour profiles and gamma are not applied: the values are those in the file.
"""

from tectum_core.image.decoding import decode, probe
from tectum_core.image.errors import ImageError, TooLarge, Unreadable, Unsupported
from tectum_core.image.header import ImageHeader

__all__ = [
    "ImageError",
    "ImageHeader",
    "TooLarge",
    "Unreadable",
    "Unsupported",
    "decode",
    "probe",
]
