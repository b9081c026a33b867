"""A decoded photo, the formats, and the limits on a file before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..pixels import Pixels

Samples = NDArray[np.uint16]
"""The samples of a 16-bit photo: uint16 (H, W, C)."""
Colour = Literal["RGB", "L", "P"]
"""Colour model that a photo is written back in: colour, greyscale or palette."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
"""The formats that are read and written, by Pillow's names."""
FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
"""Lower-case suffix of a file's name -> its format."""

ExifPolicy = Literal["without-gps", "with-gps", "none"]
"""The EXIF that is kept: all but the place (GPS), all, or none."""
EXIF_POLICIES: tuple[ExifPolicy, ...] = get_args(ExifPolicy)
"""All EXIF policies."""


class ImageError(UserError):
    """A photo that can't be read or written: one sentence, without the photo's name."""


class UnknownFormatError(ImageError):
    """A file that is in none of `FORMATS`."""


class TooLargeError(ImageError):
    """A photo that is larger than the limits, in bytes or pixels."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that are checked before decoding. The defaults admit photos of every common camera."""

    max_bytes: int = 256 * 2**20
    """Largest file, bytes."""
    max_pixels: int = 89_478_485
    """Largest width x height, pixels. The default is Pillow's own limit, which can't be exceeded."""
    max_side: int = 32_768
    """Largest width or height, pixels."""


DEFAULT_LIMITS = Limits()
"""Limits that apply unless others are given."""


@dataclass(frozen=True)
class Header:
    """A file's format and size, read from its header."""

    format: str
    """One of FORMATS."""
    height: int
    """Height of the upright photo, pixels."""
    width: int
    """Width of the upright photo, pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """A decoded photo: pixels for the restorer, and the properties to write back."""

    pixels: Pixels
    """The photo, upright, uint8 (H, W, 3) RGB; a greyscale photo has three equal channels."""
    format: str
    """Format of its bytes, whatever the file's name says; one of FORMATS."""
    colour: Colour = "RGB"
    """Colour model to write it back in: RGB, L (greyscale) or P (palette)."""
    alpha: Pixels | None = None
    """Alpha, uint8 (H, W), 0 transparent to 255 opaque, not premultiplied; None for an opaque photo."""
    deep: Samples | None = None
    """Original samples of a 16-bit photo, uint16 (H, W, C): C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha;
    None for 8 bits."""
    icc_profile: bytes | None = None
    """ICC profile; None for a photo without one."""
    exif: bytes | None = None
    """EXIF without orientation and thumbnail, beginning with `Exif\\0\\0`; None for a photo without any."""
    lossless: bool = False
    """True for a lossless WebP, which is written back without loss."""
    notes: tuple[str, ...] = ()
    """Properties that could not be kept, one phrase each."""

    def with_pixels(self, pixels: Pixels) -> Image:
        """A copy of this photo with other pixels of the same shape; 16-bit samples change by the same amount.

        Raises ValueError for another shape or dtype.
        """
        if pixels.shape != self.pixels.shape or pixels.dtype != np.uint8:
            raise ValueError(
                f"expected uint8 {self.pixels.shape}, got {pixels.dtype} {pixels.shape}: the size must stay"
            )
        deep = None if self.deep is None else self._shift_samples(self.deep, pixels)
        return replace(self, pixels=pixels, deep=deep)

    def _shift_samples(self, deep: Samples, pixels: Pixels) -> Samples:
        """Add the change from the photo's own pixels to `pixels` to the colours of `deep`."""
        change = pixels.astype(np.int32) - self.pixels
        colours = 1 if deep.shape[-1] < 3 else 3
        if colours == 1:
            change = np.rint(change @ LUMA)[..., None].astype(np.int32)
        shifted = deep.copy()
        shifted[..., :colours] = np.clip(deep[..., :colours] + change * 257, 0, 65_535)
        return shifted


LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B in a grey level (ITU-R BT.601), as in Pillow's conversion to greyscale."""


def check_bytes(length: int, limits: Limits = DEFAULT_LIMITS) -> None:
    """Raise ImageError for an empty file, or one with more bytes than `limits` allow; call it before reading."""
    if length == 0:
        raise ImageError("the file is empty")
    if length > limits.max_bytes:
        raise TooLargeError(f"the file has {length:,} bytes, more than the limit of {limits.max_bytes:,}")


def to_8_bits(deep: Samples) -> Pixels:
    """Round 16-bit samples to the nearest of 256 levels."""
    return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)


def one_line(error: Exception) -> str:
    """The message of an error in one line of at most 200 characters; its type's name if it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
