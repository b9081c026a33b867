"""PSNR and SSIM as the restoration papers report them: on MATLAB's Y, without a border crop.

Y is kept as a float and not rounded to whole levels (BasicSR's and MMagic's convention; MATLAB's `rgb2ycbcr`
on uint8 rounds). On photos the two differ by about a hundredth of a dB and about 0.001 of SSIM.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

try:
    from skimage.metrics import structural_similarity
except ImportError as error:
    raise ImportError("diffuir_core.metrics needs scikit-image: pip install 'diffuir[metrics]'") from error

Channel = Literal["y", "rgb"]
Pixels = NDArray[np.uint8]
Planes = NDArray[np.float64]

PEAK = 255.0
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def luma(pixels: Pixels) -> Planes:
    """Y of ITU-R BT.601 in studio range, as in MATLAB's `rgb2ycbcr`.

    (H, W, 3) uint8 RGB to (H, W) float64 in [16, 235], not rounded:
    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255.
    """
    weights = np.array([65.481, 128.553, 24.966])
    return np.asarray(16.0 + pixels.astype(np.float64) @ weights / PEAK, dtype=np.float64)


def psnr(a: Pixels, b: Pixels, channel: Channel = "y") -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE); infinite for equal images.

    `a` and `b` are (H, W, 3) uint8 RGB of one shape. `channel` "y" takes the error on `luma`, "rgb" over all
    three channels together. Raises ValueError for another dtype, shape or channel.
    """
    first, second = _planes(a, b, channel)
    error = float(np.mean((first - second) ** 2))
    return math.inf if error == 0.0 else 10.0 * math.log10(PEAK**2 / error)


def ssim(a: Pixels, b: Pixels, channel: Channel = "y") -> float:
    """Structural similarity in [-1, 1], with the constants of Wang et al. 2004 ("Image quality assessment").

    11x11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03, range 255, biased variances, averaged over the
    pixels whose window lies inside the image. `channel` "rgb" is the mean of the three channels' values.
    Arguments as in `psnr`; raises ValueError also for images with a side below 11 pixels.
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
    """Both images, checked, as float64: (H, W) for "y", (H, W, 3) for "rgb"."""
    for image in (a, b):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"expected uint8 RGB (H, W, 3), got {image.dtype} of shape {image.shape}.")
    if a.shape != b.shape:
        raise ValueError(f"the two images differ in shape: {a.shape} and {b.shape}.")
    if channel not in get_args(Channel):
        raise ValueError(f'channel is "y" or "rgb", not {channel!r}.')
    if channel == "y":
        return luma(a), luma(b)
    return a.astype(np.float64), b.astype(np.float64)
