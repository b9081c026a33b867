"""LOE, the lightness order error of an enhanced photo (Wang et al. 2013, "Naturalness preserved enhancement
algorithm for non-uniform illumination images", Eq. 17 to 20).

Lightness is the largest of R, G and B. For each sampled pixel it counts the pixels that were lighter than it
before and are darker after, or the other way round; 0 for an image whose order is kept, and lower is better. Two
ways to sample circulate under the one name, with different results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from ..errors import UserError
from ..pixels import Pixels
from .errors import MetricError
from .protocols import check_pair
from .resizing import imresize

SAMPLES = 50
"""Samples along the shorter side."""
WINDOW = 15
"""Side of the window whose maximum is sampled by `loe-local-max`, pixels."""
CHUNK = 512
"""Samples that are compared with all others at once."""

Lightness = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class LoeVariant:
    """One of the two definitions of LOE that circulate."""

    name: str
    sample: Callable[[Lightness], Lightness]
    """The samples of a lightness (H, W)."""
    source: str


def _local_maxima(lightness: Lightness) -> Lightness:
    step = min(lightness.shape) // SAMPLES
    if step < 1:
        raise MetricError(
            f"loe-local-max needs images of at least {SAMPLES}x{SAMPLES} pixels, this one is "
            f"{lightness.shape[1]}x{lightness.shape[0]}."
        )
    return np.asarray(maximum_filter(lightness, WINDOW, mode="mirror")[step - 1 :: step, step - 1 :: step])


def _resized(lightness: Lightness) -> Lightness:
    height, width = (int(side * SAMPLES / min(lightness.shape) + 0.5) for side in lightness.shape)
    return imresize(lightness, height, width)


LOE_VARIANTS = {
    variant.name: variant
    for variant in (
        LoeVariant(
            name="loe-local-max",
            sample=_local_maxima,
            source="STAR (Xu et al. 2020), after the authors' code: maxima of 15x15 pixels, every "
            "floor(shorter side / 50)-th of them",
        ),
        LoeVariant(
            name="loe-resize",
            sample=_resized,
            source="MATLAB code that circulates with LIME: imresize to 50 pixels on the shorter side",
        ),
    )
}


def loe(enhanced: Pixels, original: Pixels, variant: str = "loe-local-max") -> float:
    """Mean number of samples whose order to a sample differs in two uint8 RGB photos (H, W, 3) of one shape.

    It lies between 0 and the number of samples, which is some 50 x 50 x the ratio of the sides. variant: a name of
    `LOE_VARIANTS`. Raises `MetricError` for images that can't be compared, `UserError` for a name that is no
    variant.
    """
    check_pair(enhanced, original)
    if variant not in LOE_VARIANTS:
        raise UserError(f"there is no {variant!r}: choose one of {', '.join(LOE_VARIANTS)}")
    sample = LOE_VARIANTS[variant].sample
    after, before = (sample(image.max(axis=2)).ravel() for image in (enhanced, original))
    changed = 0
    for start in range(0, len(after), CHUNK):
        chosen = slice(start, start + CHUNK)
        # At least as light as: equal samples count for both.
        orders = (image[chosen, None] >= image[None, :] for image in (after, before))
        changed += int(np.count_nonzero(np.logical_xor(*orders)))
    return changed / len(after)
