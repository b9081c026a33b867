"""IL-NIQE, a score without a reference (Zhang, Zhang and Bovik 2015, "A feature-enriched completely blind image
quality evaluator", IEEE Trans. Image Processing 24).

To the statistics of NIQE it adds those of gradients, of colours, and of log-Gabor responses, reduces them by
principal components, and averages the distances of the blocks from pristine photos; lower is better. Written from
the publication, with the constants of its authors' MATLAB code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import convolve1d

from ..errors import UserError
from ..pixels import Pixels
from .errors import MetricError
from .parameter_files import read_arrays, write_arrays
from .protocols import check_photo, size_of
from .resizing import imresize
from .scene_statistics import (
    Levels,
    blocks_of,
    distances,
    fit,
    gaussian_window,
    generalised_gaussian,
    normalised,
    normalised_features,
    smoothed,
    weibull,
)

BLOCK = 84
"""Side of a block, pixels of the resized image."""
SIDE = 524
"""Height and width that an image is resized to, pixels."""
FEATURES = 468
"""234 of each of two scales."""
COMPONENTS = 430
"""Principal components in the published model."""
SHARP = 0.78
"""Sharpness of a block that pristine statistics are taken from, relative to the sharpest of its photo."""
WINDOW = gaussian_window(5, 5 / 6)
"""Weights of the local mean and deviation."""
HALVING = gaussian_window(6, 0.9)
"""Smoothing before every second pixel is taken."""
OPPONENTS = ((0.3, 0.04, -0.35), (0.34, -0.6, 0.17), (0.06, 0.63, 0.27))
"""Weights of R, G and B in the opponent colours O1, O2 and O3."""
LOG_OFFSET = 1e-5
"""Offset of levels before their logarithm."""
DERIVATIVE_SIGMA, DERIVATIVE_SHRINK = 1.66, 0.28
"""Standard deviation of the Gaussian derivatives, pixels; at scale s it is divided by s to the second."""
WAVELENGTH, WAVELENGTH_SHRINK, WAVELENGTH_STEP = 2.4, 0.87, 1.31
"""Shortest wavelength of the log-Gabor filters, pixels; its exponent of the scale; factor to the next."""
WAVELENGTHS, ORIENTATIONS = 3, 4
"""Numbers of wavelengths and orientations of the log-Gabor filters."""
RADIAL_SIGMA, ANGULAR_RATIO = 0.55, 1.1
"""Bandwidths of the log-Gabor filters: sigma over centre frequency; orientations' spacing over their sigma."""
IN_PLACE_OF_INFINITY = 10_000.0
"""Level that takes the place of an infinite feature."""
PUBLISHED = "templateModel.mat of the authors' code (www4.comp.polyu.edu.hk/~cslzhang/IQA/ILNIQE/ILNIQE.htm)"


@dataclass(frozen=True, kw_only=True)
class IlNiqeVariant:
    """One of the definitions of IL-NIQE that circulate."""

    name: str
    resized: bool
    """Whether the image is resized to 524x524 pixels first, by MATLAB's `imresize`."""
    source: str


IL_NIQE_VARIANTS = {
    variant.name: variant
    for variant in (
        IlNiqeVariant(name="il-niqe", resized=True, source="the authors' MATLAB code"),
        IlNiqeVariant(name="il-niqe-unresized", resized=False, source="that code without its first step"),
    )
}


@dataclass(frozen=True, kw_only=True)
class IlNiqeModel:
    """Pristine statistics, in the space of c principal components of the 468 features."""

    mean: Levels
    """(c,)"""
    covariance: Levels
    """(c, c)"""
    centre: Levels
    """Mean of the features themselves, (468,)."""
    components: Levels
    """(468, c)"""


def read_il_niqe(path: Path) -> IlNiqeModel:
    """Read pristine statistics: the authors' templateModel.mat, or what `write_il_niqe` wrote.

    Raises `UserError` for a file that is missing or holds something else.
    """
    arrays = read_arrays(path, f"the pristine statistics of IL-NIQE, such as {PUBLISHED}")
    if "templateModel" in arrays:
        parts = list(arrays["templateModel"].ravel())
    else:
        parts = [arrays.get(name) for name in ("mean", "covariance", "centre", "components")]
    if len(parts) != 4 or any(part is None for part in parts) or parts[3].shape[0] != FEATURES:
        raise UserError(f"{path} holds no statistics of IL-NIQE: name {PUBLISHED}, or fit your own")
    mean, covariance, centre, components = parts
    return IlNiqeModel(mean=mean.ravel(), covariance=covariance, centre=centre.ravel(), components=components)


