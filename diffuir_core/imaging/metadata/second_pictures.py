"""Pictures and films in a file besides its photo, which are not kept: told by a note, unless it is a preview."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ..formats.bmff import boxes
from . import exif, jpeg_segments, xmp

FRAMES = "only the first of its frames is kept"
GAIN_MAP = "its gain map (HDR) is not kept"
FILM = "its film (motion photo) is not kept"
DEPTH_MAP = "its depth map is not kept"
MATTES = "its masks of people are not kept"

_MPF, _MP_ENTRIES = b"MPF\0", 0xB002
_LARGE_THUMBNAILS, _UNDEFINED = range(0x010001, 0x010100), 0
"""Types of a picture (CIPA DC-007, 5.2.3.3): previews of the photo, and pictures of any kind."""
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1"
_FILM_START = re.compile(rb"\0\0\0[\x08-\xff]ftyp(?:mp4|iso|qt |avc|M4V|3gp|mmp4|hvc|heic)")
_TONE_MAP = re.compile(rb"infe.{8}tmap", re.DOTALL)
"""Entry of a HEIC or AVIF that derives a picture with a gain map (ISO 21496-1, annex C)."""
_SAMSUNG_END = b"SEFT"
_LEAST_REST = 16
"""Bytes behind a picture below which they are padding."""
_MOST_PAGES = 64
_SUBFILE_TYPE, _REDUCED = 254, 1
_MOST_PICTURES, _MOST_SEGMENTS, _HEAD = 16, 256, 2**20
"""Further pictures that are looked at, segments of each, and bytes in which these are."""


def notes_of_jpeg(data: bytes, packet: bytes | None) -> list[str]:
    """A note for each kind of further picture in a JPEG. packet: its XMP."""
    segments = list(jpeg_segments.read(data))
    end = jpeg_segments.end_of_picture(data)
    rest = data[end:]
    own = jpeg_segments.size(segments)
    listed = list(_listed(data, segments))
    others = [picture for kind, picture in listed if kind not in _LARGE_THUMBNAILS]
    if not listed and rest.startswith(b"\xff\xd8"):
        others = [rest[:_HEAD]]
    inside = [list(islice(jpeg_segments.read(other), _MOST_SEGMENTS)) for other in others]
    told = b"".join([packet or b"", *(body for other in inside for _, body in other)])
    claims_gain_map = xmp.tells_gain_map(told) or any(_ISO_GAIN_MAP in body for _, body in segments)
    found = set()
    if others and claims_gain_map:
        found.add(GAIN_MAP)
    if xmp.tells_depth_map(told) or b"DualShot_DepthMap" in rest:
        found.add(DEPTH_MAP)
    if _FILM_START.search(rest) or b"MotionPhoto_Data" in rest or (rest and xmp.tells_film(packet or b"")):
        found.add(FILM)
    if not found & {GAIN_MAP, DEPTH_MAP} and any(
        not _is_preview(own, jpeg_segments.size(one)) for one in inside
    ):
        found.add(FRAMES)
    if not found and not listed and not others and not rest.endswith(_SAMSUNG_END):
        behind = len(rest.strip(b"\0\xff \r\n"))
        if behind >= _LEAST_REST:
            found.add(f"{behind:,} bytes of unknown kind behind its picture are not kept")
    return sorted(found)


def notes_of_info(data: bytes, info: Mapping[Any, Any]) -> list[str]:
    """A note for each kind of further picture in a HEIC, AVIF, WebP or JPEG XL. info: as its decoder tells it."""
    packet = info.get("xmp") or b""
    names = [str(name).lower() for name in info.get("aux") or ()]
    found = set()
    if _TONE_MAP.search(data, 0, _HEAD) or any("gainmap" in name for name in names):
        found.add(GAIN_MAP)
    if info.get("depth_images") or any("depth" in name or "disparity" in name for name in names):
        found.add(DEPTH_MAP)
    if xmp.tells_film(packet) or any(kind == b"mpvd" for kind, _, _ in boxes(data)):
        found.add(FILM)
    if any("matte" in name for name in names):
        found.add(MATTES)
    return sorted(found)


def notes_of_tiff(data: bytes) -> list[str]:
    """A note if a TIFF has further pages that are no previews (TIFF 6.0, tag 254)."""
    try:
        tiff = exif.Tiff(data)
        at, seen = tiff.first, set[int]()
        while at and at not in seen:
            entries, following = tiff.directory(at)
            kinds = [tiff.integer(entry) or 0 for entry in entries if entry.tag == _SUBFILE_TYPE]
            if seen and (len(seen) >= _MOST_PAGES or not any(kind & _REDUCED for kind in kinds)):
                return [FRAMES]
            seen.add(at)
            at = following
    except exif.DamagedExifError:
        pass  # the pages that can't be reached can't be kept by anybody
    return []


def _listed(data: bytes, segments: list[jpeg_segments.Segment]) -> Iterator[tuple[int, bytes]]:
    """Yield (type, bytes) of the further pictures that a JPEG's multi-picture index lists (CIPA DC-007, 5.2)."""
    index = next((body for marker, body in segments if marker == 0xE2 and body.startswith(_MPF)), None)
    if index is None:
        return
    # Offsets count from the index's own header.
    start = data.find(index) + len(_MPF)
    try:
        tiff = exif.Tiff(index[len(_MPF) :])
        (table,) = (tiff.value(entry) for entry in tiff.entries(tiff.first) if entry.tag == _MP_ENTRIES)
    except (exif.DamagedExifError, ValueError):
        return
    count = min(len(table or b"") // 16, _MOST_PICTURES)
    pictures = struct.iter_unpack(tiff.order + "IIIHH", (table or b"")[: count * 16])
    for number, (kind, length, offset, _, _) in enumerate(pictures):
        if number and offset:
            yield kind & 0xFFFFFF, data[start + offset : start + offset + min(length, _HEAD)]


def _is_preview(own: tuple[int, int, int] | None, other: tuple[int, int, int] | None) -> bool:
    """Whether a picture of an undefined kind is one: smaller than the photo, of its shape and channels."""
    if own is None or other is None:
        return False
    shape = own[0] * other[1] / max(own[1] * other[0], 1)
    return other[0] < own[0] and other[2] == own[2] and abs(shape - 1) < 0.1
