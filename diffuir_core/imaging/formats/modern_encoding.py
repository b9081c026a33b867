"""Writing HEIC, AVIF and JPEG XL."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as Pillow

from ..image import Image
from ..metadata.content import Metadata
from ..metadata.writing import info
from .heif import encode_heic
from .jxl import encode_jxl
from .sampled import Array
from .srgb import to_srgb
from .threads import CODEC_THREADS

HEIC_BITS = (8, 10, 12)
"""Bits per channel that HEIC is written with."""


def heic(image: Image, metadata: Metadata, quality: int) -> bytes:
    """A HEIC of 8 bits, or of 10 or 12 for a deep photo; lossless where the photo was."""
    options = info(metadata)
    if metadata.colour_space is not None and metadata.colour_space.cicp is not None:
        primaries, transfer, matrix, _ = metadata.colour_space.cicp
        options["nclx_profile"] = {
            "color_primaries": primaries,
            "transfer_characteristics": transfer,
            "matrix_coefficients": matrix or 6,
            "full_range_flag": 1,
        }
    return encode_heic(
        _samples(image, grey_with_alpha=False),
        quality,
        lossless=image.lossless,
        bits=heic_bits(image),
        info=options,
    )


def heic_bits(image: Image) -> int:
    """Bits per channel of the photo's HEIC: 10 as cameras write, unless the photo has 8 or just 12."""
    return 8 if image.deep is None else (12 if image.bits == 12 else 10)


def avif(picture: Pillow.Image, metadata: Metadata, quality: int) -> bytes:
    """An AVIF of 8 bits, without chroma subsampling."""
    buffer = io.BytesIO()
    subsampling = "4:0:0" if picture.mode == "L" else "4:4:4"
    picture.save(
        buffer, "AVIF", quality=quality, subsampling=subsampling, max_threads=CODEC_THREADS, **info(metadata)
    )
    return buffer.getvalue()


def jxl(image: Image, metadata: Metadata, quality: int) -> bytes:
    """A JPEG XL in sRGB, which the colours of another profile are converted to; lossless where the photo was, and
    where it has more than 8 bits."""
    samples = _samples(image, grey_with_alpha=True)
    if metadata.icc_profile:
        samples = to_srgb(samples, metadata.icc_profile)
    exif = metadata.exif
    return encode_jxl(samples, quality, lossless=image.lossless, exif=exif, xmp=metadata.xmp)


def _samples(image: Image, *, grey_with_alpha: bool) -> Array:
    """The photo's samples, (H, W, C), of as many channels as it needs; of 16 bits where it has them."""
    is_grey = image.colour == "L" and (image.alpha is None or grey_with_alpha)
    if image.deep is not None:
        alpha: Array | None = None if image.deep.shape[-1] % 2 else image.deep[..., -1:]
        colours: Array = image.deep[..., : 1 if image.deep.shape[-1] < 3 else 3]
        if alpha is None and image.alpha is not None:
            alpha = image.alpha[..., None] * np.uint16(257)
    else:
        colours = (
            np.asarray(Pillow.fromarray(image.pixels).convert("L"))[..., None] if is_grey else image.pixels
        )
        alpha = None if image.alpha is None else image.alpha[..., None]
    if colours.shape[-1] == 1 and not is_grey:
        colours = np.repeat(colours, 3, axis=-1)
    return colours if alpha is None else np.concatenate((colours, alpha), axis=-1)
