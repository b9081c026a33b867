"""Colour spaces that are told without an ICC profile, and the profile that says the same."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

import numpy as np

White = tuple[float, float]
Primaries = tuple[float, float, float, float, float, float]

_D65, _DCI, _C, _E = (0.3127, 0.3290), (0.314, 0.351), (0.310, 0.316), (1 / 3, 1 / 3)
_PRIMARIES: dict[int, tuple[White, Primaries]] = {
    1: (_D65, (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)),
    4: (_C, (0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: (_D65, (0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: (_D65, (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    7: (_D65, (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    8: (_C, (0.681, 0.319, 0.243, 0.692, 0.145, 0.049)),
    9: (_D65, (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    11: (_DCI, (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: (_D65, (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    22: (_D65, (0.630, 0.340, 0.295, 0.605, 0.155, 0.077)),
}
"""Code of primaries -> white point and primaries, xy (ITU-T H.273, table 2)."""
_SRGB_LIKE, _SRGB = (1, 6, 14, 15), 13
"""Codes of the transfer functions of television (BT.709 and its like) and of sRGB (H.273, table 3)."""
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_HDR = {16: "PQ", 18: "HLG"}
_CLOSE = 0.002
"""Difference of xy below which primaries are the same; encoders round, and sRGB's are given as BT.709's."""


@dataclass(frozen=True)
class ColourSpace:
    """A colour space by its white point, its primaries and its transfer function."""

    name: str
    """Part of the file that tells it: `cICP`, `gAMA/cHRM`, `gAMA`, `Adobe RGB` ..."""
    white: White = _D65
    """White point, xy."""
    primaries: Primaries = _PRIMARIES[1][1]
    """Primaries, xy of red, green and blue."""
    gamma: float | None = None
    """Exponent from samples to light; None for the transfer function `transfer`."""
    transfer: int = _SRGB
    """Code of the transfer function (ITU-T H.273, table 3), where there is no gamma."""
    cicp: tuple[int, int, int, int] | None = None
    """Codes of primaries, transfer function and matrix, and the range, of a file that tells these (H.273)."""

    @classmethod
    def of_cicp(cls, primaries: int, transfer: int, matrix: int, full_range: int) -> Self:
        """The colour space of four codes (ITU-T H.273); unknown ones (0, 2 and reserved) are taken for sRGB's."""
        white, xy = _PRIMARIES.get(primaries, _PRIMARIES[1])
        known = transfer in (*_SRGB_LIKE, *_HDR)
        return cls(
            "cICP",
            white,
            xy,
            _GAMMAS.get(transfer),
            transfer if known else _SRGB,
            (primaries, transfer, matrix, full_range),
        )

    @classmethod
    def of_png(cls, gamma: int | None, chromaticities: tuple[int, ...] | None) -> Self:
        """The colour space of a PNG's gAMA and cHRM chunks, whose numbers are 100,000 times the values."""
        exponent = 100_000 / gamma if gamma else 2.2
        if chromaticities is None:
            return cls("gAMA", gamma=exponent)
        x, y, *xy = (number / 100_000 for number in chromaticities)
        return cls("gAMA/cHRM", (x, y), (xy[0], xy[1], xy[2], xy[3], xy[4], xy[5]), exponent)

    @property
    def is_srgb(self) -> bool:
        """Whether pictures look the same without this label: sRGB, also told as gamma 2.2 with its primaries."""
        here = np.array((*self.white, *self.primaries))
        same = bool(np.all(np.abs(here - (*_D65, *_PRIMARIES[1][1])) < _CLOSE))
        transfer = self.transfer == _SRGB if self.gamma is None else abs(self.gamma - 2.2) < 0.01
        return same and transfer

    @property
    def hdr(self) -> str | None:
        """The transfer function's name if it is one for HDR, which no matrix profile describes; else None."""
        return _HDR.get(self.transfer) if self.gamma is None else None

    def profile(self, *, grey: bool) -> bytes | None:
        """An ICC profile of the colour space, for greyscale or RGB; None if none can describe it."""
        if self.hdr or min(self.white[1], *self.primaries[1::2]) <= 0:
            return None
        import imagecodecs  # here, because few photos need it

        curve = None if self.gamma is not None else self._curve()
        points = [(*self.primaries[at : at + 2], 1.0) for at in (0, 2, 4)]
        try:
            profile = imagecodecs.cms_profile(
                "gray" if grey else "rgb",
                whitepoint=[*self.white, 1.0],
                primaries=None if grey else [number for point in points for number in point],
                transferfunction=curve,
                gamma=self.gamma,
            )
        except (RuntimeError, ValueError):
            return None  # primaries that span no colours
        # One date for all (ICC.1, 7.2.8), so that the same photo gives the same bytes.
        return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]

    def _curve(self) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
        """Light for 1024 samples, uint16."""
        samples = np.linspace(0, 1, 1024)
        if self.transfer == _SRGB:
            light = np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)
        else:
            light = np.where(samples < 0.081, samples / 4.5, ((samples + 0.099) / 1.099) ** (1 / 0.45))
        return np.rint(light * 65_535).astype(np.uint16)


ADOBE_RGB = ColourSpace("Adobe RGB", _D65, (0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 563 / 256)
"""Adobe RGB (1998), which EXIF tells by its interoperability index R03."""