def write_il_niqe(path: Path, model: IlNiqeModel) -> None:
    """Write pristine statistics as npz, by an atomic rename."""
    write_arrays(
        path,
        mean=model.mean,
        covariance=model.covariance,
        centre=model.centre,
        components=model.components,
    )


def il_niqe(pixels: Pixels, model: IlNiqeModel, variant: str = "il-niqe") -> float:
    """IL-NIQE of a uint8 RGB photo (H, W, 3); lower is better.

    model: what `read_il_niqe` returns. variant: a name of `IL_NIQE_VARIANTS`. Raises `MetricError` where no block
    of 84x84 pixels has statistics, `UserError` for a name that is no variant.
    """
    features = block_features(pixels, variant)[0]
    features = np.where(np.isinf(features), IN_PLACE_OF_INFINITY, features)
    points = (features - model.centre) @ model.components
    complete = points[~np.isnan(points).any(axis=1)]
    if len(complete) == 0:
        raise MetricError("IL-NIQE needs a block of 84x84 pixels that is not flat, and this image has none")
    # Of a single block MATLAB's `nancov` is one number, which it adds to every entry of the pristine covariance.
    covariance = np.asarray(np.cov(complete, rowvar=False) if len(complete) > 1 else np.var(complete, ddof=1))
    points = np.where(np.isnan(points), complete.mean(axis=0), points)
    return float(distances(points, model.mean, model.covariance, covariance).mean())


def il_niqe_samples(pixels: Pixels, variant: str = "il-niqe") -> Levels:
    """The features (n, 468) of the sharp blocks of a pristine photo, uint8 RGB (H, W, 3), for `fit_il_niqe`.

    Sharp are those with more than 0.78 of the local contrast of the sharpest, as the authors take them. Raises
    `MetricError` for a photo that is smaller than a block.
    """
    features, sharpness = block_features(pixels, variant)
    usable = np.isfinite(features).all(axis=1)
    return features[usable & (sharpness > SHARP * sharpness[usable].max(initial=0.0))]


def fit_il_niqe(samples: Iterable[Levels], components: int = COMPONENTS) -> IlNiqeModel:
    """Fit pristine statistics to the `il_niqe_samples` of photos, projected on their first principal components.

    Raises `UserError` where there are no more samples than `components`.
    """
    features = np.concatenate([np.empty((0, FEATURES)), *samples])
    if len(features) <= components:
        raise UserError(
            f"these photos give {len(features)} sharp blocks of {BLOCK}x{BLOCK} pixels, and IL-NIQE needs more "
            f"than {components}: add photos"
        )
    centre = features.mean(axis=0)
    axes = np.linalg.svd(features - centre, full_matrices=False)[2][:components].T
    found = fit((features - centre) @ axes)
    return IlNiqeModel(mean=found.mean, covariance=found.covariance, centre=centre, components=axes)


