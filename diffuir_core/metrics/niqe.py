"""NIQE, a score without a reference (Mittal et al. 2013, "Making a completely blind image quality analyzer").

It is the distance of an image's statistics from those of pristine photos, so lower is better. The pristine
statistics are read from a file, or fitted from photos of yours (`fit_niqe`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import UserError
from ..pixels import Pixels
from .errors import MetricError
from .parameter_files import read_arrays, write_arrays
from .protocols import LUMA_BLACK, LUMA_WEIGHTS, PEAK, check_photo, size_of
from .resizing import imresize
from .scene_statistics import (
    Gaussian,
    Levels,
    blocks_of,
    distances,
    fit,
    gaussian_window,
    normalised,
    normalised_features,
)

BLOCK = 96
"""Side of a block, pixels of the full image."""
WINDOW = gaussian_window(7, 7 / 6)
"""Weights of the local mean and deviation."""
GREY = (0.299, 0.587, 0.114)
"""Weights of R, G and B in OpenCV's grey, which is Y of BT.601 in full range."""
FEATURES = 36
"""18 of each of two scales."""
SHARP = 0.75
"""Sharpness of a block that pristine statistics are taken from, relative to the sharpest of its photo."""
PUBLISHED = "niqe_pris_params.npz of BasicSR (github.com/XPixelGroup/BasicSR, basicsr/metrics)"


@dataclass(frozen=True, kw_only=True)
class NiqeVariant:
    """One of the definitions of NIQE that circulate."""

    name: str
    halving: Literal["bicubic", "bilinear"]
    """The second scale: MATLAB's `imresize`, or OpenCV's bilinear one, which is the mean of four pixels."""
    rounded: bool
    """Whether levels are rounded before they are measured."""
    precision: Literal["float32", "float64"]
    """Precision of the arithmetic; scores differ in the fourth digit."""
    source: str


NIQE_VARIANTS = {
    variant.name: variant
    for variant in (
        NiqeVariant(
            name="niqe-matlab",
            halving="bicubic",
            rounded=True,
            precision="float64",
            source="the authors' MATLAB code, BasicSR and MMagic",
        ),
        NiqeVariant(
            name="niqe-released",
            halving="bilinear",
            rounded=False,
            precision="float32",
            source="the published code of DiffUIR",
        ),
    )
}


def read_niqe(path: Path) -> Gaussian:
    """Read pristine statistics: BasicSR's npz, the authors' MATLAB file, or what `write_niqe` wrote.

    Raises `UserError` for a file that is missing or holds something else.
    """
    arrays = read_arrays(path, f"the pristine statistics of NIQE, such as {PUBLISHED}")
    for mean, covariance in (("mu_pris_param", "cov_pris_param"), ("mu_prisparam", "cov_prisparam")):
        if {mean, covariance} <= arrays.keys() and arrays[covariance].shape == (FEATURES, FEATURES):
            return Gaussian(arrays[mean].reshape(FEATURES), arrays[covariance])
    raise UserError(f"{path} holds no statistics of NIQE: name {PUBLISHED}, or fit your own")


def write_niqe(path: Path, pristine: Gaussian) -> None:
    """Write pristine statistics in the form of BasicSR's npz, by an atomic rename."""
    write_arrays(path, mu_pris_param=pristine.mean[None], cov_pris_param=pristine.covariance)


def niqe(
    pixels: Pixels,
    pristine: Gaussian,
    variant: str = "niqe-matlab",
    channel: Literal["y", "grey"] = "y",
    crop: int = 0,
) -> float:
    """NIQE of a uint8 RGB photo (H, W, 3); lower is better.

    pristine: what `read_niqe` returns. variant: a name of `NIQE_VARIANTS`. channel: Y of BT.601 in studio range,
    or OpenCV's grey. crop: pixels that are cut off each side first. Raises `MetricError` where fewer than two
    blocks of 96x96 pixels with statistics are left, `UserError` for a name that is no variant.
    """
    features, _ = _block_features(pixels, niqe_variant(variant), channel, crop)
    usable = ~np.isnan(features).any(axis=1)
    if usable.sum() < 2:
        raise MetricError(
            "NIQE needs two blocks of 96x96 pixels that are not flat, and this image has fewer."
        )
    found = fit(features)
    return float(distances(found.mean[None], pristine.mean, pristine.covariance, found.covariance)[0])


