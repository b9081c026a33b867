"""Encoding: a photo to a file's bytes."""

from __future__ import annotations

import importlib.util
import io
import struct

import numpy as np
from PIL import Image as Pillow

from ..pixels import Pixels
from .formats import modern_encoding, tiff_writing
from .formats.missing import extra
from .image import FORMATS, Image, ImageError, Samples, format_to_write, one_line
from .metadata import png_chunks
from .metadata import writing as metadata_writing

_DEEP_FORMATS = ("PNG", "TIFF")
"""Formats that are written with 16 bits per channel, but for JPEG XL."""
_BITS = {"PNG": 16, "TIFF": 16, "JXL": 16}
"""Most bits per channel that a format is written with, but for HEIC; 8 for the others."""
OPAQUE = 255
"""Alpha of a pixel without transparency: a JPEG holds a photo that has no other, which loses its alpha there."""
_LONGEST_SIDE = {"WEBP": 16_383, "JPEG": 65_500, "HEIC": 16_384, "AVIF": 32_768}
"""Longest side of a format that has less than `Limits` may allow, pixels."""


def encode(image: Image, format: str | None = None, quality: int = 95) -> bytes:
    """Encode the photo as a file's bytes.

    format: one of FORMATS; None for the photo's own. quality: 1 .. 100, for JPEG (always 4:4:4) and lossy WebP;
    the others are lossless. Raises ImageError if the format can't hold the photo: transparency in JPEG, a side
    beyond the format's maximum. What else the format can't hold is left out, and told by `lost_in`.
    """
    target = format_to_write(image.format, format)
    check_fits(image, target)
    metadata, _ = metadata_writing.fit(image.metadata, target, grey=_is_grey(image, target))
    if image.deep is not None and target in _DEEP_FORMATS:
        samples = _deep_samples(image, image.deep, target)
        if target == "TIFF":
            return tiff_writing.tiff(samples, metadata)
        return metadata_writing.png(png_chunks.sixteen_bits(samples), metadata)
    if target == "HEIC":
        return modern_encoding.heic(image, metadata, quality)
    if target == "JXL":
        return modern_encoding.jxl(image, metadata, quality)
    picture = _compose(image, target)
    if target == "AVIF":
        return modern_encoding.avif(picture, metadata, quality)
    if target == "TIFF":
        samples = np.asarray(picture)
        palette = bytes(picture.getpalette("RGB") or ()) if picture.mode == "P" else None
        return tiff_writing.tiff(samples[..., None] if samples.ndim == 2 else samples, metadata, palette)
    if target == "BMP" and picture.mode == "RGBA":
        return metadata_writing.bmp(_bmp_with_alpha(picture), metadata)
    of_format: dict[str, dict[str, object]] = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "lossless": image.lossless, "exact": image.lossless},
    }
    options = of_format.get(target, {})
    if target not in _WRITERS:
        options |= metadata_writing.info(metadata)
    buffer = io.BytesIO()
    try:
        picture.save(buffer, target, **options)
    except Exception as error:
        raise ImageError(f"it cannot be written as {target} ({one_line(error)})") from error
    data = buffer.getvalue()
    return _WRITERS[target](data, metadata) if target in _WRITERS else data


_WRITERS = {"JPEG": metadata_writing.jpeg, "PNG": metadata_writing.png, "BMP": metadata_writing.bmp}
"""Formats whose metadata is put into the file that Pillow has written."""


def lost_in(image: Image, format: str | None = None) -> tuple[str, ...]:
    """Notes on what a photo carries that a format, None for its own, can't hold; like `Image.notes`."""
    target = format_to_write(image.format, format)
    _, notes = metadata_writing.fit(image.metadata, target, grey=_is_grey(image, target))
    bits = _BITS.get(target, 8) if target != "HEIC" else modern_encoding.heic_bits(image)
    if image.deep is not None and bits < image.bits:
        notes.append(f"{target} is written with {bits} of its {image.bits} bits per channel")
    if target == "AVIF" and image.lossless:
        notes.append("AVIF is written with loss")
    return tuple(notes)


def _is_grey(image: Image, format: str) -> bool:
    """Whether the photo is written as greyscale."""
    deep_with_alpha = image.deep is not None and image.alpha is not None
    return image.colour == "L" and format != "WEBP" and not (format == "TIFF" and deep_with_alpha)


def check_fits(image: Image, format: str) -> None:
    """Raise ImageError, as `encode` does, if the format can't hold the photo; to be called before restoring."""
    if format not in FORMATS:
        raise ImageError(f"{format} cannot be written: choose one of {', '.join(FORMATS)}")
    if format == "JPEG" and image.alpha is not None and image.alpha.min() < OPAQUE:
        raise ImageError("JPEG cannot hold its transparency: choose PNG, WebP or TIFF")
    if format == "HEIC" and importlib.util.find_spec("pillow_heif") is None:
        extra("pillow_heif", format, "write")
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
    if alpha is None or format == "JPEG":
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
