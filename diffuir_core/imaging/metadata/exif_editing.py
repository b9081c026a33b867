"""Editing EXIF blocks in place, so that every offset in them stays valid, and building them from a TIFF's tags.

The camera's own part (MakerNote) holds offsets that only the camera knows, so nothing in a block is moved: an
unwanted directory is unlinked and its bytes are zeroed.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping
from itertools import pairwise

from .exif import (
    EXIF,
    GEO_TAGS,
    GPS,
    INTEROPERABILITY,
    LONG,
    MAKER_NOTE,
    ORIENTATION,
    SHORT,
    DamagedExifError,
    Entry,
    Tiff,
    Value,
)

_IMAGE_WIDTH, _IMAGE_HEIGHT, _PIXEL_WIDTH, _PIXEL_HEIGHT = 256, 257, 40962, 40963
_THUMBNAIL, _THUMBNAIL_LENGTH, _STRIPS, _STRIP_LENGTHS = 513, 514, 273, 279
_MOST_PLACES = 8
_LONGEST_BLOCK = 2**26
_FURTHEST_MAKER_NOTE = 2**16
"""Bytes from the start of a TIFF within which its MakerNote keeps its position in a built block."""

Range = tuple[int, int]


def edited(block: bytes, size: tuple[int, int], *, with_gps: bool) -> bytes | None:
    """`block` for an upright photo of (width, height), changed only where it must be; None if nothing is in it.

    Orientation becomes 1 and the size's tags `size`; without `with_gps` the GPS directory and the tags
    of GeoTIFF are removed and zeroed. So is the thumbnail, which shows the photo as it was. Raises
    DamagedExifError.
    """
    data = bytearray(block)
    tiff = Tiff(data)
    if tiff.is_big:
        raise DamagedExifError("it has the header of a BigTIFF")
    main, following = tiff.directory(tiff.first)
    if not main:
        return None
    details_at = tiff.pointer(main, EXIF)
    details = tiff.directory(details_at)[0] if details_at else []
    index_at = tiff.pointer(details, INTEROPERABILITY)
    index = tiff.entries(index_at) if index_at else []
    removed = frozenset() if with_gps else GEO_TAGS
    parts = [
        _ranges(tiff, at, own, removed)
        for at, own in ((tiff.first, main), (details_at, details), (index_at, index))
    ]
    directories = sorted(part[0] for part in parts if part)
    if any(one[1] > other[0] for one, other in pairwise(directories)):
        raise DamagedExifError("its directories overlap")
    kept = [(0, 8), *(one for part in parts for one in part)]

    thumbnail = tiff.entries(following) if following else []
    places = {tiff.pointer([entry], GPS) or 0 for entry in (*main, *details, *thumbnail)}
    if len(places) > _MOST_PLACES:
        raise DamagedExifError("it has too many directories")
    gps = [one for at in places if 0 < at < len(data) for one in _ranges(tiff, at, tiff.directory(at)[0])]
    if with_gps:
        kept, zeroed = kept + gps, []
    else:
        zeroed = gps + _values(tiff, [entry for entry in main if entry.tag in GEO_TAGS])
        if _overlapping(zeroed, kept):
            raise DamagedExifError("its directories overlap")
    if following:
        unlinked = _ranges(tiff, following, thumbnail) + _thumbnail(tiff, thumbnail)
        overlapping = _overlapping(unlinked, kept)
        zeroed = zeroed + [one for one in unlinked if one not in overlapping]
        end = main[-1].at + tiff.entry_length
        data[end : end + 4] = bytes(4)
    for start, stop in zeroed:
        data[start:stop] = bytes(stop - start)
    _set_numbers(tiff, data, main, {ORIENTATION: 1, _IMAGE_WIDTH: size[0], _IMAGE_HEIGHT: size[1]})
    _set_numbers(tiff, data, details, {_PIXEL_WIDTH: size[0], _PIXEL_HEIGHT: size[1]})
    if not with_gps:
        _remove(tiff, data, main, {GPS, *GEO_TAGS})
        _remove(tiff, data, details, {GPS})
        if not tiff.number(tiff.first, "H"):
            return None
    return _without_end(data, zeroed, kept)


def without_orientation(block: bytes) -> bytes | None:
    """`block`, which is upright, without the tag that says so; None if nothing else is in it."""
    data = bytearray(block)
    tiff = Tiff(data)
    _remove(tiff, data, tiff.directory(tiff.first)[0], {ORIENTATION})
    return bytes(data) if tiff.number(tiff.first, "H") else None


def built(
    order: str, main: Mapping[int, Value], linked: Mapping[int, Mapping[int, Value]], maker_note_at: int = 0
) -> bytes:
    """A new EXIF block.

    order: `<` or `>`. main: the first directory. linked: directories by the tag that points to them (EXIF, GPS,
    INTEROPERABILITY), which are made if they have any tag. maker_note_at: position that the MakerNote keeps,
    because it may hold offsets; 0 for any.
    """
    block = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 0))
    directories = {tag: dict(values) for tag, values in linked.items() if values}
    first = dict(main)
    placed: dict[int, int] = {}
    if MAKER_NOTE in directories.get(EXIF, {}) and len(block) <= maker_note_at <= _FURTHEST_MAKER_NOTE:
        block += bytes(maker_note_at - len(block)) + directories[EXIF][MAKER_NOTE][2]
        placed[MAKER_NOTE] = maker_note_at
    for tag, parent in ((INTEROPERABILITY, directories.setdefault(EXIF, {})), (EXIF, first), (GPS, first)):
        if directories.get(tag):
            at = _append(block, order, directories[tag], placed)
            parent[tag] = (LONG, 1, struct.pack(order + "I", at))
    struct.pack_into(order + "I", block, 4, _append(block, order, first, {}))
    return bytes(block)


def contents(
    tiff: Tiff, *, with_gps: bool, without: frozenset[int] = frozenset(), only: frozenset[int] | None = None
) -> bytes | None:
    """A new block of the tags of a TIFF or block that can be read; None if there are none.

    only: tags of the first directory to take; None for all. without: tags to leave out anywhere. Raises
    DamagedExifError if their values are too long together.
    """
    main = tiff.entries(tiff.first)
    details = tiff.entries(tiff.pointer(main, EXIF) or 0)
    pointers = {EXIF, GPS, INTEROPERABILITY}

    room = _LONGEST_BLOCK

    def values(entries: list[Entry]) -> dict[int, Value]:
        nonlocal room
        found: dict[int, Value] = {}
        for entry in entries:
            # BigTIFF's types, which a block does not have, are those of other positions.
            is_wanted = entry.tag not in without | pointers and entry.kind not in (16, 17, 18)
            if is_wanted and entry.tag not in found and tiff.holds(entry):
                room -= entry.length
                if room < 0:
                    raise DamagedExifError("it is too long")
                found[entry.tag] = entry.kind, entry.count, tiff.value(entry) or b""
        return found

    first = values([entry for entry in main if only is None or entry.tag in only])
    linked = {
        EXIF: values(details),
        INTEROPERABILITY: values(tiff.entries(tiff.pointer(details, INTEROPERABILITY) or 0)),
        GPS: values(tiff.entries(tiff.pointer(main, GPS) or 0)) if with_gps else {},
    }
    if not first and not any(linked.values()):
        return None
    notes = [entry.start for entry in details if entry.tag == MAKER_NOTE]
    return built(tiff.order, first, linked, notes[0] if notes else 0)


def _append(block: bytearray, order: str, values: Mapping[int, Value], placed: Mapping[int, int]) -> int:
    """Append values and then their directory to a block; returns the directory's position."""
    fields = []
    for tag, (kind, count, value) in sorted(values.items()):
        if len(value) > 4:
            at = placed.get(tag)
            if at is None:
                block += bytes(len(block) % 2)
                at = len(block)
                block += value
            value = struct.pack(order + "I", at)
        fields.append(struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0"))
    block += bytes(len(block) % 2)
    at = len(block)
    block += struct.pack(order + "H", len(fields)) + b"".join(fields) + bytes(4)
    return at


def _ranges(
    tiff: Tiff, at: int | None, entries: list[Entry], removed: frozenset[int] = frozenset()
) -> list[Range]:
    """The bytes of a directory and of its values outside it, but for those of removed tags."""
    if not at:
        return []
    ranges = [_within(tiff, at, 2 + len(entries) * tiff.entry_length + 4)]
    return ranges + _values(tiff, [entry for entry in entries if entry.tag not in removed])


def _values(tiff: Tiff, entries: list[Entry]) -> list[Range]:
    """The bytes of values that are outside their entries."""
    return [_within(tiff, entry.start, entry.length) for entry in entries if entry.length > 4]


def _within(tiff: Tiff, start: int, length: int) -> Range:
    """A range as far as it is within the block."""
    end = len(tiff.data)
    return min(start, end), min(start + length, end)


def _thumbnail(tiff: Tiff, entries: list[Entry]) -> list[Range]:
    """The bytes of the thumbnail that a directory describes: a JPEG, or one strip."""
    numbers = {entry.tag: tiff.integer(entry) for entry in entries}
    ranges = []
    for start_tag, length_tag in ((_THUMBNAIL, _THUMBNAIL_LENGTH), (_STRIPS, _STRIP_LENGTHS)):
        start, length = numbers.get(start_tag), numbers.get(length_tag)
        # A JPEG elsewhere than it is said to be would be the position of something else.
        if start and length and (start_tag == _STRIPS or tiff.data[start : start + 2] == b"\xff\xd8"):
            ranges.append(_within(tiff, start, length))
    return ranges


def _overlapping(ranges: list[Range], others: list[Range]) -> set[Range]:
    """Those of `ranges` that share a byte with any of `others`."""
    merged: list[Range] = []
    for start, stop in sorted(others):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    found = set()
    for start, stop in ranges:
        before = bisect_left(merged, (stop, 0))
        if before and merged[before - 1][1] > start:
            found.add((start, stop))
    return found


def _set_numbers(tiff: Tiff, data: bytearray, entries: list[Entry], numbers: Mapping[int, int]) -> None:
    for entry in entries:
        number = numbers.get(entry.tag)
        if number is None or tiff.integer(entry) == number:
            continue
        kind = SHORT if entry.tag == ORIENTATION or (entry.kind == SHORT and number < 2**16) else LONG
        value = struct.pack(tiff.order + ("H" if kind == SHORT else "I"), number)
        data[entry.at : entry.at + 12] = struct.pack(tiff.order + "HHI4s", entry.tag, kind, 1, value)


def _remove(tiff: Tiff, data: bytearray, entries: list[Entry], removed: set[int]) -> None:
    """Remove tags from a directory; what follows them in it moves up."""
    kept = [entry for entry in entries if entry.tag not in removed]
    if len(kept) == len(entries):
        return
    start, end = entries[0].at, entries[-1].at + 12
    following = bytes(data[end : end + 4])
    directory = b"".join(bytes(data[entry.at : entry.at + 12]) for entry in kept) + following
    data[start - 2 : start] = struct.pack(tiff.order + "H", len(kept))
    data[start : end + len(following)] = directory.ljust(end + len(following) - start, b"\0")


def _without_end(data: bytearray, zeroed: list[Range], kept: list[Range]) -> bytes:
    """`data` without the zeroed ranges at its very end, which is where a thumbnail usually is."""
    end, least = len(data), max(stop for _, stop in kept)
    for start, stop in sorted(zeroed, reverse=True):
        if stop < end and any(data[stop:end]):
            break
        end = max(least, min(start, end))
    return bytes(data[:end])
