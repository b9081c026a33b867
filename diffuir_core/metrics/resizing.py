"""MATLAB's `imresize`, which several metrics are defined with."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float64]
Image = TypeVar("Image", NDArray[np.uint8], NDArray[np.floating[Any]])

CUBIC_SUPPORT = 4.0
"""Width of the cubic kernel, pixels of the smaller grid."""


def imresize(image: Image, height: int, width: int) -> Image:
    """Resize (H, W) or (H, W, C) levels as MATLAB's `imresize(A, [height width])` does by default.

    Keys' cubic kernel with a = -0.5, widened by the factor of a reduction ("antialiasing"); images are continued
    by reflection with their border pixel repeated. Floats are neither rounded nor clipped. A uint8 image stays
    uint8: MATLAB rounds and clips it after each of the two axes, the one that is reduced more first, else the rows
    first, and scores such as IL-NIQE show the difference (up to 2.5%).
    """
    new = (height, width)
    for axis in sorted((0, 1), key=lambda axis: new[axis] / image.shape[axis]):
        matrix = _weights(image.shape[axis], new[axis])
        levels = np.moveaxis(np.tensordot(matrix, image, axes=(1, axis)), 0, axis)
        if image.dtype == np.uint8:
            levels = np.floor(np.clip(levels, 0, 255) + 0.5)
        image = levels.astype(image.dtype)
    return image


def _weights(size: int, new_size: int) -> Levels:
    """The matrix (new_size, size) that resizes one axis; each row sums to 1."""
    scale = new_size / size
    shrink = min(scale, 1.0)
    support = CUBIC_SUPPORT / shrink
    centres = (np.arange(new_size) + 0.5) / scale - 0.5
    first = np.floor(centres - support / 2).astype(int)
    taps = first[:, None] + np.arange(math.ceil(support) + 2)
    weights = shrink * _cubic(shrink * (centres[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)
    period = taps % (2 * size)
    sources = np.where(period < size, period, 2 * size - 1 - period)
    matrix = np.zeros((new_size, size))
    np.add.at(matrix, (np.arange(new_size)[:, None], sources), weights)
    return matrix


def _cubic(distance: Levels) -> Levels:
    """Keys' cubic convolution kernel with a = -0.5 (IEEE Trans. ASSP 29, 1981, Eq. 15)."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
