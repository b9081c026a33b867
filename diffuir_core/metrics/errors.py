"""The exception of images that a metric is not defined for."""

from __future__ import annotations


class MetricError(ValueError):
    """An image or a pair that can't be measured: one sentence that says why. It concerns this pair alone."""
