"""EXIF blocks and the directories of TIFF files, which are the same: read, whatever damage they have.

An EXIF block is a TIFF without pixels (Exif 3.0, 4.5): a header, directories of tags, and their values anywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
EXIF, GPS, INTEROPERABILITY = 34665, 34853, 40965
MAKER_NOTE, COLOUR_SPACE = 37500, 40961
SHORT, LONG, RATIONAL = 3, 4, 5

DESCRIPTIVE = frozenset((
    269, 270, 271, 272, 285, 305, 306, 315, 316, 318, 319, 18246, 18249, 33432, 33434, 33437, 34850, 34855, 36867,
    36868, *range(37377, 37387), *range(40091, 40096),
))  # fmt: skip
"""Tags of a TIFF's first directory that describe the photo: texts, dates, authors, ratings, exposure
(ISO 12234-2), and its colours' chromaticities. The others are the file's layout, or a position on the map."""
GEO_TAGS = frozenset((33550, 33922, 34264, 34735, 34736, 34737))
"""Tags of GeoTIFF (OGC 19-008r4, annex B.2)."""

_KINDS = (*range(1, 14), 16, 17, 18, 129)
_SIZES = dict(zip(_KINDS, (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 8, 8, 8, 1), strict=True))
"""Type of a value -> its bytes; 16 to 18 are BigTIFF's, 129 is Exif 3.0's UTF-8."""
_MOST_ENTRIES = 1024

Value = tuple[int, int, bytes]
"""A tag's type, number of values, and their bytes."""


class DamagedExifError(ValueError):
    """EXIF that can't be followed, so that nothing can be removed from it for certain."""


@dataclass(frozen=True)
class Entry:
    """One tag of a directory; positions are offsets in the block."""

    tag: int
    kind: int
    count: int
    at: int
    """Position of the entry."""
    start: int
    """Position of its value, within the entry if that is short enough."""
    length: int
    """Bytes of its value; 0 for an unknown type."""


class Tiff:
    """The directories of a TIFF, BigTIFF or EXIF block; everything may be damaged."""

    def __init__(self, data: bytes | bytearray) -> None:
        order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
        if order is None:
            raise DamagedExifError("it has no TIFF header")
        self.data, self.order = data, order
        version = self.number(2, "H")
        if version not in (42, 43):
            raise DamagedExifError("it has no TIFF header")
        self.is_big = version == 43
        self.entry_length, self._word = (20, "Q") if self.is_big else (12, "I")
        self.first = self.number(8 if self.is_big else 4, self._word)

    def number(self, at: int, kind: str) -> int:
        """The number at a position, `kind` as in `struct`; raises DamagedExifError beyond the end."""
        try:
            return int(struct.unpack_from(self.order + kind, self.data, at)[0])
        except struct.error as error:
            raise DamagedExifError("it ends too early") from error

    def directory(self, at: int) -> tuple[list[Entry], int]:
        """The entries of the directory at a position, and the position of the next one, 0 for none.

        Raises DamagedExifError if it reaches beyond the end; the values may.
        """
        count = self.number(at, "Q" if self.is_big else "H")
        start = at + (8 if self.is_big else 2)
        end = start + count * self.entry_length
        if at < 8 or count > _MOST_ENTRIES or end > len(self.data):
            raise DamagedExifError("a directory is not within it")
        entries = []
        for position in range(start, end, self.entry_length):
            tag, kind, number = struct.unpack_from(f"{self.order}HH{self._word}", self.data, position)
            length, field = (
                number * _SIZES.get(kind, 0),
                position + self.entry_length - (8 if self.is_big else 4),
            )
            inline = length <= (8 if self.is_big else 4)
            entries.append(
                Entry(
                    tag, kind, number, position, field if inline else self.number(field, self._word), length
                )
            )
        # The last directory of some cameras ends without the position of a next one.
        return entries, self.number(end, self._word) if end + 4 <= len(self.data) else 0

    def entries(self, at: int) -> list[Entry]:
        """The entries of the directory at a position; none if it is damaged."""
        try:
            return self.directory(at)[0]
        except DamagedExifError:
            return []

    def value(self, entry: Entry) -> bytes | None:
        """The bytes of a value, None if they are not within the block."""
        return bytes(self.data[entry.start : entry.start + entry.length]) if self.holds(entry) else None

    def holds(self, entry: Entry) -> bool:
        """Whether an entry's value is within the block."""
        return 0 < entry.length <= len(self.data) - entry.start

    def integer(self, entry: Entry) -> int | None:
        """The first of an entry's whole numbers; None for another type."""
        kind = {1: "B", SHORT: "H", LONG: "I", 13: "I", 16: "Q", 18: "Q"}.get(entry.kind)
        return self.number(entry.start, kind) if kind and self.holds(entry) else None

    def pointer(self, entries: Iterable[Entry], tag: int) -> int | None:
        """The position of the directory that a tag points to; None if there is none."""
        return next((at for entry in entries if entry.tag == tag and (at := self.integer(entry))), None)


def first_integer(block: bytes, tag: int, *, in_exif: bool = False) -> int | None:
    """The whole number of a tag of the first directory or of the Exif directory; None if there is none."""
    try:
        tiff = Tiff(block)
        entries = tiff.entries(tiff.first)
        if in_exif:
            entries = tiff.entries(tiff.pointer(entries, EXIF) or 0)
        return next((tiff.integer(entry) for entry in entries if entry.tag == tag), None)
    except DamagedExifError:
        return None


def tags(block: bytes) -> set[int]:
    """The tags of the first directory."""
    try:
        tiff = Tiff(block)
        return {entry.tag for entry in tiff.entries(tiff.first)}
    except DamagedExifError:
        return set()


def is_adobe_rgb(block: bytes) -> bool:
    """Whether EXIF says Adobe RGB: interoperability R03 (DCF 2.0, 3.2.1), or some cameras' colour space 2."""
    try:
        tiff = Tiff(block)
        details = tiff.entries(tiff.pointer(tiff.entries(tiff.first), EXIF) or 0)
        spaces = [tiff.integer(entry) for entry in details if entry.tag == COLOUR_SPACE]
        index = tiff.entries(tiff.pointer(details, INTEROPERABILITY) or 0)
        names = [tiff.value(entry) for entry in index if entry.tag == 1 and entry.length <= 8]
    except DamagedExifError:
        return False
    return 2 in spaces or (1 not in spaces and any(name and name.startswith(b"R03") for name in names))


def chromaticities(block: bytes) -> tuple[int, ...] | None:
    """White point and primaries in EXIF (tags 318 and 319), xy times 100,000; None if it does not tell both."""
    try:
        tiff = Tiff(block)
        entries = {entry.tag: entry for entry in tiff.entries(tiff.first) if entry.kind == RATIONAL}
        values = {tag: tiff.value(entry) for tag, entry in entries.items() if tag in (318, 319)}
    except DamagedExifError:
        return None
    both = (values.get(318) or b"") + (values.get(319) or b"")
    if len(both) != 64:
        return None
    pairs = struct.iter_unpack(tiff.order + "II", both)
    return tuple(round(100_000 * above / below) if below else 0 for above, below in pairs)
