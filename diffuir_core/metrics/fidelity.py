"""PSNR and SSIM of two photos under a named protocol."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from ..pixels import Pixels
from .errors import MetricError
from .protocols import (
    DEFAULT_PROTOCOL,
    PEAK,
    Planes,
    Protocol,
    check_pair,
    find_protocol,
    planes_of,
)

SSIM_WINDOW = 11
"""Side of SSIM's window, pixels."""
SSIM_SIGMA = 1.5
"""Standard deviation of SSIM's Gaussian window, pixels."""
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
"""Constants of SSIM (Wang et al. 2004, Eq. 13), with K1 0.01 and K2 0.03."""


def psnr(a: Pixels, b: Pixels, protocol: str | Protocol = DEFAULT_PROTOCOL) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE); infinite for images that are equal to the protocol.

    a, b: (H, W, 3) uint8 RGB of one shape. The MSE is that of all levels that the protocol compares. Raises
    `MetricError` for another dtype or shape and for an image that the protocol's crop leaves nothing of,
    `UserError` for a name that is no protocol.
    """
    first, second, _ = _planes(a, b, protocol)
    error = float(np.mean((first - second) ** 2))
    return math.inf if error == 0.0 else 10.0 * math.log10(PEAK**2 / error)


def ssim(a: Pixels, b: Pixels, protocol: str | Protocol = DEFAULT_PROTOCOL) -> float:
    """Structural similarity in [-1, 1] (Wang et al. 2004, "Image quality assessment", Eq. 13), averaged.

    Gaussian window of side 11 and sigma 1.5, K1 0.01, K2 0.03, range 255, biased variances; the protocol says of
    what and where. Arguments as in `psnr`; on RGB with 2-D windows it is the mean of the three channels. Raises as
    `psnr` does, and `MetricError` for images with a side of less than 11 pixels.
    """
    first, second, found = _planes(a, b, protocol)
    height, width = first.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        raise MetricError(
            f"SSIM needs images of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, these are {width}x{height}."
        )
    if found.borders == "valid" and found.window == "2d":
        return float(
            structural_similarity(
                first,
                second,
                data_range=PEAK,
                channel_axis=2 if first.ndim == 3 else None,
                gaussian_weights=True,
                sigma=SSIM_SIGMA,
                use_sample_covariance=False,
            )
        )
    return float(np.mean(_ssim_map(first, second, found)))


def _ssim_map(first: Planes, second: Planes, protocol: Protocol) -> Planes:
    """SSIM of every pixel; a 3-D window mixes the channels, a 2-D one leaves them apart."""
    radius = SSIM_WINDOW // 2
    axes = range(first.ndim) if protocol.window == "3d" else (0, 1)

    def mean(levels: Planes) -> Planes:
        smooth = gaussian_filter(levels, SSIM_SIGMA, mode="nearest", radius=radius, axes=tuple(axes))
        if protocol.borders == "valid":
            smooth = smooth[radius:-radius, radius:-radius]
        return np.asarray(smooth)

    mean_1, mean_2 = mean(first), mean(second)
    variance_1, variance_2 = mean(first**2) - mean_1**2, mean(second**2) - mean_2**2
    covariance = mean(first * second) - mean_1 * mean_2
    likeness = (2 * mean_1 * mean_2 + C1) * (2 * covariance + C2)
    size = (mean_1**2 + mean_2**2 + C1) * (variance_1 + variance_2 + C2)
    return np.asarray(likeness / size)


def _planes(a: Pixels, b: Pixels, protocol: str | Protocol) -> tuple[Planes, Planes, Protocol]:
    """Check both images and return the levels that the protocol compares, with the protocol."""
    check_pair(a, b)
    found = find_protocol(protocol)
    if min(a.shape[:2]) <= 2 * found.crop:
        raise MetricError(
            f"{a.shape[1]}x{a.shape[0]} pixels are too few: {found.name} cuts {found.crop} off each side."
        )
    return planes_of(a, found), planes_of(b, found), found
