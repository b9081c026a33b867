"""The metadata of a photo: all that it carries besides its pixels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from .colour_space import ColourSpace

Unit = Literal["inch", "centimetre", "metre", "ratio"]
_PER_INCH = {"inch": Fraction(1), "centimetre": Fraction(254, 100), "metre": Fraction(254, 10_000)}
"""Unit -> dots per inch that one dot per unit is."""
_MOST_LISTED = 5


@dataclass(frozen=True)
class Resolution:
    """A photo's resolution in print, or only the shape of its pixels."""

    x: Fraction
    """Horizontal pixels per unit; of a ratio, how many share the width of `y` in the height."""
    y: Fraction
    """Vertical pixels per unit."""
    unit: Unit
    """The unit; `ratio` tells the shape of a pixel only."""

    def per(self, unit: Unit) -> tuple[Fraction, Fraction] | None:
        """Pixels per inch, centimetre or metre, (horizontal, vertical); None for a ratio.

        Whole dots per inch that were rounded to dots per metre come back whole.
        """
        if self.unit == unit:
            return self.x, self.y
        if self.unit == "ratio" or unit == "ratio":
            return None
        return self._convert(self.x, unit), self._convert(self.y, unit)

    def _convert(self, value: Fraction, unit: Unit) -> Fraction:
        inches = value * _PER_INCH[self.unit]
        whole = Fraction(round(inches))
        if self.unit == "metre" and round(whole / _PER_INCH["metre"]) == value:
            inches = whole
        return inches / _PER_INCH[unit]


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """All that a photo carries besides its pixels, as `decode` keeps it; the defaults are a photo with nothing."""

    exif: bytes | None = None
    """EXIF block, beginning with its TIFF header; upright, without a thumbnail."""
    xmp: bytes | None = None
    """XMP packet."""
    extended_xmp: bytes | None = None
    """Second part of the XMP of a JPEG, for what does not fit into one segment (XMP part 3, 1.1.3.1)."""
    photoshop: bytes | None = None
    """Image resource blocks, each beginning with `8BIM`; IPTC is the one of number 0x0404."""
    comments: tuple[bytes, ...] = ()
    """Comments of a JPEG, of no stated encoding."""
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Chunks of a PNG that are copied as they are, (type, data): colour, text and time."""
    resolution: Resolution | None = None
    """Resolution; None where the photo tells none outside its EXIF."""
    icc_profile: bytes | None = None
    """ICC profile."""
    colour_space: ColourSpace | None = None
    """Colour space of a photo without an ICC profile; None for sRGB and for one that says nothing."""


NOTHING = Metadata()
"""The metadata of a photo that carries none."""


def listed(names: Iterable[str]) -> str:
    """Names from a file for a note: sorted, in printable ASCII, and no more than a line holds."""
    clean = sorted({re.sub("[^ -~]", "?", name)[:40] for name in names})
    more = len(clean) - _MOST_LISTED
    return ", ".join(clean[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
