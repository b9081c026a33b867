"""The type of a photo's pixels, shared by every module that takes or returns one. Loads NumPy and nothing else."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A photo is uint8 (H, W, 3), RGB; one channel of it, or its alpha, is uint8 (H, W)."""


def is_rgb(value: object) -> TypeGuard[Pixels]:
    """Whether `value` is a photo: a uint8 array of shape (H, W, 3) with H, W >= 1."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == 3
        and value.shape[2] == 3
        and value.size > 0
    )
