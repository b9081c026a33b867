"""Bytes to pixels and back: the only door through which a photo enters or leaves.

Reads JPEG, PNG, WebP, TIFF and BMP by their content and nothing else (an EPS renamed .jpg is refused).
Size limits are checked on the header, before anything is decoded; a truncated file is refused.

What a photo carries, and what becomes of it:

    orientation         applied to the pixels and taken out of the EXIF
    ICC profile         kept and written back; a CMYK photo is converted through it to sRGB and loses it
    EXIF                descriptive tags and the camera's own block kept; GPS, thumbnail, XMP and IPTC dropped
    transparency        kept apart, untouched by the restorer, written back
    greyscale           comes back as greyscale; black-and-white (1 bit) comes back as greyscale
    palette             comes back as a palette, exact up to 256 colours, else the best 256
    16-bit greyscale    comes back in 16 bits: the restorer's change in 8 bits is added to the original values
    16-bit colour       read in 8 bits (what Pillow gives) and said so in `notes`
    several frames      the first one, said so in `notes`
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, ImageCms, UnidentifiedImageError
from PIL import Image as Pillow

from .errors import UserError

Pixels = NDArray[np.uint8]
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

# Pillow only warns between its limit and twice that; for a service a warning is a way in.
warnings.filterwarnings("error", category=Pillow.DecompressionBombWarning)

_COLOUR_MODES = {"RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "CMYK"}
_GREY_MODES = {"1", "L", "LA", "La"}
_GREY16_MODES = {"I;16", "I;16B", "I;16L", "I;16N"}
_PALETTE_MODES = {"P", "PA"}

_TRANSPOSE = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_TAG = ExifTags.Base
# An allow-list: a TIFF's first directory also holds its own layout and, in GeoTIFF, a place on the map.
_EXIF_KEPT = (
    _TAG.ImageDescription, _TAG.Make, _TAG.Model, _TAG.XResolution, _TAG.YResolution, _TAG.ResolutionUnit,
    _TAG.Software, _TAG.DateTime, _TAG.Artist, _TAG.HostComputer, _TAG.Rating, _TAG.RatingPercent,
    _TAG.Copyright, _TAG.XPTitle, _TAG.XPComment, _TAG.XPAuthor, _TAG.XPKeywords, _TAG.XPSubject,
)  # fmt: skip
_EXIF_LONGEST = 65_000  # bytes; a JPEG segment holds 65,533


class ImageError(UserError):
    """One photo that cannot be read or written: one sentence, without the photo's name."""


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
    grey16: NDArray[np.uint16] | None = None
    """uint16 (H, W): the original values of a 16-bit greyscale photo."""
    icc_profile: bytes | None = None
    exif: bytes | None = None
    """EXIF without orientation, GPS and thumbnail, beginning with `Exif\\0\\0`."""
    lossless: bool = False
    """True for a WebP that was stored without loss, which is written that way again."""
    notes: tuple[str, ...] = ()
    """What could not be kept, one phrase each."""

    def with_pixels(self, pixels: Pixels) -> Image:
        """The same photo with other pixels of the same shape."""
        if pixels.shape != self.pixels.shape or pixels.dtype != np.uint8:
            raise ValueError(
                f"expected uint8 {self.pixels.shape}, got {pixels.dtype} {pixels.shape}: the size must stay"
            )
        return replace(self, pixels=pixels)


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image:
    """The photo in `data`, upright, as uint8 RGB with what it carried.

    Raises ImageError when the bytes are empty, too many, of another format, truncated or damaged, when the
    picture is larger than `limits`, or when its samples are of a kind without 8 or 16-bit meaning.
    """
    check_bytes(len(data), limits)
    try:
        picture = Pillow.open(io.BytesIO(data), formats=FORMATS)
        _check_size(picture.size, limits)
        deep = any(";16" in str(tile) for tile in getattr(picture, "tile", ()))
        picture.load()
        return _unpack(picture, deep=deep, lossless=_is_lossless_webp(data))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        message = "it is not a JPEG, PNG, WebP, TIFF or BMP image, or its header is damaged"
        raise ImageError(message) from error
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError) as error:
        raise ImageError(f"it has too many pixels ({error})") from error
    except Exception as error:
        # Decoders of hostile bytes raise nearly every type there is; each of them means the same here.
        raise ImageError(f"it is truncated or damaged ({_one_line(error)})") from error


