"""Opening: which format a file is in, by its content, and its size, both before anything is decoded."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as Pillow

from ..decoding_cost import check_pieces, check_tiles
from ..image import (
    ImageError,
    Limits,
    OverLimitError,
    TooLargeError,
    UnknownFormatError,
    check_bytes,
    check_size,
)
from .heif import DeepAvif, HeicFile, avif_bits, is_avif, is_heic
from .jxl import JxlFile, is_jxl
from .pillow_private import StoredTiff
from .raw import RawFile, is_raw
from .tiff import NotPlainError, PlainTiff

_LARGEST_TILE = 2**20
"""Pixels that a TIFF's tile may have whatever the limits: a small picture may be stored in one large tile."""
_NOT_READ = (
    "it is not a JPEG, PNG, WebP, TIFF, BMP, HEIC, AVIF, JPEG XL or RAW photo, or its header is damaged"
)

Opener = Callable[[io.BytesIO], ImageFile.ImageFile]


def open_header(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    """Open the photo in `data` without decoding it; raises the ImageErrors of `decode` about the header.

    Pillow's own limit, one for the whole process, counts for WebP only, which is given up at twice that limit.
    """
    check_bytes(len(data), limits)
    opener = _opener(data)
    if opener is None:
        raise UnknownFormatError(_NOT_READ)
    check_pieces(data)
    try:
        picture = opener(io.BytesIO(data))
    except (SyntaxError, NotImplementedError) as error:
        raise UnknownFormatError(_NOT_READ) from error
    except Pillow.DecompressionBombError as error:  # of its WebP files alone
        most = 2 * (Pillow.MAX_IMAGE_PIXELS or 0)
        raise TooLargeError(
            f"it is a WebP of more than {most:,} pixels: save it in another format"
        ) from error
    check_size(*picture.size, limits)
    if isinstance(picture, RawFile) and picture.stored_pixels > 2 * max(limits.max_pixels, _LARGEST_TILE):
        raise OverLimitError(f"its sensor has {picture.stored_pixels:,} pixels, more than the limit")
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        _check_tiles(picture, limits)
    check_tiles(data, picture)
    return picture


def _opener(data: bytes) -> Opener | None:
    """The function that opens a file of this content, None for a format that is not read."""
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile  # not jpeg_factory: further pictures are not read
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if data[:2] == b"BM":
        return BmpImagePlugin.BmpImageFile
    if is_raw(data):
        return RawFile
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _open_tiff
    if is_jxl(data):
        return JxlFile
    if is_avif(data):
        return AvifImagePlugin.AvifImageFile if avif_bits(data) == 8 else DeepAvif
    return HeicFile if is_heic(data) else None


def _open_tiff(file: io.BytesIO) -> ImageFile.ImageFile:
    try:
        return PlainTiff(file)
    except NotPlainError:
        file.seek(0)
    try:
        return StoredTiff(file)
    except (SyntaxError, KeyError) as error:
        raise ImageError(
            "it is a TIFF of a kind that is not read: save it with 8 or 16 bits, in grey or RGB, uncompressed or "
            "with LZW or ZIP"
        ) from error


def _check_tiles(picture: TiffImagePlugin.TiffImageFile, limits: Limits) -> None:
    """Raise ImageError for a TIFF with too large tiles: decoders allocate a whole one for any picture."""
    width, height = (
        picture.tag_v2.get(tag) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
    )
    if width is None and height is None:
        return
    if not isinstance(width, int) or not isinstance(height, int):
        raise ImageError("it is damaged: its tiles have no size")
    if width * height > max(limits.max_pixels, _LARGEST_TILE):
        raise OverLimitError(f"its tiles are {width}x{height} pixels, more than the limit")
