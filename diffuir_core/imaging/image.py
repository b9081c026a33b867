"""A decoded photo, the formats there are, and the limits on what is let in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

Pixels = NDArray[np.uint8]
Samples = NDArray[np.uint16]
Colour = Literal["RGB", "L", "P"]

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}

ExifPolicy = Literal["without-gps", "with-gps", "none"]
"""Which of a photo's EXIF is kept: all but where it was taken, that too, or none of it."""
EXIF_POLICIES: tuple[ExifPolicy, ...] = get_args(ExifPolicy)


class ImageError(UserError):
    """One photo that cannot be read or written: one sentence, without the photo's name."""


class UnknownFormatError(ImageError):
    """It is of no format that is read here."""


class TooLargeError(ImageError):
    """It is larger than the limits allow, in bytes or pixels."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused before decoding. Defaults let every common camera through."""

    max_bytes: int = 256 * 2**20
    """Largest file, in bytes."""
    max_pixels: int = 89_478_485
    """Largest width x height. Pillow's own bomb limit, which stands whatever is set here."""
    max_side: int = 32_768
    """Largest width or height, in pixels."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Header:
    """What a file says of itself. format: one of FORMATS; height, width: of the upright photo, in pixels."""

    format: str
    height: int
    width: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """A decoded photo: pixels for the restorer, and what it carried besides."""

    pixels: Pixels
    """uint8 (H, W, 3), RGB, upright; a greyscale photo has three equal channels."""
    format: str
    """One of FORMATS: what the bytes were, whatever the file's name says."""
    colour: Colour = "RGB"
    """What to go back to: RGB, L (greyscale) or P (palette)."""
    alpha: Pixels | None = None
    """uint8 (H, W), 0 transparent to 255 opaque, not premultiplied; None where there is none."""
    deep: Samples | None = None
    """uint16 (H, W, C): the original samples of a 16-bit photo; C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and
    alpha."""
    icc_profile: bytes | None = None
    exif: bytes | None = None
    """EXIF without orientation and thumbnail, beginning with `Exif\\0\\0`."""
    lossless: bool = False
    """True for a WebP that was stored without loss, which is written that way again."""
    notes: tuple[str, ...] = ()
    """What could not be kept, one phrase each."""

    def with_pixels(self, pixels: Pixels) -> Image:
        """The same photo with other pixels of the same shape; 16-bit samples change by as much."""
        if pixels.shape != self.pixels.shape or pixels.dtype != np.uint8:
            raise ValueError(
                f"expected uint8 {self.pixels.shape}, got {pixels.dtype} {pixels.shape}: the size must stay"
            )
        deep = None if self.deep is None else self._moved(self.deep, pixels)
        return replace(self, pixels=pixels, deep=deep)

    def _moved(self, deep: Samples, pixels: Pixels) -> Samples:
        """`deep` with the change from the pixels that are there to `pixels` added to its colours."""
        change = pixels.astype(np.int32) - self.pixels
        colours = 1 if deep.shape[-1] < 3 else 3
        if colours == 1:
            change = np.rint(change @ LUMA)[..., None].astype(np.int32)
        moved = deep.copy()
        moved[..., :colours] = np.clip(deep[..., :colours] + change * 257, 0, 65_535)
        return moved


LUMA = np.array([0.299, 0.587, 0.114])
"""Of R, G and B (ITU-R BT.601), as Pillow makes a colour photo grey."""


def check_bytes(length: int, limits: Limits = DEFAULT_LIMITS) -> None:
    """Raises ImageError for a file of no bytes or of more than `limits` allows; ask before reading it."""
    if length == 0:
        raise ImageError("the file is empty")
    if length > limits.max_bytes:
        raise TooLargeError(f"the file has {length:,} bytes, more than the limit of {limits.max_bytes:,}")


def to_8_bits(deep: Samples) -> Pixels:
    """16-bit samples as the nearest of 256 levels."""
    return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)


def one_line(error: Exception) -> str:
    """What an error says, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
