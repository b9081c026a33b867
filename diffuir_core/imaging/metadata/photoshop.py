"""Image resource blocks of Photoshop, in which JPEG and TIFF hold IPTC (Adobe Photoshop File Formats, 2019)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction

from .content import Resolution

_RESOLUTION, _IPTC, _IPTC_DIGEST = 0x03ED, 0x0404, 0x0425
_DROPPED = frozenset((_RESOLUTION, 0x0406, 0x0409, 0x040C, 0x0422, 0x0423, 0x0424, 0x040F))
"""Resolution, JPEG quality, two thumbnails, EXIF (two), XMP and ICC, which a photo carries elsewhere too."""


def kept(blocks: bytes) -> bytes | None:
    """The blocks to keep, byte for byte: all but previews and what a photo carries elsewhere; None for none."""
    return b"".join(block for number, block, _ in _blocks(blocks) if number not in _DROPPED) or None


def iptc(blocks: bytes | None) -> bytes | None:
    """The IPTC records in the blocks."""
    return next((body for number, _, body in _blocks(blocks or b"") if number == _IPTC), None)


def without_iptc(blocks: bytes | None) -> bytes | None:
    """The blocks but for IPTC and its checksum; None for none."""
    kept = (block for number, block, _ in _blocks(blocks or b"") if number not in (_IPTC, _IPTC_DIGEST))
    return b"".join(kept) or None


def of_iptc(records: bytes) -> bytes:
    """A block of IPTC records."""
    return struct.pack(">4sHHI", b"8BIM", _IPTC, 0, len(records)) + records + bytes(len(records) % 2)


def resolution(blocks: bytes) -> Resolution | None:
    """The resolution in the blocks, dots per inch."""
    for number, _, body in _blocks(blocks):
        if number == _RESOLUTION and len(body) >= 16:
            x, _, _, y = struct.unpack_from(">IHHI", body)
            if x and y:
                return Resolution(Fraction(x, 65_536), Fraction(y, 65_536), "inch")
    return None


def _blocks(blocks: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (number, whole block, its data) of each block; stops at damage."""
    at = 0
    while blocks[at : at + 4] == b"8BIM" and at + 12 <= len(blocks):
        start, number = at, int.from_bytes(blocks[at + 4 : at + 6], "big")
        name = 1 + blocks[at + 6]
        at += 6 + name + name % 2
        end = at + 4 + int.from_bytes(blocks[at : at + 4], "big")
        if end > len(blocks):
            return
        body = blocks[at + 4 : end]
        at = end + len(body) % 2
        yield number, blocks[start:at].ljust(at - start, b"\0"), body
