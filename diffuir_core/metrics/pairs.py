"""Faults of pairs and of means, so that they are named and not averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..pixels import Pixels

Signature = NDArray[np.float32]
"""A small picture of a photo without its brightness and contrast: (1024,), of length 1, or 0 where it is flat."""

SIDE = 32
"""Height and width of the picture in a signature, pixels."""
MARGIN = 0.1
"""Excess of another truth's correlation over that of a pair's own, from which on it fits better. Of 202 training
pairs of LOL, many of one place, one reaches it: 648, whose degraded side shows the place of 649."""
CERTAIN = 0.9
"""Correlation from which on another truth is believed to be the right one, whatever its own pair is."""
CHUNK = 1024
"""Signatures that are compared with all others at once."""


class MeanPsnr(NamedTuple):
    """A mean of PSNRs in which equal images do not count."""

    value: float
    """Mean of the finite ones, dB; infinite where there are none."""
    equal: int
    """Number of infinite ones, which are left out."""


def mean_psnr(values: Iterable[float]) -> MeanPsnr:
    """Return the mean of PSNRs in dB, of at least one, and how many are infinite and left out of it."""
    given = list(values)
    finite = [value for value in given if not math.isinf(value)]
    return MeanPsnr(fmean(finite) if finite else fmean(given), len(given) - len(finite))


def signature(pixels: Pixels) -> Signature:
    """Return what `better_truths` compares of a uint8 RGB photo (H, W, 3)."""
    small = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    levels = np.asarray(small, dtype=np.float32).ravel()
    levels = levels - levels.mean()
    length = float(np.linalg.norm(levels))
    return levels / length if length else levels


def better_truths(degraded: Sequence[Signature], clean: Sequence[Signature]) -> dict[int, int]:
    """Return the pairs of a set whose degraded photo fits another pair's truth better: {pair: the other}.

    degraded, clean: the signatures of both sides, in one order. Compared are correlations, which haze and darkness
    leave alone. The other truth must be better by `MARGIN`, which the next frame of a video is not. As photos
    under heavy rain resemble many, it must also be a `CERTAIN` match, or fit its own degraded photo worse by
    `MARGIN`.
    """
    photos, truths = (np.array(side, dtype=np.float32).reshape(-1, SIDE * SIDE) for side in (degraded, clean))
    own = (photos * truths).sum(axis=1)
    found = {}
    for start in range(0, len(photos), CHUNK):
        likeness = photos[start : start + CHUNK] @ truths.T
        for pair, values in enumerate(likeness, start):
            best = int(values.argmax())
            believed = values[best] > CERTAIN or values[best] > own[best] + MARGIN
            if believed and values[best] > own[pair] + MARGIN:
                found[pair] = best
    return found


def truth_note(format: str) -> str | None:
    """Return what is wrong with a truth in this format of Pillow's ("JPEG", "PNG"), or None.

    A JPEG is no truth for figures beside published ones, which are measured on the sets' PNGs.
    """
    if format not in ("JPEG", "MPO"):
        return None
    return "the truth is a JPEG, whose own compression is measured too: use the set's PNG where it has one"
