"""Means over images, and how sure they are: confidence intervals of 95% by Student's t."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean of the images of one set or of several. PSNRs of equal images are infinite, left out, and counted."""

    value: float
    """Mean of the finite values; infinite where there are none."""
    half_width: float | None
    """Half of the confidence interval's width; None where there are fewer than two values in a set."""
    images: int
    equal: int = 0
    """Number of infinite values."""

    def text(self, digits: int, signed: bool = False) -> str:
        """Return it as the text of a cell, such as "23.54 ± 0.81 and 1 equal"."""
        if math.isinf(self.value):
            return "equal"
        shown = f"{self.value:{'+' if signed else ''}.{digits}f}"
        shown += "" if self.half_width is None else f" ± {self.half_width:.{digits}f}"
        return f"{shown} and {self.equal} equal" if self.equal else shown


def mean_of_images(values: Iterable[float]) -> Mean:
    """Return the mean of the values of images, at least one, with the interval mean ± t s / sqrt(n)."""
    return _mean([list(values)])


def mean_of_sets(sets: Sequence[Sequence[float]]) -> Mean:
    """Return the mean of the means of sets, each of at least one value.

    Its variance is that of the sum of independent means, and the degrees of freedom are those of Welch and
    Satterthwaite.
    """
    return _mean(sets)


def _mean(sets: Sequence[Sequence[float]]) -> Mean:
    finite = [[value for value in values if not math.isinf(value)] for values in sets]
    images = sum(map(len, sets))
    equal = images - sum(map(len, finite))
    if not all(finite):
        return Mean(value=math.inf, half_width=None, images=images, equal=equal)
    value = fmean(fmean(values) for values in finite)
    half_width = None
    if all(len(values) > 1 for values in finite):
        parts = [variance(values) / len(values) for values in finite]
        total = sum(parts)
        freedom = (
            total**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, finite, strict=True))
            if total
            else 1.0
        )
        half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total) / len(sets)
    return Mean(value=value, half_width=half_width, images=images, equal=equal)
