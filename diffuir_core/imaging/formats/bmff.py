"""Boxes of the ISO base media file format (ISO/IEC 14496-12), of which HEIC, AVIF, JPEG XL and CR3 consist."""

from __future__ import annotations

from collections.abc import Iterator

_MOST_BOXES = 4096


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of the content of each box in data[start:end]; stops at damage."""
    end = len(data) if end is None else min(end, len(data))
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, kind, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        stop = end if size == 0 else start + size
        if stop < start + head or stop > end:
            # The last box of a truncated file counts, as far as it goes.
            stop = end
        yield kind, start + head, stop
        start = stop


def brands(data: bytes) -> set[bytes]:
    """The brands of a file that begins with a `ftyp` box (4.3): the major one and the compatible ones."""
    if data[4:8] != b"ftyp":
        return set()
    size = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[at : at + 4] for at in range(16, size, 4))}


def major_brand(data: bytes) -> bytes:
    """The major brand of a file that begins with a `ftyp` box; empty for another."""
    return data[8:12] if data[4:8] == b"ftyp" else b""
