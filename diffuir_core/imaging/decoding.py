"""Decoding: a file's bytes to a photo."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms, ImageFile

from ..pixels import Pixels
from .formats.heif import is_avif, is_lossless_avif
from .formats.opening import open_header
from .formats.sampled import Planes, SampledFile, to_array, turned_array
from .image import (
    DEFAULT_LIMITS,
    Colour,
    ExifPolicy,
    Header,
    Image,
    ImageError,
    Limits,
    Samples,
    to_8_bits,
)
from .metadata.reading import orientation, read_metadata, turned

# Pillow's modes by the colour model that a photo is written back in.
_COLOUR_MODES = {"RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "CMYK"}
_GREY_MODES = {"1", "L", "LA", "La"}
_PALETTE_MODES = {"P", "PA"}
_TRUNCATED_FORMATS = {"JPEG", "MPO", "PNG", "BMP"}
"""Formats of which the decoded part of a truncated file can be kept."""
_DAMAGED = "it is truncated or damaged"
_REDUCED_NOTE = "its 16 bits per channel are reduced to 8"
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes with 16 bits, which are all greyscale."""


def decode(
    data: bytes,
    limits: Limits = DEFAULT_LIMITS,
    *,
    exif: ExifPolicy = "without-gps",
    truncated: bool = False,
) -> Image:
    """Decode the photo in `data`: upright uint8 RGB pixels, and the properties to write back.

    limits: limits on the file's bytes and the picture's size. exif: the EXIF to keep. truncated: True accepts a
    JPEG, PNG or BMP that ends too early, as far as it goes.

    Raises ImageError if the bytes are empty, too many, of another format, truncated or damaged, if the picture is
    larger than `limits`, if its samples are of a kind that is not read, or if it consists of so many pieces that
    decoding it would take minutes.
    """
    try:
        picture = open_header(data, limits)
        notes: list[str] = []
        planes = _load(picture, data, truncated, notes)
        return _unpack(picture, planes, data, exif, notes)
    except ImageError:
        raise
    except Exception as error:
        # On hostile bytes decoders raise nearly any type of exception, all with this meaning.
        raise ImageError(_DAMAGED) from error


def inspect(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Read a file's format and size without decoding it; raises the ImageErrors of `decode` about the header."""
    try:
        picture = open_header(data, limits)
        width, height = turned(picture.size, orientation(data, picture))
        return Header(_format(picture), height, width)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_DAMAGED) from error


def _load(picture: ImageFile.ImageFile, data: bytes, truncated: bool, notes: list[str]) -> Planes | None:
    """Decode the pixels: as arrays, or None where they are in `picture` with all their bits."""
    if isinstance(picture, SampledFile):
        return picture.planes(notes)
    deep = any(";16" in str(tile) for tile in picture.tile)
    try:
        if deep and picture.format == "PNG":
            return _deep_png(data)
        picture.load()
    except (OSError, RuntimeError):
        if not truncated or picture.format not in _TRUNCATED_FORMATS:
            raise
        _keep_decoded_part(picture)
        notes.append("it ends too early: what is missing is of one colour")
    if picture.mode in _DEEP_MODES:
        return Planes(colours=np.asarray(picture).astype(np.uint16)[..., None])
    if deep:
        notes.append(_REDUCED_NOTE)
    return None


def _deep_png(data: bytes) -> Planes:
    """Decode a PNG of 16 bits per channel, which Pillow reduces to 8 unless it is grey."""
    import imagecodecs

    samples = imagecodecs.png_decode(data)
    samples = samples[..., None] if samples.ndim == 2 else samples
    colours = 1 if samples.shape[-1] < 3 else 3
    return Planes(
        colours=samples[..., :colours], alpha=samples[..., -1] if samples.shape[-1] > colours else None
    )


def _keep_decoded_part(picture: ImageFile.ImageFile) -> None:
    """Keep the part that is decoded before the file ends; raises ImageError if there is none."""
    try:
        picture.load()
    except OSError:
        picture.tile = []
        picture.load()
    extrema = picture.getextrema()
    channels = extrema if isinstance(extrema[0], tuple) else (extrema,)
    if all(low == high for low, high in channels):
        raise ImageError("it is truncated, and nothing of it could be decoded")


