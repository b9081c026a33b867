"""Statistics of natural scenes: what NIQE and IL-NIQE have in common.

Levels are normalised by their local mean and deviation, blocks of them are described by the parameters of fitted
distributions, and an image by how far these lie from those of pristine photos. Features of a block that has no
level of one sign, such as a flat one, are NaN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve
from scipy.special import gamma

Levels = NDArray[np.floating[Any]]

SHAPES = np.arange(0.2, 10.001, 0.001)
"""Shapes among which that of a generalised Gaussian is looked up."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows and columns to the neighbours whose products are described: right, below, and both diagonals."""
MOST_STEPS = 100
"""Newton steps for a Weibull shape; about six are needed."""

_RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


class Normalised(NamedTuple):
    """Levels without their local mean and contrast."""

    levels: Levels
    deviation: Levels
    """Local standard deviation, of the shape of the levels."""


class Gaussian(NamedTuple):
    """A multivariate Gaussian of n features."""

    mean: Levels
    covariance: Levels


def gaussian_window(size: int, sigma: float) -> Levels:
    """MATLAB's `fspecial('gaussian', size, sigma)`: (size, size), with the sum 1."""
    at = np.arange(size) - (size - 1) / 2
    taps = np.exp(-(at**2) / (2 * sigma**2))
    return np.outer(taps, taps) / taps.sum() ** 2


def smoothed(levels: Levels, window: Levels) -> Levels:
    """Levels (H, W) weighted by a window, borders repeated, in the precision of the levels.

    A window of even size reaches further down and right, as in MATLAB's `imfilter`. It is not separated: in flat
    places the rounding of these sums decides the signs of normalised levels, and with them the published scores.
    """
    return np.asarray(convolve(levels, window, mode="nearest"))


def normalised(levels: Levels, window: Levels) -> Normalised:
    """(I - mu) / (sigma + 1) of levels (H, W), with mu and sigma weighted by `window` (NIQE, Eq. 1 to 3)."""
    mean = smoothed(levels, window)
    deviation = np.sqrt(np.abs(smoothed(levels**2, window) - mean**2))
    return Normalised((levels - mean) / (deviation + 1), deviation)


def blocks_of(levels: Levels, side: int) -> Levels:
    """The blocks of levels (..., H, W), multiples of `side`: (blocks, ..., side, side)."""
    *leading, height, width = levels.shape
    cut = levels.reshape(*leading, height // side, side, width // side, side)
    return np.moveaxis(cut, (-4, -2), (0, 1)).reshape(-1, *leading, side, side)


def generalised_gaussian(samples: Levels) -> tuple[Levels, Levels, Levels]:
    """Shape, left scale and right scale of an asymmetric generalised Gaussian, of samples along the last two axes.

    Moment matching of Lasmar et al. 2009, as NIQE describes blocks (its Eq. 6 and 7). NaN where samples lack a
    sign.
    """
    squares = samples**2
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sqrt(_mean_where(squares, samples < 0))
        right = np.sqrt(_mean_where(squares, samples > 0))
        ratio = left / right
        likeness = np.abs(samples).mean(axis=(-2, -1)) ** 2 / squares.mean(axis=(-2, -1))
        wanted = likeness * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = SHAPES[_nearest(_RATIOS, wanted)]
    factor = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    shape = np.where(np.isnan(wanted), np.nan, shape)
    return shape, left * factor, right * factor


def normalised_features(blocks: Levels) -> Levels:
    """The 18 features of blocks (n, side, side) of normalised levels: those of the levels, and of their products
    with each of four neighbours (NIQE, Eq. 4 to 8). Neighbours beyond a block's border are those of the other
    side."""
    shape, left, right = generalised_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        shape, left, right = generalised_gaussian(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        features += [shape, mean, left, right]
    return np.stack(features, axis=1)


def weibull(samples: Levels) -> tuple[Levels, Levels]:
    """Scale and shape of the Weibull distribution of greatest likelihood, of positive samples along the last two
    axes.

    The shape k solves sum(x^k ln x) / sum(x^k) - 1 / k = mean(ln x), by Newton's method from the moments of ln x.
    """
    logs = np.log(samples.reshape(*samples.shape[:-2], -1))
    largest = logs.max(axis=-1, keepdims=True)
    logs = logs - largest
    mean = logs.mean(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shape = 1.2 / logs.std(axis=-1)
        for _ in range(MOST_STEPS):
            powers = np.exp(shape[..., None] * logs)
            total = powers.sum(axis=-1)
            first = (powers * logs).sum(axis=-1) / total
            second = (powers * logs**2).sum(axis=-1) / total
            error = first - 1 / shape - mean
            step = error / (second - first**2 + 1 / shape**2)
            step = np.minimum(step, shape / 2)  # the shape stays positive
            shape = shape - step
            if not np.any(np.abs(step) > 1e-10 * shape):
                break
        scale = np.exp(largest[..., 0] + np.log(np.exp(shape[..., None] * logs).mean(axis=-1)) / shape)
    return scale, shape


def fit(features: Levels) -> Gaussian:
    """The Gaussian of features (n, f): the mean of each without its NaNs, the covariance of rows that have
    none."""
    complete = features[~np.isnan(features).any(axis=1)]
    return Gaussian(np.nanmean(features, axis=0), np.cov(complete, rowvar=False))


def distances(points: Levels, mean: Levels, first: Levels, second: Levels) -> Levels:
    """Distances of points (n, f) to `mean` under the mean of two covariances (NIQE, Eq. 10)."""
    inverse = np.linalg.pinv((first + second) / 2)
    away = points - mean
    return np.asarray(np.sqrt(np.einsum("nf,fg,ng->n", away, inverse, away)))


def _mean_where(values: Levels, chosen: NDArray[np.bool_]) -> Levels:
    return np.asarray((values * chosen).sum(axis=(-2, -1)) / chosen.sum(axis=(-2, -1)))


def _nearest(ascending: Levels, values: Levels) -> NDArray[np.intp]:
    """The indices of the entries of an ascending array that are nearest to `values`."""
    after = np.clip(np.searchsorted(ascending, values), 1, len(ascending) - 1)
    return after - (values - ascending[after - 1] <= ascending[after] - values)
