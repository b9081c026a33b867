"""PSNR and SSIM as restoration papers report them: on MATLAB's Y, without cropping a border.

Y stays a float, as in BasicSR and MMagic, while MATLAB's `rgb2ycbcr` on uint8 rounds it to whole levels. On photos
the two differ by about 0.01 dB of PSNR and 0.001 of SSIM.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..pixels import Pixels, is_rgb

try:
    from skimage.metrics import structural_similarity
except ImportError as error:
    raise ImportError("diffuir_core.metrics needs scikit-image: pip install 'diffuir[metrics]'") from error

Channel = Literal["y", "rgb"]
"""The channels that a metric is computed on: luma, or all three."""
Planes = NDArray[np.float64]

PEAK = 255.0
"""Largest level."""
SSIM_WINDOW = 11
"""Side of SSIM's window, pixels."""
SSIM_SIGMA = 1.5
"""Standard deviation of SSIM's Gaussian window, pixels."""


def luma(pixels: Pixels) -> Planes:
    """Y of ITU-R BT.601 in studio range, as in MATLAB's `rgb2ycbcr`: (H, W) float64 in [16, 235], not rounded.

    pixels: (H, W, 3) uint8 RGB. Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255.
    """
    weights = np.array([65.481, 128.553, 24.966])
    return np.asarray(16.0 + pixels.astype(np.float64) @ weights / PEAK, dtype=np.float64)


def psnr(a: Pixels, b: Pixels, channel: Channel = "y") -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE); infinite for equal images.

    a, b: (H, W, 3) uint8 RGB of one shape. channel: "y" for the error of `luma`, "rgb" for that of all three
    channels together. Raises ValueError for another dtype, shape or channel.
    """
    first, second = _planes(a, b, channel)
    error = float(np.mean((first - second) ** 2))
    return math.inf if error == 0.0 else 10.0 * math.log10(PEAK**2 / error)


def ssim(a: Pixels, b: Pixels, channel: Channel = "y") -> float:
    """Structural similarity in [-1, 1], with the constants of Wang et al. 2004 ("Image quality assessment").

    11x11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03, range 255, biased variances, averaged over the pixels
    whose window lies inside the image. Arguments as in `psnr`, but "rgb" is the mean of the three channels'
    values. Raises ValueError as `psnr` does, and for images with a side of less than 11 pixels.
    """
    first, second = _planes(a, b, channel)
    height, width = first.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least 11x11 pixels, these are {width}x{height}.")
    return float(
        structural_similarity(
            first,
            second,
            data_range=PEAK,
            channel_axis=None if channel == "y" else 2,
            gaussian_weights=True,
            sigma=SSIM_SIGMA,
            use_sample_covariance=False,
        )
    )


def _planes(a: Pixels, b: Pixels, channel: Channel) -> tuple[Planes, Planes]:
    """Check both images and return them as float64: (H, W) for "y", (H, W, 3) for "rgb"."""
    for image in (a, b):
        if not is_rgb(image):
            raise ValueError(f"expected uint8 RGB (H, W, 3), got {image.dtype} of shape {image.shape}.")
    if a.shape != b.shape:
        raise ValueError(f"the two images differ in shape: {a.shape} and {b.shape}; give two of one size.")
    if channel not in get_args(Channel):
        raise ValueError(f'channel is {channel!r}: it must be "y" or "rgb".')
    if channel == "y":
        return luma(a), luma(b)
    return a.astype(np.float64), b.astype(np.float64)
