"""Text that several rooms print: counts, names on one line, sizes, numbers for JSON, Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def counted(number: int, noun: str) -> str:
    """A number with its noun, as in "1 photo" or "2,000 photos"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def one_line(text: str) -> str:
    """`text` as one line of valid Unicode; names of files may hold line breaks and bytes that are not UTF-8."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def is_utf8(name: str) -> bool:
    """Whether a name can be encoded as UTF-8; on disk names may hold any bytes (PEP 383)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def size_text(width: int, height: int) -> str:
    """A size in pixels, as in "640x480"."""
    return f"{width}x{height}"


def json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with infinities and NaNs as text, because JSON has no such numbers."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[object]], left: int | None = None) -> str:
    """A Markdown table. left: number of left-aligned leading columns; the others are aligned to the right. None:
    all."""
    marks = ["---" if left is None or column < left else "---:" for column in range(len(headings))]
    lines = [map(_cell, headings), marks, *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    """The text of one cell: one line, with separators escaped and floats to four digits."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
