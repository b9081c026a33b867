"""A decoded photo, the formats, and the limits on a file before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..pixels import Pixels
from .metadata.content import NOTHING, Metadata

Samples = NDArray[np.uint16]
"""The samples of a 16-bit photo: uint16 (H, W, C)."""
Colour = Literal["RGB", "L", "P"]
"""Colour model that a photo is written back in: colour, greyscale or palette."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "HEIC", "AVIF", "JXL")
"""The formats that are read and written."""
RAW = "RAW"
"""The format of a camera's unprocessed photos, of any make, which are read but not written."""
FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jif": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".hif": "HEIC",
    ".avif": "AVIF",
    ".jxl": "JXL",
}
"""Lower-case suffix of a file's name -> its format, one of FORMATS."""
RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
"""Lower-case suffixes of RAW photos' names."""
PHOTO_SUFFIXES = (*FORMAT_OF_SUFFIX, *RAW_SUFFIXES)
"""Lower-case suffixes of the names of all photos that are read."""

ExifPolicy = Literal["without-gps", "with-gps", "none"]
"""The metadata that is kept: all but the place (GPS), all, or none but the colour space and the resolution."""
EXIF_POLICIES: tuple[ExifPolicy, ...] = get_args(ExifPolicy)
"""All EXIF policies."""


class ImageError(UserError):
    """A photo that can't be read or written: one sentence, without the photo's name."""


class UnknownFormatError(ImageError):
    """A file in a format that is not read."""


class TooLargeError(ImageError):
    """A photo that is larger than the limits, in bytes or pixels."""


class OverLimitError(TooLargeError):
    """A photo over `Limits.max_pixels` or `max_bytes`, which larger limits admit."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that are checked before decoding. The defaults admit photos of every common camera."""

    max_bytes: int = 2**30
    """Largest file, bytes."""
    max_pixels: int = 160_000_000
    """Largest width x height, pixels."""
    max_side: int = 65_535
    """Largest width or height, pixels. A JPEG can't have a longer one."""

    @classmethod
    def for_pixels(cls, max_pixels: int) -> Self:
        """The limits for pictures of up to `max_pixels`, and files of up to 8 bytes for each of these."""
        return cls(max_pixels=max_pixels, max_bytes=max(cls.max_bytes, 8 * max_pixels))


DEFAULT_LIMITS = Limits()
"""Limits that apply unless others are given."""


@dataclass(frozen=True)
class Header:
    """A file's format and size, read from its header."""

    format: str
    """One of FORMATS, or RAW."""
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
    """Format of its bytes, whatever the file's name says; one of FORMATS, or RAW."""
    colour: Colour = "RGB"
    """Colour model to write it back in: RGB, L (greyscale) or P (palette)."""
    alpha: Pixels | None = None
    """Alpha, uint8 (H, W), 0 transparent to 255 opaque, not premultiplied; None for an opaque photo."""
    deep: Samples | None = None
    """Original samples of a 16-bit photo, uint16 (H, W, C): C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha;
    None for 8 bits."""
    metadata: Metadata = NOTHING
    """All that it carries besides: EXIF, XMP, IPTC, texts, resolution and colour space."""
    bits: int = 16
    """Bits per channel of the file that `deep` was read from."""
    lossless: bool = False
    """True for a lossless WebP, JPEG XL or HEIC, which is written back without loss."""
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
        colours = 1 if deep.shape[-1] < 3 else 3
        shifted = deep.copy()
        for rows in row_blocks(len(deep)):
            change = pixels[rows].astype(np.int32) - self.pixels[rows]
            if colours == 1:
                change = np.rint(change @ LUMA)[..., None].astype(np.int32)
            shifted[rows, :, :colours] = np.clip(deep[rows, :, :colours] + change * 257, 0, 65_535)
        return shifted


def format_to_write(format: str, requested: str | None = None) -> str:
    """The format of a result: the requested one, else the photo's own `format`; TIFF for a RAW photo."""
    return requested or ("TIFF" if format == RAW else format)


def check_size(width: int, height: int, limits: Limits = DEFAULT_LIMITS) -> None:
    """Raise ImageError for a picture without pixels, or one larger than `limits` allow."""
    if width < 1 or height < 1:
        raise ImageError(f"it is {width}x{height} pixels: nothing to restore")
    if max(width, height) > limits.max_side:
        raise TooLargeError(
            f"it is {width}x{height} pixels, a side longer than the limit of {limits.max_side:,}"
        )
    if width * height > limits.max_pixels:
        raise OverLimitError(f"it is {width}x{height} pixels, more than the limit of {limits.max_pixels:,}")


LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B in a grey level (ITU-R BT.601), as in Pillow's conversion to greyscale."""


ROWS_AT_ONCE = 64
"""Rows of a block."""


def check_bytes(length: int, limits: Limits = DEFAULT_LIMITS) -> None:
    """Raise ImageError for an empty file, or one with more bytes than `limits` allow; call it before reading."""
    if length == 0:
        raise ImageError("the file is empty")
    if length > limits.max_bytes:
        raise OverLimitError(f"the file has {length:,} bytes, more than the limit of {limits.max_bytes:,}")


def to_8_bits(deep: Samples) -> Pixels:
    """Round 16-bit samples to the nearest of 256 levels."""
    result = np.empty(deep.shape, np.uint8)
    for rows in row_blocks(len(deep)):
        result[rows] = (deep[rows].astype(np.uint32) + 128) // 257
    return result


def row_blocks(height: int) -> list[slice]:
    """Blocks of rows to work on one after another: intermediate results of 100 megapixels would take gigabytes."""
    return [slice(at, at + ROWS_AT_ONCE) for at in range(0, height, ROWS_AT_ONCE)]


def one_line(error: Exception) -> str:
    """The message of an error in one line of at most 200 characters; its type's name if it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