def niqe_samples(pixels: Pixels, variant: str = "niqe-matlab") -> Levels:
    """The features (n, 36) of the sharp blocks of a pristine photo, uint8 RGB (H, W, 3), for `fit_niqe`.

    Sharp are those with more than 0.75 of the local contrast of the sharpest, as the authors take them. Raises
    `MetricError` for a photo under 96x96 pixels.
    """
    features, sharpness = _block_features(pixels, niqe_variant(variant), "y", 0)
    sharp = features[sharpness > SHARP * sharpness.max()]
    return sharp[~np.isnan(sharp).any(axis=1)]


def fit_niqe(samples: Iterable[Levels]) -> Gaussian:
    """Fit pristine statistics to the `niqe_samples` of photos; raises `UserError` where these are too few."""
    features = np.concatenate([np.empty((0, FEATURES)), *samples])
    if len(features) <= FEATURES:
        raise UserError(
            f"these photos give {len(features)} sharp blocks of {BLOCK}x{BLOCK} pixels, and NIQE needs more than "
            f"{FEATURES}: add photos"
        )
    return fit(features)


def niqe_variant(name: str) -> NiqeVariant:
    """The variant of that name; raises `UserError` for any other name."""
    try:
        return NIQE_VARIANTS[name]
    except KeyError:
        raise UserError(f"there is no {name!r}: choose one of {', '.join(NIQE_VARIANTS)}") from None


def _block_features(pixels: Pixels, variant: NiqeVariant, channel: str, crop: int) -> tuple[Levels, Levels]:
    """The 36 features of each block, and its sharpness: the mean of its local deviations."""
    check_photo(pixels)
    rows, columns = ((side - 2 * crop) // BLOCK for side in pixels.shape[:2])
    if min(rows, columns) < 1:
        raise MetricError(
            f"NIQE needs images of at least {BLOCK}x{BLOCK} pixels, this one is {size_of(pixels)}."
        )
    inside = pixels[crop : pixels.shape[0] - crop, crop : pixels.shape[1] - crop]
    levels = _levels(inside[: rows * BLOCK, : columns * BLOCK], variant, channel)
    full = normalised(levels, WINDOW)
    half = normalised(_halved(levels, variant), WINDOW)
    features = [
        normalised_features(blocks_of(full.levels, BLOCK)),
        normalised_features(blocks_of(half.levels, BLOCK // 2)),
    ]
    return np.concatenate(features, axis=1), blocks_of(full.deviation, BLOCK).mean(axis=(1, 2))


def _levels(pixels: Pixels, variant: NiqeVariant, channel: str) -> Levels:
    """Y or grey as the variant computes it: through the range [0, 1] and, in single precision, rounded on the
    way."""
    scaled = pixels.astype(variant.precision) / np.array(PEAK, variant.precision)
    levels = (
        (scaled @ np.array(LUMA_WEIGHTS) + LUMA_BLACK) / PEAK if channel == "y" else scaled @ np.array(GREY)
    )
    levels = levels.astype(variant.precision) * np.array(PEAK, variant.precision)
    return np.floor(levels + 0.5) if variant.rounded else levels


def _halved(levels: Levels, variant: NiqeVariant) -> Levels:
    height, width = (side // 2 for side in levels.shape)
    if variant.halving == "bicubic":
        return imresize(levels, height, width)
    return levels.reshape(height, 2, width, 2).mean(axis=(1, 3))
