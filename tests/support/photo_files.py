"""Small photos in the formats of the extra `formats`, made by the libraries themselves, and a RAW photo."""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image

Array = NDArray[Any]
_MODES = {(1, 1): "L", (3, 1): "RGB", (4, 1): "RGBA", (1, 2): "L;16", (3, 2): "RGB;16", (4, 2): "RGBA;16"}
LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
"""Options of a lossless HEIC."""


def heic(samples: Array, **options: Any) -> bytes:
    """A HEIC of uint8 or uint16 (H, W, 1, 3 or 4); 16 bits are stored as 10, or as `bit_depth`."""
    height, width, channels = samples.shape
    buffer = io.BytesIO()
    mode = _MODES[channels, samples.dtype.itemsize]
    pillow_heif.encode(mode, (width, height), samples.tobytes(), buffer, **{"quality": 95, **options})
    return buffer.getvalue()


def avif(samples: Array, bits: int) -> bytes:
    """An AVIF of uint16 (H, W, 3) in full range, stored with 10 or 12 bits."""
    return bytes(imagecodecs.avif_encode(samples >> (16 - bits), bitspersample=bits, level=100))


def jxl(samples: Array, **options: Any) -> bytes:
    """A JPEG XL of uint8 (H, W, 1 .. 4), lossless unless told otherwise."""
    squeezed = samples[..., 0] if samples.shape[-1] == 1 else samples
    return bytes(imagecodecs.jpegxl_encode(np.ascontiguousarray(squeezed), **(options or {"lossless": True})))


def turned_jxl(samples: Array, orientation: int) -> bytes:
    """A lossless JPEG XL of uint8 (64, 96, 3) whose header tells an orientation (ISO/IEC 18181-1, D.3)."""
    assert samples.shape == (64, 96, 3)
    size = "1" + _low_first(64 // 8 - 1, 5) + "000" + _low_first(96 // 8 - 1, 5)
    # Extra fields: the orientation, no intrinsic size, preview or animation; 8 bits, for which 16-bit buffers do,
    # no extra channels, not XYB, sRGB, the usual tone mapping, no extensions, the usual transforms.
    header = (
        size
        + "01"
        + _low_first(orientation - 1, 3)
        + "000"
        + "000"
        + "1"
        + "00"
        + "0"
        + "1"
        + "1"
        + "00"
        + "1"
    )
    header = header.ljust(-(-len(header) // 8) * 8, "0")
    packed = bytes(int(header[at : at + 8][::-1], 2) for at in range(0, len(header), 8))
    plain = jxl(samples)
    return plain[:2] + packed + plain[5:]  # the plain header has three bytes after its signature


def _low_first(value: int, bits: int) -> str:
    return format(value, f"0{bits}b")[::-1]


def dng(values: Array, orientation: int = 1, exif: bool = True) -> bytes:
    """A DNG (specification 1.4) of uint16 (H, W) behind an RGGB filter, with full white at 65,535.

    Its white balance doubles red and blue.
    """
    buffer = io.BytesIO()
    matrix = (
        3.2404542,
        -1.5371385,
        -0.4985314,
        -0.969266,
        1.8760108,
        0.041556,
        0.0556434,
        -0.2040259,
        1.0572252,
    )
    xyz_to_camera = [part for value in matrix for part in (round(value * 10_000), 10_000)]
    tags: list[Any] = [
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, bytes([0, 1, 1, 2]), True),
        (50706, "B", 4, bytes([1, 4, 0, 0]), True),
        (50707, "B", 4, bytes([1, 1, 0, 0]), True),
        (50708, "s", 0, "A camera", True),
        (50717, "I", 1, 65_535, True),
        (50714, "H", 1, 0, True),
        (50721, "2i", 9, tuple(xyz_to_camera), True),
        (50728, "2I", 3, (1, 2, 1, 1, 1, 2), True),
        (50778, "H", 1, 21, True),
        (274, "H", 1, orientation, True),
    ]
    if exif:
        tags += [
            (271, "s", 0, "A maker", True),
            (272, "s", 0, "A camera", True),
            (315, "s", 0, "Jörg".encode(), True),
        ]
    tifffile.imwrite(buffer, values, photometric="cfa", extratags=tags, software=False, metadata=None)
    return buffer.getvalue()


def mosaic(rgb: Array) -> Array:
    """The samples (H, W) that an RGGB filter leaves of uint16 (H, W, 3)."""
    values = rgb[..., 1].copy()
    values[::2, ::2] = rgb[::2, ::2, 0]
    values[1::2, 1::2] = rgb[1::2, 1::2, 2]
    return values


def exif_of(orientation: int) -> bytes:
    """EXIF with an orientation and a maker."""
    block = Image.Exif()
    block[ExifTags.Base.Orientation] = orientation
    block[ExifTags.Base.Make] = "A maker"
    return block.tobytes()