def block_features(pixels: Pixels, variant: str) -> tuple[Levels, Levels]:
    """The 468 features of each block, and its sharpness: the mean of its local deviations.

    NaN where a block lacks levels of one sign. Raises `MetricError` for an image that is smaller than a block.
    """
    check_photo(pixels)
    if variant not in IL_NIQE_VARIANTS:
        raise UserError(f"there is no {variant!r}: choose one of {', '.join(IL_NIQE_VARIANTS)}")
    resized = imresize(pixels, SIDE, SIDE) if IL_NIQE_VARIANTS[variant].resized else pixels
    rows, columns = (side // BLOCK for side in resized.shape[:2])
    if min(rows, columns) < 1:
        raise MetricError(
            f"{variant} needs images of at least {BLOCK}x{BLOCK} pixels, this one is {size_of(pixels)}"
        )
    colours = np.moveaxis(resized[: rows * BLOCK, : columns * BLOCK].astype(np.float64), 2, 0)
    opponents = np.tensordot(np.array(OPPONENTS), colours, axes=1)
    sharpness = blocks_of(normalised(opponents[2], WINDOW).deviation, BLOCK).mean(axis=(1, 2))
    features = [
        *_scale_features(colours, opponents, scale=1),
        *_scale_features(_halved(colours), _halved(opponents), scale=2),
    ]
    return np.concatenate(features, axis=1), sharpness


def _scale_features(colours: Levels, opponents: Levels, scale: int) -> Iterator[Levels]:
    """The 234 features of each block at one scale, in the order of the published model."""
    side = BLOCK // scale
    sigma = DERIVATIVE_SIGMA / scale**DERIVATIVE_SHRINK
    yield normalised_features(blocks_of(normalised(opponents[2], WINDOW).levels, side))
    gradients = _derivatives(opponents, sigma)
    yield _interleaved(*weibull(blocks_of(_magnitude(gradients), side)))
    colour_blocks = blocks_of(_log_opponents(colours), side)
    yield _interleaved(colour_blocks.mean(axis=(2, 3)), colour_blocks.var(axis=(2, 3), ddof=1))
    responses = _log_gabor(opponents[2], scale)
    response_gradients = _derivatives(responses, sigma)
    for maps in (gradients.reshape(-1, *gradients.shape[2:]), responses, response_gradients):
        shape, left, right = generalised_gaussian(blocks_of(maps.reshape(-1, *maps.shape[-2:]), side))
        yield _interleaved(shape, (left + right) / 2)
    yield _interleaved(*weibull(blocks_of(_magnitude(response_gradients), side)))


def _halved(maps: Levels) -> Levels:
    return np.stack([smoothed(one, HALVING)[::2, ::2] for one in maps])


def _log_opponents(colours: Levels) -> Levels:
    """Opponent colours of mean-free logarithms (Ruderman et al. 1998), from R, G and B: (3, H, W)."""
    logs = np.log(colours + LOG_OFFSET)
    red, green, blue = logs - logs.mean(axis=(1, 2), keepdims=True)
    return np.stack(
        [
            (red + green + blue) / math.sqrt(3),
            (red + green - 2 * blue) / math.sqrt(6),
            (red - green) / math.sqrt(2),
        ]
    )


def _derivatives(maps: Levels, sigma: float) -> Levels:
    """Gaussian derivatives of maps (n, H, W) along x and y, zeros beyond their borders: (n, 2, H, W)."""
    reach = math.ceil(3 * sigma)
    at = np.arange(-reach, reach + 1)
    bell = np.exp(-(at**2) / (2 * sigma**2))

    def along(axis: int) -> Levels:
        taps = [at * bell if axis == one else bell for one in (1, 2)]
        down = convolve1d(maps, taps[0], axis=1, mode="constant")
        return np.asarray(convolve1d(down, taps[1], axis=2, mode="constant"))

    return np.stack([along(2), along(1)], axis=1)


def _magnitude(derivatives: Levels) -> Levels:
    return np.asarray(np.hypot(derivatives[:, 0], derivatives[:, 1]) + np.finfo(np.float64).eps)


def _log_gabor(levels: Levels, scale: int) -> Levels:
    """Real and imaginary responses of levels (H, W) to the log-Gabor filters, in turns: (24, H, W)."""
    spectrum = np.fft.fft2(levels)
    responses = []
    for one in _log_gabor_filters(levels.shape, WAVELENGTH / scale**WAVELENGTH_SHRINK):
        response = np.fft.ifft2(spectrum * one)
        responses += [response.real, response.imag]
    return np.stack(responses)


def _log_gabor_filters(shape: tuple[int, ...], shortest: float) -> Iterator[Levels]:
    """The filters in the frequency plane (Field 1987), orientation by orientation of each wavelength."""
    up = -np.fft.fftfreq(shape[0])[:, None]
    right = np.fft.fftfreq(shape[1])[None, :]
    radius = np.hypot(up, right)
    radius[0, 0] = 1.0
    angle = np.arctan2(up, right)
    spread = math.pi / ORIENTATIONS / ANGULAR_RATIO
    for wavelength in (shortest * WAVELENGTH_STEP**step for step in range(WAVELENGTHS)):
        ring = np.exp(-(np.log(radius * wavelength) ** 2) / (2 * math.log(RADIAL_SIGMA) ** 2))
        ring[0, 0] = 0.0
        for orientation in np.arange(ORIENTATIONS) * math.pi / ORIENTATIONS:
            apart = np.abs(np.angle(np.exp(1j * (angle - orientation))))
            yield ring * np.exp(-(apart**2) / (2 * spread**2))


def _interleaved(first: Levels, second: Levels) -> Levels:
    """Columns of two arrays (n, f) in turns: (n, 2 f)."""
    return np.stack([first, second], axis=2).reshape(len(first), -1)
