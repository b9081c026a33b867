"""Words that several commands print."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """ "1 photo" or "2,000 photos"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