def encode(image: Image, format: str | None = None, quality: int = 95) -> bytes:
    """The photo as a file's bytes, in its own format unless `format` (one of FORMATS) is given.

    quality: 1 to 100, for JPEG (always 4:4:4) and lossy WebP; the others are lossless.
    Raises ImageError where the format cannot hold the photo: transparency in JPEG, sides beyond its maximum.
    """
    target = format or image.format
    if target not in FORMATS:
        raise ImageError(f"{target} cannot be written: choose one of {', '.join(FORMATS)}")
    if target == "JPEG" and image.alpha is not None:
        raise ImageError("JPEG cannot hold its transparency: choose PNG, WebP or TIFF")
    picture = _compose(image, target)
    of_format: dict[str, dict[str, object]] = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "lossless": image.lossless, "exact": image.lossless},
        # Pillow's compressing writer cannot hold the camera's block of the EXIF.
        "TIFF": {"compression": "raw" if image.exif else "tiff_adobe_deflate"},
    }
    if target == "BMP" and picture.mode == "RGBA":
        return _bmp_with_alpha(picture)
    options = of_format.get(target, {})
    if image.exif:
        options["exif"] = image.exif
    if image.icc_profile and _profile_fits(image.icc_profile, picture.mode):
        options["icc_profile"] = image.icc_profile
    buffer = io.BytesIO()
    try:
        picture.save(buffer, target, **options)
    except Exception as error:
        raise ImageError(f"it cannot be written as {target} ({_one_line(error)})") from error
    return buffer.getvalue()


def check_bytes(length: int, limits: Limits = DEFAULT_LIMITS) -> None:
    """Raises ImageError for a file of no bytes or of more than `limits` allows; ask before reading it."""
    if length == 0:
        raise ImageError("the file is empty")
    if length > limits.max_bytes:
        raise ImageError(f"the file has {length:,} bytes, more than the limit of {limits.max_bytes:,}")


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"it is {width}x{height} pixels: nothing to restore")
    if max(size) > limits.max_side:
        raise ImageError(
            f"it is {width}x{height} pixels, a side longer than the limit of {limits.max_side:,}"
        )
    if width * height > limits.max_pixels:
        raise ImageError(f"it is {width}x{height} pixels, more than the limit of {limits.max_pixels:,}")


def _unpack(picture: Pillow.Image, *, deep: bool, lossless: bool) -> Image:
    # A MPO file is a JPEG with a second picture behind it; the first one is the photo.
    format = "JPEG" if picture.format == "MPO" else str(picture.format)
    notes = []
    if getattr(picture, "is_animated", False):
        notes.append("only the first of its frames is kept")
    icc = picture.info.get("icc_profile") or None
    upright, exif = _upright(picture, notes)
    if upright.mode == "CMYK":
        upright, icc = _cmyk_to_rgb(upright, icc), None
        notes.append("converted from CMYK to RGB")
    elif deep and upright.mode not in _GREY16_MODES:
        notes.append("its 16 bits per channel are reduced to 8")

    colour = _colour(upright.mode)
    grey16 = None
    if upright.mode in _GREY16_MODES:
        grey16 = np.asarray(upright).astype(np.uint16)
        upright = Pillow.fromarray(_to_8_bits(grey16))
    alpha = None
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        alpha = np.array(upright.getchannel("A"))
    return Image(
        pixels=np.array(upright.convert("RGB")),
        format=format,
        colour=colour,
        alpha=alpha,
        grey16=grey16,
        icc_profile=icc,
        exif=exif,
        lossless=lossless,
        notes=tuple(notes),
    )


def _colour(mode: str) -> Colour:
    if mode in _COLOUR_MODES:
        return "RGB"
    if mode in _GREY_MODES | _GREY16_MODES:
        return "L"
    if mode in _PALETTE_MODES:
        return "P"
    raise ImageError(f"its samples are of the kind {mode}: convert it to 8 or 16-bit grey or RGB first")


