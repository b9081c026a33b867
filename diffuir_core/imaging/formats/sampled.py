"""Files whose samples are read as arrays, for depths and colour models that Pillow has no modes for."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile

from ..image import ImageError, row_blocks

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Planes:
    """The samples of a photo, as they lie in its file."""

    colours: Array
    """uint8 or uint16 (H, W, C) in full range: C = 1 grey, 3 RGB, 4 CMYK."""
    alpha: Array | None = None
    """uint8 or uint16 (H, W), not premultiplied; None for an opaque photo."""


class SampledFile(ImageFile.ImageFile):
    """An opened file, with the size and the metadata that Pillow has for its own formats.

    `info` has the ICC profile once `planes` has returned.
    """

    lossless = False
    """Whether the photo is stored without loss."""
    bits = 16
    """Bits per channel of a photo of more than 8."""

    @abstractmethod
    def planes(self, notes: list[str]) -> Planes:
        """Decode the photo; appends to `notes` what could not be kept. Raises any exception for a damaged file."""


def scaled(values: Array, bits: int) -> Array:
    """Scale unsigned integers of `bits` bits to the full range of 8 or 16 bits, to the nearest level."""
    if bits in (8, 16):
        return values.astype(np.uint8 if bits == 8 else np.uint16, copy=False)
    if bits > 16:
        return (values >> np.array(bits - 16, values.dtype)).astype(np.uint16)
    if bits < 8:
        return (values * (255 / (2**bits - 1)) + 0.5).astype(np.uint8)
    return in_blocks(values, np.uint16, lambda block: np.rint(block * (65_535 / (2**bits - 1))))


def from_floats(values: Array, notes: list[str]) -> Array:
    """Convert floating-point samples to 16 bits, 0 black to 1 white; what lies beyond is clipped, with a note.

    Raises ImageError where more than half of the samples lie beyond: the file has another range, which it does
    not say.
    """
    inside = sum(int(((block >= 0) & (block <= 1)).sum()) for block in _blocks(values))
    if inside * 2 < values.size:
        raise ImageError(
            "its floating-point samples are not between 0 and 1: scale them, or save it with 16 bits"
        )
    clipped = "" if inside == values.size else ", those beyond 0 and 1 clipped"
    notes.append(f"its floating-point samples are rounded to 16 bits{clipped}")
    wide = np.float64 if values.dtype.itemsize == 8 else np.float32
    return in_blocks(values, np.uint16, lambda block: _from_unit(block.astype(wide)))


def _from_unit(values: Array) -> Array:
    return np.rint(np.clip(np.nan_to_num(values, nan=0.0), 0, 1) * 65_535)


def unassociated(colours: Array, alpha: Array) -> Array:
    """Divide premultiplied `colours` (H, W, C) by `alpha` (H, W), both of one depth."""
    full = np.iinfo(colours.dtype).max
    result = np.zeros_like(colours)
    for rows in row_blocks(len(colours)):
        share = alpha[rows, :, None].astype(np.float32)
        straight = colours[rows] * np.divide(full, share, out=np.zeros_like(share), where=share > 0)
        result[rows] = np.clip(np.rint(straight), 0, full)
    return result


def turned_array(values: Array, turn: Pillow.Transpose | None) -> Array:
    """Transpose (H, W, ...) as Pillow does a picture; returns a contiguous array."""
    match turn:
        case Pillow.Transpose.FLIP_LEFT_RIGHT:
            values = values[:, ::-1]
        case Pillow.Transpose.FLIP_TOP_BOTTOM:
            values = values[::-1]
        case Pillow.Transpose.ROTATE_180:
            values = values[::-1, ::-1]
        case Pillow.Transpose.TRANSPOSE:
            values = values.swapaxes(0, 1)
        case Pillow.Transpose.ROTATE_270:
            values = values.swapaxes(0, 1)[:, ::-1]
        case Pillow.Transpose.TRANSVERSE:
            values = values.swapaxes(0, 1)[::-1, ::-1]
        case Pillow.Transpose.ROTATE_90:
            values = values.swapaxes(0, 1)[::-1]
    return np.ascontiguousarray(values)


def to_array(picture: Pillow.Image) -> Array:
    """Copy a picture of 8 bits to uint8 (H, W, C), without Pillow's second copy of the whole."""
    width, height = picture.size
    result = np.empty((height, width, len(picture.getbands())), np.uint8)
    for rows in row_blocks(height):
        part = np.asarray(picture.crop((0, rows.start, width, min(rows.stop, height))))
        result[rows] = part.reshape(part.shape[0], width, -1)
    return result


def in_blocks(values: Array, dtype: Any, change: Any) -> Array:
    """Apply `change`, which takes and returns arrays of one shape, to blocks of rows.

    The intermediate results of a photo of 100 megapixels would take gigabytes otherwise.
    """
    result = np.empty(values.shape, dtype)
    for rows in row_blocks(len(values)):
        result[rows] = change(values[rows])
    return result


def _blocks(values: Array) -> list[Array]:
    return [values[rows] for rows in row_blocks(len(values))]
