"""Files that would take their decoder minutes, however small the picture in them is.

Limits on bytes and pixels do not bound a decoder's time: a file may consist of pieces that hold nothing, each of
which is a turn of a loop. What is counted here is counted on the bytes, before a decoder sees them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from PIL import ImageFile

from .image import ImageError

MOST_SCANS = 100
"""Of a JPEG, each of which is a turn through the whole picture. Progressive encoders write 10 to 20; libtiff too
allows 100."""
MOST_STRIPS = 4 * 32_768
"""Of a TIFF: more than four planes of the longest side that is let in have rows."""
MOST_PLANES = 8
"""Times that each pixel of a TIFF is decoded: once for each of its samples, where they lie apart."""
MOST_RUN_LENGTH_BYTES = 8 * 2**20
"""Of a run-length coded BMP, which Pillow decodes at three million bytes a second."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""Of a JPEG's segment (T.81, B.1.1.3): 0 makes a 255 a part of coded data, D0 to D7 stand within it, 255 fills."""
_EOI, _SOS = 0xD9, 0xDA
_WITH_LENGTH = {*range(0xC0, 0xF0), 0xFE} - {0xC8, 0xD8, _EOI}
"""Markers whose segment says how long it is, and is skipped."""
_PNG = b"\x89PNG\r\n\x1a\n"
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324


def check_pieces(data: bytes) -> None:
    """Raises ImageError for a JPEG of too many scans or segments, a PNG of too many chunks, a TIFF of too many
    strips."""
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(_PNG):
        _check_png(data)
    elif data[:2] in (b"II", b"MM"):
        _check_tiff(data)


def check_tiles(data: bytes, picture: ImageFile.ImageFile) -> None:
    """Raises ImageError for an opened file whose parts lie over each other, and for a run-length coded BMP of too
    many bytes."""
    width, height = picture.size
    boxes = [(tile[0], tile[1] or (0, 0, width, height)) for tile in picture.tile]
    decoded = sum((right - left) * (lower - upper) for _, (left, upper, right, lower) in boxes)
    if decoded > MOST_PLANES * width * height:
        raise ImageError("it is damaged: its strips or tiles are more than its pixels")
    if any(name == "bmp_rle" for name, _ in boxes) and len(data) > MOST_RUN_LENGTH_BYTES:
        raise ImageError(
            f"it is run-length coded and has more than {MOST_RUN_LENGTH_BYTES:,} bytes: store it uncompressed"
        )


def _most_pieces(data: bytes) -> int:
    """A real file's pieces have kilobytes each, but for some."""
    return 4096 + len(data) // 256


def _check_jpeg(data: bytes) -> None:
    """Of the first picture alone: what stands behind it (a second one, a film) is not decoded."""
    scans = pieces = 0
    at = 2
    while found := _MARKER.search(data, at):
        kind = data[found.start() + 1]
        if kind == _EOI and scans:
            return
        # Pillow takes what fills the gaps before the first scan byte by byte.
        pieces += 1 if scans else 1 + found.start() - at
        scans += kind == _SOS
        if scans > MOST_SCANS:
            raise ImageError(f"it has more than {MOST_SCANS} scans: store it anew, as a plain JPEG")
        _check_count(pieces, data)
        at = found.end()
        if kind in _WITH_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))


def _check_png(data: bytes) -> None:
    at, pieces = len(_PNG), 0
    while at + 8 <= len(data):
        pieces += 1
        _check_count(pieces, data)
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _check_count(pieces: int, data: bytes) -> None:
    if pieces > _most_pieces(data):
        raise ImageError(f"it is damaged: it has more than {_most_pieces(data):,} pieces")


def _check_tiff(data: bytes) -> None:
    for tag, count in _tiff_counts(data):
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS) and count > MOST_STRIPS:
            raise ImageError(f"it is damaged: it has more than {MOST_STRIPS:,} strips or tiles")


def _tiff_counts(data: bytes) -> Iterator[tuple[int, int]]:
    """(tag, number of values) of the first directory of a TIFF (TIFF 6.0, section 2) or a BigTIFF."""
    order, is_big = "<" if data[:2] == b"II" else ">", data[2:3] == b"\x2b"
    try:
        start = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)[0]
        entries = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)[0]
        size, first = (20, start + 8) if is_big else (12, start + 2)
        if entries >= 2**16:
            raise ImageError("it is damaged: its directory has more entries than there are tags")
        for number in range(entries):
            tag, _, count = struct.unpack_from(
                order + ("HHQ" if is_big else "HHI"), data, first + number * size
            )
            yield tag, count
    except struct.error:
        return  # it ends too early, which its decoder will tell
