"""Histogram equalisation, the published code's preprocessing of low-light photos."""

from __future__ import annotations

import numpy as np

from .pixels import Pixels


def equalise_histogram(image: Pixels) -> Pixels:
    """Equalise the histogram of each channel of a uint8 (H, W, 3) image by the formula of OpenCV's `equalizeHist`.

    A level becomes 255 n / m, where n counts the pixels above the channel's lowest level and up to this one, and m
    all pixels above the lowest level. A channel with a single level stays as it is.
    """
    return np.stack([_equalise_channel(image[..., c]) for c in range(image.shape[-1])], axis=-1)


def _equalise_channel(channel: Pixels) -> Pixels:
    counts = np.bincount(channel.ravel(), minlength=256)
    lowest = int(np.flatnonzero(counts)[0])
    above = channel.size - counts[lowest]
    if above == 0:
        return channel
    counts[lowest] = 0
    # In float32 and rounded to even, like OpenCV.
    scale = np.float32(255) / np.float32(above)
    levels = np.rint(np.cumsum(counts).astype(np.float32) * scale).clip(0, 255)
    return levels.astype(np.uint8)[channel]
