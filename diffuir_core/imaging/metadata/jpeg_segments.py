"""Segments of JPEG files (ITU-T T.81, B.1.1) before the coded picture: read, and inserted into a new file."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator

from .content import Resolution

Segment = tuple[int, bytes]
"""A segment's marker, the byte after FF, and its body."""

APP0, APP1, APP2, APP13, APP14, COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
LONGEST = 65_533
"""Bytes that the body of a segment holds."""
EXIF = b"Exif\0\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
DAMAGED_XMP = b"XMP\0" + XMP[4:]
"""Start of XMP in files that a program, which is unknown to us but common, has written."""
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
ICC = b"ICC_PROFILE\0"
PHOTOSHOP = b"Photoshop 3.0\0"
_SOS, _EOI = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_EXTENDED_PART = LONGEST - len(EXTENDED_XMP) - 40
_ICC_PART = LONGEST - len(ICC) - 2
LONGEST_ICC = 255 * _ICC_PART
_GUID = re.compile(rb"""(HasExtendedXMP\s*(?:=\s*["']|>)\s*)([0-9A-Fa-f]{32})""")


def read(data: bytes) -> Iterator[Segment]:
    """Yield the segments of a JPEG up to its first scan; stops at damage."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker in (_SOS, _EOI):
            return
        if marker in (0x00, 0xFF, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + max(2, length)


def insert(jpeg: bytes, segments: Iterable[Segment], resolution: Resolution | None) -> bytes:
    """`jpeg`, which begins with a JFIF segment, with segments after that and its resolution in it."""
    end = 4 + int.from_bytes(jpeg[4:6], "big")
    jfif = bytearray(jpeg[2:end])
    if resolution is not None:
        jfif[11:16] = _density(resolution)
    written = (struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return b"".join((jpeg[:2], jfif, *written, jpeg[end:]))


def _density(resolution: Resolution) -> bytes:
    """The unit and densities of a JFIF segment (JFIF 1.02): 0 for a ratio, 1 per inch, 2 per centimetre."""
    unit = {"ratio": 0, "centimetre": 2}.get(resolution.unit, 1)
    pair = resolution.per("inch") if unit == 1 else (resolution.x, resolution.y)
    assert pair is not None
    x, y = (min(max(round(number), 1), 65_535) for number in pair)
    return struct.pack(">BHH", unit, x, y)


def extended_xmp(segments: Iterable[Segment], packet: bytes | None) -> bytes | None:
    """The second part of the XMP that `packet` names by its GUID; None if it has none or it is incomplete."""
    named = _GUID.search(packet or b"")
    if named is None:
        return None
    parts: dict[int, bytes] = {}
    whole = 0
    for marker, body in segments:
        body = body[len(EXTENDED_XMP) :] if marker == APP1 and body.startswith(EXTENDED_XMP) else b""
        if len(body) >= 40 and body[:32].upper() == named[2].upper():
            whole, at = struct.unpack_from(">II", body, 32)
            parts[at] = body[40:]
    joined = b"".join(parts[at] for at in sorted(parts))
    return joined if joined and len(joined) == whole else None


def xmp_segments(packet: bytes, extended: bytes | None) -> list[Segment]:
    """The segments of an XMP packet and of its second part, named by its MD5 (XMP part 3, 1.1.3.1)."""
    if extended is None:
        return [(APP1, XMP + packet)]
    guid = hashlib.md5(extended, usedforsecurity=False).hexdigest().upper().encode()
    packet = _GUID.sub(rb"\g<1>" + guid, packet)
    parts = [
        (
            APP1,
            EXTENDED_XMP + guid + struct.pack(">II", len(extended), at) + extended[at : at + _EXTENDED_PART],
        )
        for at in range(0, len(extended), _EXTENDED_PART)
    ]
    return [(APP1, XMP + packet), *parts]


def icc_segments(profile: bytes) -> list[Segment]:
    """The segments of an ICC profile (ICC.1, B.4)."""
    parts = [profile[at : at + _ICC_PART] for at in range(0, len(profile), _ICC_PART)]
    return [(APP2, ICC + bytes((number, len(parts))) + part) for number, part in enumerate(parts, 1)]


def end_of_picture(data: bytes) -> int:
    """The position after the first picture of a JPEG; that of the end of `data` if it is truncated."""
    at, in_scan = 2, False
    while found := _MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.end()
        if marker == _EOI and in_scan:
            return at
        in_scan |= marker == _SOS
        if marker not in (_EOI, 0x01, 0xD8):
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return len(data)


def size(segments: Iterable[Segment]) -> tuple[int, int, int] | None:
    """The (width, height, components) in the frame header of a JPEG's segments (B.2.2)."""
    for marker, body in segments:
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            height, width, components = struct.unpack_from(">HHB", body, 1)
            return width, height, components
    return None