def _upright(picture: Pillow.Image, notes: list[str]) -> tuple[Pillow.Image, bytes | None]:
    """The picture turned as its EXIF says (Pillow has already turned a TIFF), and the EXIF that is kept."""
    try:
        exif = picture.getexif()
        if picture.info.get("exif") and not len(exif):
            notes.append("its EXIF is damaged and dropped")
        method = _TRANSPOSE.get(exif.get(_TAG.Orientation, 1))
        upright = picture.transpose(method) if method is not None else picture
        return upright, _kept_exif(exif, upright.size)
    except Exception as error:  # noqa: BLE001 - a camera's broken metadata is no reason to refuse its photo
        notes.append(f"its EXIF is damaged and dropped ({_one_line(error)})")
        return picture, None


def _kept_exif(exif: Pillow.Exif, size: tuple[int, int]) -> bytes | None:
    kept = Pillow.Exif()
    for tag in _EXIF_KEPT:
        if tag in exif:
            kept[tag] = exif[tag]
    details = dict(exif.get_ifd(ExifTags.IFD.Exif))
    details.pop(ExifTags.IFD.Interop, None)
    if _TAG.ExifImageWidth in details:
        details[_TAG.ExifImageWidth], details[_TAG.ExifImageHeight] = size
    if details:
        kept[ExifTags.IFD.Exif] = details
    if not len(kept):
        return None
    data = kept.tobytes()
    if len(data) > _EXIF_LONGEST and ExifTags.Base.MakerNote in details:
        del details[ExifTags.Base.MakerNote]
        data = kept.tobytes()
    return data if len(data) <= _EXIF_LONGEST else None


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


def _compose(image: Image, format: str) -> Pillow.Image:
    """What is handed to the encoder: pixels and alpha in the mode the photo had, where the format has it."""
    picture = Pillow.fromarray(image.pixels)
    if image.colour == "L" and format != "WEBP":
        return _compose_grey(image, picture.convert("L"), format)
    if image.alpha is not None:
        picture.putalpha(Pillow.fromarray(image.alpha))
    if image.colour == "P" and (format == "PNG" or (format in ("TIFF", "BMP") and image.alpha is None)):
        return _to_palette(picture)
    return picture


def _bmp_with_alpha(picture: Pillow.Image) -> bytes:
    """A BMP with a BITMAPV4HEADER, which alone says that the fourth byte is alpha; Pillow writes an older one."""
    width, height = picture.size
    body = picture.transpose(Pillow.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    masks = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0)
    # "Win " as the colour space, then end points and gammas that it makes meaningless.
    header = info + struct.pack("<IIII4s", *masks, b" niW") + bytes(48)
    start = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + header + body


def _compose_grey(image: Image, grey: Pillow.Image, format: str) -> Pillow.Image:
    if image.alpha is not None:
        grey.putalpha(Pillow.fromarray(image.alpha))
        return grey.convert("RGBA") if format == "BMP" else grey
    if image.grey16 is not None and format in ("PNG", "TIFF"):
        change = np.asarray(grey).astype(np.int32) - _to_8_bits(image.grey16)
        return Pillow.fromarray(np.clip(image.grey16 + change * 257, 0, 65_535).astype(np.uint16))
    return grey


def _to_palette(picture: Pillow.Image) -> Pillow.Image:
    if picture.getcolors(256) is None:
        method = Pillow.Quantize.FASTOCTREE if picture.mode == "RGBA" else Pillow.Quantize.MEDIANCUT
        return picture.quantize(256, method=method)
    values = np.asarray(picture)
    colours, index = np.unique(values.reshape(-1, values.shape[-1]), axis=0, return_inverse=True)
    indexed = Pillow.frombytes("P", picture.size, index.astype(np.uint8).tobytes())
    indexed.putpalette(colours.astype(np.uint8).tobytes(), picture.mode)
    return indexed


def _to_8_bits(grey16: NDArray[np.uint16]) -> Pixels:
    return ((grey16.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _profile_fits(icc: bytes, mode: str) -> bool:
    """Whether a profile is for these pixels: its colour space stands in bytes 16 to 20 (ICC.1, 7.2)."""
    return icc[16:20] == (b"GRAY" if mode in ("L", "LA", "I;16") else b"RGB ")


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
