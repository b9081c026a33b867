"""Checks against files that would take minutes to decode, however small their picture is.

Limits on bytes and pixels do not bound a decoder's time: a file may consist of many empty pieces, each of which
costs an iteration. The pieces are counted on the bytes, before a decoder sees them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from PIL import ImageFile

from .image import ImageError

MAX_SCANS = 100
"""Most scans of a JPEG, each of which is a pass over the whole picture. Progressive encoders write 10 to 20;
libtiff's limit is 100 too."""
MAX_STRIPS = 4 * 65_536
"""Most strips or tiles of a TIFF: one per row for four planes of the default limits' longest side."""
MAX_PLANES = 8
"""Most times that each pixel of a TIFF is decoded: once per sample, if these are stored in separate planes."""
MAX_RUN_LENGTH_BYTES = 8 * 2**20
"""Most bytes of a run-length coded BMP, of which Pillow decodes three million bytes a second."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""Start of a JPEG's segment (T.81, B.1.1.3). After FF, 00 is coded data, D0 to D7 a restart in it, FF padding."""
_EOI, _SOS = 0xD9, 0xDA
_WITH_LENGTH = {*range(0xC0, 0xF0), 0xFE} - {0xC8, 0xD8, _EOI}
"""Markers of segments that begin with their length, and are skipped."""
_PNG = b"\x89PNG\r\n\x1a\n"
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324


def check_pieces(data: bytes) -> None:
    """Raise ImageError for a JPEG, PNG or TIFF with too many scans, segments, chunks, strips or tiles."""
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(_PNG):
        _check_png(data)
    elif data[:2] in (b"II", b"MM"):
        _check_tiff(data)


def check_tiles(data: bytes, picture: ImageFile.ImageFile) -> None:
    """Raise ImageError for an opened file with overlapping strips or tiles, or a too long run-length coded BMP."""
    width, height = picture.size
    boxes = [(tile[0], tile[1] or (0, 0, width, height)) for tile in picture.tile]
    decoded = sum((right - left) * (lower - upper) for _, (left, upper, right, lower) in boxes)
    if decoded > MAX_PLANES * width * height:
        raise ImageError("it is damaged: its strips or tiles are more than its pixels")
    if any(name == "bmp_rle" for name, _ in boxes) and len(data) > MAX_RUN_LENGTH_BYTES:
        raise ImageError(
            f"it is run-length coded and has more than {MAX_RUN_LENGTH_BYTES:,} bytes: store it uncompressed"
        )


def _max_pieces(data: bytes) -> int:
    """Most pieces of a file: real files have kilobytes per piece, apart from a few small ones."""
    return 4096 + len(data) // 256


def _check_jpeg(data: bytes) -> None:
    """Check the first picture only: what follows it (a second one, a film) is not decoded."""
    scans = pieces = 0
    at = 2
    while found := _MARKER.search(data, at):
        kind = data[found.start() + 1]
        if kind == _EOI and scans:
            return
        # Before the first scan Pillow reads the bytes between segments one by one.
        pieces += 1 if scans else 1 + found.start() - at
        scans += kind == _SOS
        if scans > MAX_SCANS:
            raise ImageError(f"it has more than {MAX_SCANS} scans: save it again as a baseline JPEG")
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
    if pieces > _max_pieces(data):
        raise ImageError(f"it is damaged: it has more than {_max_pieces(data):,} pieces")


def _check_tiff(data: bytes) -> None:
    for tag, count in _tiff_counts(data):
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS) and count > MAX_STRIPS:
            raise ImageError(f"it is damaged: it has more than {MAX_STRIPS:,} strips or tiles")


def _tiff_counts(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (tag, number of values) of the first directory of a TIFF (TIFF 6.0, section 2) or BigTIFF."""
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
        return  # it ends too early, which its decoder will report
