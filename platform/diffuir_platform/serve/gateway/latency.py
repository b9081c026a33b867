"""Latency of a model for one photo, learned from measurements: a part for each call, and a part for each unit of
work."""

from __future__ import annotations

import math

NEWEST = 0.2
"""Weight of the newest measurement in the mean of its size class."""
REACH = 16.0
"""Multiple of the largest measured work up to which a prediction is more than a guess."""
MIN_SHARE_PER_UNIT = 0.25
"""Smallest share of the largest size class's seconds that depends on its work, whatever the fit says: with noise
in the measurements, large photos might seem to cost nothing."""


class LatencyModel:
    """Predicts one model's seconds for an amount of work, by a line through the means of its size classes.

    A size class holds the work between two powers of two. Each has a mean of its own, so that many small photos,
    whose time hardly depends on their pixels, do not make the few large ones be forgotten.
    """

    def __init__(self) -> None:
        self._means: dict[int, tuple[float, float]] = {}
        """Exponent of two -> mean units of work and mean seconds."""
        self._fixed = 0.0
        self._per_unit = 0.0

    def learn(self, units: float, seconds: float) -> None:
        """Take in a measurement: `units` of work took `seconds`."""
        size = math.frexp(units)[1]
        mean_units, mean_seconds = self._means.get(size, (units, seconds))
        self._means[size] = (
            mean_units + NEWEST * (units - mean_units),
            mean_seconds + NEWEST * (seconds - mean_seconds),
        )
        self._fit()

    def predict(self, units: float) -> float:
        """Expected seconds for `units` of work."""
        return self._fixed + self._per_unit * units

    def covers(self, units: float) -> bool:
        """Whether work of about that amount was measured."""
        return units <= REACH * max(self._means.values(), default=(0.0, 0.0))[0]

    def _fit(self) -> None:
        """Fit the line by least squares of the errors relative to each mean; neither part is below 0."""
        means = [(units, max(seconds, 1e-9)) for units, seconds in self._means.values()]
        largest, its_seconds = max(means)
        self._fixed, self._per_unit = 0.0, its_seconds / largest
        if len(means) == 1:
            return
        total = sum(seconds**-2 for _, seconds in means)
        mean_units = sum(units * seconds**-2 for units, seconds in means) / total
        mean_seconds = sum(seconds**-1 for _, seconds in means) / total
        variance = sum((units - mean_units) ** 2 * seconds**-2 for units, seconds in means)
        covariance = sum(
            (units - mean_units) * (seconds - mean_seconds) * seconds**-2 for units, seconds in means
        )
        slope = max(covariance / variance, MIN_SHARE_PER_UNIT * its_seconds / largest)
        self._per_unit = min(slope, mean_seconds / mean_units)
        self._fixed = mean_seconds - self._per_unit * mean_units
