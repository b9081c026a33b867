"""Photos with 16 bits per channel, of which Pillow keeps 8: it decodes them, but has no such picture modes.

They are read by decoding twice. Pillow's unpackers take one byte of each sample: the high one under the file's own
byte order, the low one under the other. They are written here: PNG and TIFF are a header and a zlib stream.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile

from .image import FORMATS, Samples

GREY_MODES = frozenset(("I;16", "I;16B", "I;16L", "I;16N"))
"""Pillow's modes with 16 bits, which are all greyscale."""

_NATIVE, _OTHER = ("L", "B") if sys.byteorder == "little" else ("B", "L")
_OTHER_ORDER = {"B": "L", "L": "B", "N": _OTHER}


def is_deep(picture: ImageFile.ImageFile) -> bool:
    """Whether the file has 16 bits per channel; to be called before its pixels are loaded."""
    return any(";16" in str(tile) for tile in picture.tile)


def read_deep(data: bytes, loaded: Pillow.Image, turn: Pillow.Transpose | None) -> Samples | None:
    """The samples of a 16-bit file, uint16 (H, W, C), upright, C as in `Image.deep`.

    loaded: the same file, loaded by Pillow. turn: transposition that makes it upright. Returns None for a layout
    that Pillow reads in 8 bits only.
    """
    if loaded.mode in GREY_MODES:
        return np.asarray(_transpose(loaded, turn)).astype(np.uint16)[..., None]
    again = Pillow.open(io.BytesIO(data), formats=FORMATS)
    assert isinstance(again, ImageFile.ImageFile)
    rawmodes = {_rawmode(tile) for tile in again.tile}
    if rawmodes == {"LA;16B"} and again.mode == "RGBA":
        # Four bytes a pixel, read as they are.
        again.tile = [tile._replace(args="RGBA") for tile in again.tile]
        return np.asarray(_transpose(again, turn)).view(">u2").astype(np.uint16)
    if loaded.mode not in ("RGB", "RGBA") or not rawmodes <= {f"{loaded.mode};16{o}" for o in "BLN"}:
        return None
    again.tile = [_lower_byte(tile) for tile in again.tile]
    high, low = (np.asarray(_transpose(picture, turn)).astype(np.uint16) for picture in (loaded, again))
    samples: Samples = high << np.uint16(8) | low
    return samples


def _transpose(picture: Pillow.Image, turn: Pillow.Transpose | None) -> Pillow.Image:
    return picture if turn is None else picture.transpose(turn)


def _rawmode(tile: ImageFile._Tile) -> str:
    return str(tile.args if isinstance(tile.args, str) else tile.args[0])  # type: ignore[index]


def _lower_byte(tile: ImageFile._Tile) -> ImageFile._Tile:
    rawmode = _rawmode(tile)
    rawmode = rawmode[:-1] + _OTHER_ORDER[rawmode[-1]]
    args = rawmode if isinstance(tile.args, str) else (rawmode, *tile.args[1:])  # type: ignore[index]
    return tile._replace(args=args)


def png(samples: Samples, icc_profile: bytes | None, exif: bytes | None) -> bytes:
    """Encode uint16 (H, W, 1 .. 4) as a PNG (PNG specification, third edition)."""
    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.full(
        (height, rows.shape[1] + 1), 2, np.uint8
    )  # filter 2, "up": each byte minus the one above
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    if icc_profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc_profile)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def tiff(samples: Samples, icc_profile: bytes | None, exif: bytes | None) -> bytes:
    """Encode uint16 (H, W, 1, 3 or 4) as a TIFF of one strip (TIFF 6.0): zlib of horizontal differences."""
    height, width, channels = samples.shape
    directory = Pillow.Exif()
    if exif:
        directory.load(exif)
    directory.endian = "<"
    differences = np.diff(samples, axis=1, prepend=np.zeros_like(samples[:, :1]))
    strip = zlib.compress(differences.astype("<u2").tobytes())
    # Pillow writes the directories, those of the EXIF too, and counts the strip's offset from their end.
    directory.update(
        {
            256: width, 257: height, 258: (16,) * channels, 259: 8, 262: 1 if channels == 1 else 2, 273: 0,
            277: channels, 278: height, 279: len(strip), 317: 2,
        }
    )  # fmt: skip
    if channels == 4:
        directory[338] = 2  # not premultiplied
    if icc_profile:
        directory[34675] = icc_profile
    return directory.tobytes().removeprefix(b"Exif\0\0") + strip