def _format(picture: Pillow.Image) -> str:
    # An MPO file is a JPEG followed by more pictures; the first one is the photo.
    return "JPEG" if picture.format == "MPO" else str(picture.format)


def _unpack(
    picture: ImageFile.ImageFile, planes: Planes | None, data: bytes, policy: ExifPolicy, notes: list[str]
) -> Image:
    turn, metadata = read_metadata(data, picture, policy, notes)
    if planes is None and picture.mode == "CMYK":
        planes = Planes(colours=to_array(picture))
    if planes is not None and planes.colours.shape[-1] == 4:
        planes = _cmyk_to_rgb(planes, metadata.icc_profile, notes)
        metadata = replace(metadata, icc_profile=None)
    if planes is None:
        colour, pixels, alpha = _from_pillow(picture if turn is None else picture.transpose(turn))
        deep = None
    else:
        colour = "L" if planes.colours.shape[-1] == 1 else "RGB"
        pixels, alpha, deep = _from_planes(planes, turn)
    return Image(
        pixels=pixels,
        format=_format(picture),
        colour=colour,
        alpha=alpha,
        deep=deep,
        metadata=metadata,
        bits=picture.bits if isinstance(picture, SampledFile) else 16,
        lossless=picture.lossless if isinstance(picture, SampledFile) else _is_lossless(data),
        notes=tuple(notes),
    )


def _from_planes(
    planes: Planes, turn: Pillow.Transpose | None
) -> tuple[Pixels, Pixels | None, Samples | None]:
    """The upright pixels, alpha and 16-bit samples of a photo that was read as arrays."""
    colours = turned_array(planes.colours, turn)
    alpha = None if planes.alpha is None else turned_array(planes.alpha, turn)
    deep = None
    if colours.dtype == np.uint16:
        deep = colours if alpha is None else np.concatenate((colours, alpha[..., None]), axis=-1)
        colours = to_8_bits(colours)
        alpha = None if alpha is None else to_8_bits(alpha)
    return np.repeat(colours, 3, axis=-1) if colours.shape[-1] == 1 else colours, alpha, deep


def _from_pillow(picture: Pillow.Image) -> tuple[Colour, Pixels, Pixels | None]:
    """The colour model, pixels and alpha of an upright picture of 8 bits."""
    colour, alpha = _colour(picture.mode), None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = to_array(picture.getchannel("A"))[..., 0]
    return colour, to_array(picture if picture.mode == "RGB" else picture.convert("RGB")), alpha


def _colour(mode: str) -> Colour:
    if mode in _COLOUR_MODES:
        return "RGB"
    if mode in _GREY_MODES:
        return "L"
    if mode in _PALETTE_MODES:
        return "P"
    raise ImageError(f"its samples are of the kind {mode}: convert it to 8 or 16-bit grey or RGB first")


def _cmyk_to_rgb(planes: Planes, icc: bytes | None, notes: list[str]) -> Planes:
    """Convert CMYK to sRGB of 8 bits, by the ICC profile if there is one."""
    colours, alpha = planes.colours, planes.alpha
    if colours.dtype == np.uint16:
        notes.append(_REDUCED_NOTE)
        colours, alpha = to_8_bits(colours), None if alpha is None else to_8_bits(alpha)
    notes.append("converted from CMYK to RGB")
    picture = Pillow.fromarray(np.ascontiguousarray(colours), "CMYK")
    converted = None
    if icc:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            notes.append("its ICC profile cannot be used and is dropped")
    return Planes(colours=to_array(converted or picture.convert("RGB")), alpha=alpha)


def _is_lossless(data: bytes) -> bool:
    """Whether an AVIF stores RGB as it is, or a WebP's first picture chunk is VP8L (RFC 9649, section 2.6)."""
    if is_avif(data):
        return is_lossless_avif(data)
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    position = 12
    while position + 8 <= len(data):
        name, length = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8L"
        position += 8 + length + length % 2
    return False
