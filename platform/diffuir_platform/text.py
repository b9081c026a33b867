"""Text that several rooms print: counts, names on one line, Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def counted(number: int, noun: str) -> str:
    """ "1 photo" or "2,000 photos"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def one_line(text: str) -> str:
    """`text` as one line of valid Unicode: names of files may hold line breaks and bytes that are not UTF-8."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def is_utf8(name: str) -> bool:
    """Whether a name can be written as UTF-8; on disk it may hold any bytes (PEP 383)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[object]], left: int | None = None) -> str:
    """A Markdown table; left: leading columns that are aligned to the left, the others to the right. None: all."""
    marks = ["---" if left is None or column < left else "---:" for column in range(len(headings))]
    lines = [headings, marks, *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    """One cell: a line without the separator; floats to four digits."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
