"""Encoding: a photo to a file's bytes."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image as Pillow

from ..pixels import Pixels
from . import sixteen_bit
from .image import FORMATS, Image, ImageError, Samples, one_line

_DEEP_FORMATS = {"PNG": sixteen_bit.png, "TIFF": sixteen_bit.tiff}
_LONGEST_SIDE = {"WEBP": 16_383}
"""Longest side of a format that has less than `Limits` may allow, pixels."""


def encode(image: Image, format: str | None = None, quality: int = 95) -> bytes:
    """Encode the photo as a file's bytes.

    format: one of FORMATS; None for the photo's own. quality: 1 .. 100, for JPEG (always 4:4:4) and lossy WebP;
    the others are lossless. Raises ImageError if the format can't hold the photo: transparency in JPEG, a side
    beyond the format's maximum.
    """
    target = format or image.format
    check_fits(image, target)
    if image.deep is not None and target in _DEEP_FORMATS:
        samples = _deep_samples(image, image.deep, target)
        icc = _fitting_profile(image, "L" if samples.shape[-1] < 3 else "RGB")
        return _DEEP_FORMATS[target](samples, icc, image.exif)
    picture = _compose(image, target)
    of_format: dict[str, dict[str, object]] = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "lossless": image.lossless, "exact": image.lossless},
        # Pillow's compressing writer can't write the camera's block of the EXIF.
        "TIFF": {"compression": "raw" if image.exif else "tiff_adobe_deflate"},
    }
    if target == "BMP" and picture.mode == "RGBA":
        return _bmp_with_alpha(picture)
    options = of_format.get(target, {})
    if image.exif:
        options["exif"] = image.exif
    icc = _fitting_profile(image, picture.mode)
    if icc:
        options["icc_profile"] = icc
    buffer = io.BytesIO()
    try:
        picture.save(buffer, target, **options)
    except Exception as error:
        raise ImageError(f"it cannot be written as {target} ({one_line(error)})") from error
    return buffer.getvalue()


def check_fits(image: Image, format: str) -> None:
    """Raise ImageError, as `encode` does, if the format can't hold the photo; to be called before restoring."""
    if format not in FORMATS:
        raise ImageError(f"{format} cannot be written: choose one of {', '.join(FORMATS)}")
    if format == "JPEG" and image.alpha is not None:
        raise ImageError("JPEG cannot hold its transparency: choose PNG, WebP or TIFF")
    height, width = image.pixels.shape[:2]
    longest = _LONGEST_SIDE.get(format)
    if longest is not None and max(height, width) > longest:
        raise ImageError(f"{format} cannot hold a side longer than {longest:,} pixels: choose PNG or TIFF")


def _deep_samples(image: Image, deep: Samples, format: str) -> Samples:
    """`deep` with the channels that `format` can hold."""
    if deep.shape[-1] % 2 and image.alpha is not None:
        deep = np.concatenate((deep, image.alpha[..., None] * np.uint16(257)), axis=-1)
    if deep.shape[-1] == 2 and format == "TIFF":
        # We know no reader of 16-bit grey with alpha in a TIFF.
        deep = deep[..., [0, 0, 0, 1]]
    return deep


def _compose(image: Image, format: str) -> Pillow.Image:
    """The picture for the encoder: pixels and alpha, in the mode that the photo had if the format has it."""
    picture = Pillow.fromarray(image.pixels)
    if image.colour == "L" and format != "WEBP":
        return _with_alpha(picture.convert("L"), image.alpha, format)
    picture = _with_alpha(picture, image.alpha, format)
    if image.colour == "P" and (format == "PNG" or (format in ("TIFF", "BMP") and image.alpha is None)):
        return _to_palette(picture)
    return picture


def _with_alpha(picture: Pillow.Image, alpha: Pixels | None, format: str) -> Pillow.Image:
    if alpha is None:
        return picture
    picture.putalpha(Pillow.fromarray(alpha))
    return picture.convert("RGBA") if format == "BMP" else picture


def _bmp_with_alpha(picture: Pillow.Image) -> bytes:
    """A BMP with a BITMAPV4HEADER, which marks the fourth byte as alpha; Pillow writes an older header."""
    width, height = picture.size
    body = picture.transpose(Pillow.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    masks = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0)
    # The colour space "Win ", then end points and gammas, which it leaves unused.
    header = info + struct.pack("<IIII4s", *masks, b" niW") + bytes(48)
    start = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + header + body


def _to_palette(picture: Pillow.Image) -> Pillow.Image:
    if picture.getcolors(256) is None:
        method = Pillow.Quantize.FASTOCTREE if picture.mode == "RGBA" else Pillow.Quantize.MEDIANCUT
        return picture.quantize(256, method=method)
    values = np.asarray(picture)
    colours, index = np.unique(values.reshape(-1, values.shape[-1]), axis=0, return_inverse=True)
    indexed = Pillow.frombytes("P", picture.size, index.astype(np.uint8).tobytes())
    indexed.putpalette(colours.astype(np.uint8).tobytes(), picture.mode)
    return indexed


def _fitting_profile(image: Image, mode: str) -> bytes | None:
    """The ICC profile if it fits the mode: its colour space is in bytes 16 to 20 (ICC.1, 7.2)."""
    wanted = b"GRAY" if mode in ("L", "LA") else b"RGB "
    return image.icc_profile if image.icc_profile and image.icc_profile[16:20] == wanted else None
