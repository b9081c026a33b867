"""Histogram equalisation, what the published code does to a low-light photo before it is restored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def equalised(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) with each channel's levels spread over 0 .. 255, by the formula of OpenCV's `equalizeHist`.

    A level becomes 255 times the share of the pixels above the lowest level that it and those below it hold. A
    channel of one level stays as it is.
    """
    return np.stack([_channel(image[..., c]) for c in range(image.shape[-1])], axis=-1)


def _channel(channel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    counts = np.bincount(channel.ravel(), minlength=256)
    lowest = int(np.flatnonzero(counts)[0])
    above = channel.size - counts[lowest]
    if above == 0:
        return channel
    counts[lowest] = 0
    # float32 and rounding to even, as OpenCV does.
    scale = np.float32(255) / np.float32(above)
    levels = np.rint(np.cumsum(counts).astype(np.float32) * scale).clip(0, 255)
    return levels.astype(np.uint8)[channel]
