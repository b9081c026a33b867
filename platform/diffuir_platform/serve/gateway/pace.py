"""How long a model takes for a photo: a part for each call, and a part for each unit of work."""

from __future__ import annotations

import math

NEWEST = 0.2
"""Weight of the newest measurement in the mean of its size."""
REACH = 16.0
"""Times the largest work that was measured up to which the line is taken for more than a guess."""
LEAST_PER_UNIT = 0.25
"""Of the largest size's seconds that are its pixels', whatever the line says: through noise, it might have large
photos cost nothing."""


class Pace:
    """Of one model: a line through the means of the sizes that it was measured at.

    Each size, of twice the work of the one before, has a mean of its own, so that many small photos, most of whose
    time is not their pixels', do not make the few large ones be forgotten.
    """

    def __init__(self) -> None:
        self._means: dict[int, tuple[float, float]] = {}
        """Exponent of two -> units of work, and the seconds that they took."""
        self._fixed = 0.0
        self._per_unit = 0.0

    def learn(self, units: float, seconds: float) -> None:
        """It took `seconds` for `units`."""
        size = math.frexp(units)[1]
        done, took = self._means.get(size, (units, seconds))
        self._means[size] = done + NEWEST * (units - done), took + NEWEST * (seconds - took)
        self._fit()

    def expected(self, units: float) -> float:
        """Seconds that it is thought to take."""
        return self._fixed + self._per_unit * units

    def reaches(self, units: float) -> bool:
        """Whether work of nearly that size was measured."""
        return units <= REACH * max(self._means.values(), default=(0.0, 0.0))[0]

    def _fit(self) -> None:
        """The line whose squared errors, each as a share of its mean, are least; neither part is below 0."""
        means = [(units, max(seconds, 1e-9)) for units, seconds in self._means.values()]
        largest, its_seconds = max(means)
        self._fixed, self._per_unit = 0.0, its_seconds / largest
        if len(means) == 1:
            return
        whole = sum(took**-2 for _, took in means)
        units = sum(done * took**-2 for done, took in means) / whole
        seconds = sum(took**-1 for _, took in means) / whole
        spread = sum((done - units) ** 2 * took**-2 for done, took in means)
        together = sum((done - units) * (took - seconds) * took**-2 for done, took in means)
        slope = max(together / spread, LEAST_PER_UNIT * its_seconds / largest)
        self._per_unit = min(slope, seconds / units)
        self._fixed = seconds - self._per_unit * units
