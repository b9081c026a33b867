"""Decoding: a file's bytes to a photo."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms, ImageFile, TiffImagePlugin, UnidentifiedImageError

from . import sixteen_bit
from .decoding_cost import check_pieces, check_tiles
from .image import (
    DEFAULT_LIMITS,
    FORMATS,
    Colour,
    ExifPolicy,
    Header,
    Image,
    ImageError,
    Limits,
    TooLargeError,
    UnknownFormatError,
    check_bytes,
    one_line,
    to_8_bits,
)
from .metadata import read_metadata, turned

# Between its limit and twice that Pillow only warns, and would decode; a service must refuse.
warnings.filterwarnings("error", category=Pillow.DecompressionBombWarning)

# Pillow's modes by the colour model that a photo is written back in.
_COLOUR_MODES = {"RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "CMYK"}
_GREY_MODES = {"1", "L", "LA", "La"}
_PALETTE_MODES = {"P", "PA"}
_TRUNCATED_FORMATS = {"JPEG", "MPO", "PNG", "BMP"}
"""Formats of which the decoded part of a truncated file can be kept."""
_REDUCED_NOTE = "its 16 bits per channel are reduced to 8"
_LARGEST_TILE = 2**20
"""Pixels that a TIFF's tile may have whatever the limits: a small picture may be stored in one large tile."""


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
    larger than `limits`, if its samples are neither 8 nor 16-bit integers, or if it consists of so many pieces
    that decoding it would take minutes.
    """
    try:
        picture = _open(data, limits)
        deep = sixteen_bit.is_deep(picture)
        notes: list[str] = []
        try:
            picture.load()
        except OSError:
            if not truncated or picture.format not in _TRUNCATED_FORMATS:
                raise
            _keep_decoded_part(picture)
            notes.append("it ends too early: what is missing is of one colour")
            if deep:
                notes.append(_REDUCED_NOTE)
            deep = False  # decoding it a second time would raise the same error
        return _unpack(picture, data, deep, exif, notes)
    except ImageError:
        raise
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError) as error:
        raise TooLargeError(f"it has too many pixels ({error})") from error
    except Exception as error:
        # On hostile bytes decoders raise nearly any type of exception, all with this meaning.
        raise ImageError(f"it is truncated or damaged ({one_line(error)})") from error


def inspect(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Read a file's format and size without decoding it; raises the ImageErrors of `decode` about the header."""
    try:
        picture = _open(data, limits)
        turn, _ = read_metadata(picture, "none", [])
        # For a TIFF Pillow's size is that of the upright picture.
        width, height = picture.size if picture.format == "TIFF" else turned(picture.size, turn)
        return Header(_format(picture), height, width)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"it is truncated or damaged ({one_line(error)})") from error


def _open(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    check_bytes(len(data), limits)
    check_pieces(data)
    try:
        picture = Pillow.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        message = "it is not a JPEG, PNG, WebP, TIFF or BMP image, or its header is damaged"
        raise UnknownFormatError(message) from error
    assert isinstance(picture, ImageFile.ImageFile)
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError(f"it is {width}x{height} pixels: nothing to restore")
    if max(width, height) > limits.max_side:
        raise TooLargeError(
            f"it is {width}x{height} pixels, a side longer than the limit of {limits.max_side:,}"
        )
    if width * height > limits.max_pixels:
        raise TooLargeError(f"it is {width}x{height} pixels, more than the limit of {limits.max_pixels:,}")
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        _check_tiles(picture, limits)
    check_tiles(data, picture)
    return picture


def _check_tiles(picture: TiffImagePlugin.TiffImageFile, limits: Limits) -> None:
    """Raise ImageError for a TIFF with too large tiles: libtiff allocates a whole one for any picture."""
    width, height = (
        picture.tag_v2.get(tag) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
    )
    if width is None and height is None:
        return
    if not isinstance(width, int) or not isinstance(height, int):
        raise ImageError("it is damaged: its tiles have no size")
    if width * height > max(limits.max_pixels, _LARGEST_TILE):
        raise TooLargeError(f"its tiles are {width}x{height} pixels, more than the limit")


def _keep_decoded_part(picture: ImageFile.ImageFile) -> None:
    """Keep the part that was decoded before the file ended; raises ImageError if there is none."""
    picture.tile = []
    picture.load()
    extrema = picture.getextrema()
    channels = extrema if isinstance(extrema[0], tuple) else (extrema,)
    if all(low == high for low, high in channels):
        raise ImageError("it is truncated, and nothing of it could be decoded")


def _format(picture: Pillow.Image) -> str:
    # An MPO file is a JPEG followed by more pictures; the first one is the photo.
    return "JPEG" if picture.format == "MPO" else str(picture.format)


def _unpack(picture: Pillow.Image, data: bytes, deep: bool, policy: ExifPolicy, notes: list[str]) -> Image:
    if getattr(picture, "is_animated", False):
        notes.append("only the first of its frames is kept")
    icc = picture.info.get("icc_profile") or None
    turn, exif = read_metadata(picture, policy, notes)
    samples = None
    if deep:
        samples = sixteen_bit.read_deep(data, picture, turn)
        if samples is None:
            notes.append(_REDUCED_NOTE)
    upright = picture if turn is None else picture.transpose(turn)
    if upright.mode == "CMYK":
        upright, icc = _cmyk_to_rgb(upright, icc), None
        notes.append("converted from CMYK to RGB")

    colour = _colour(upright.mode)
    alpha = None
    if samples is not None:
        eight = to_8_bits(samples)
        grey = samples.shape[-1] < 3
        colour = "L" if grey else "RGB"
        alpha = None if samples.shape[-1] % 2 else np.ascontiguousarray(eight[..., -1])
        pixels = np.repeat(eight[..., :1], 3, axis=-1) if grey else np.ascontiguousarray(eight[..., :3])
        if alpha is None and upright.has_transparency_data:
            alpha = np.array(upright.convert("RGBA").getchannel("A"))
    else:
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            alpha = np.array(upright.getchannel("A"))
        pixels = np.array(upright.convert("RGB"))
    return Image(
        pixels=pixels,
        format=_format(picture),
        colour=colour,
        alpha=alpha,
        deep=samples,
        icc_profile=icc,
        exif=exif,
        lossless=_is_lossless_webp(data),
        notes=tuple(notes),
    )


def _colour(mode: str) -> Colour:
    if mode in _COLOUR_MODES:
        return "RGB"
    if mode in _GREY_MODES | sixteen_bit.GREY_MODES:
        return "L"
    if mode in _PALETTE_MODES:
        return "P"
    raise ImageError(f"its samples are of the kind {mode}: convert it to 8 or 16-bit grey or RGB first")


def _cmyk_to_rgb(picture: Pillow.Image, icc: bytes | None) -> Pillow.Image:
    if icc:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            return picture.convert("RGB")
        return converted if converted is not None else picture.convert("RGB")
    return picture.convert("RGB")


def _is_lossless_webp(data: bytes) -> bool:
    """Whether the first picture chunk of a RIFF WebP file is VP8L (RFC 9649, section 2.6)."""
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
