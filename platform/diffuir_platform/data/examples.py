"""Photos to try things with, from scikit-image's wheel (public domain or CC0), and degraded versions of them."""

from __future__ import annotations

import numpy as np
import skimage.data
from PIL import Image

from diffuir_core.degradations import degrade
from diffuir_core.imaging import Pixels
from diffuir_core.metrics import psnr

WIDTH, HEIGHT = 384, 256
"""Size of the example photos, pixels."""
DRAWS = 15
"""Degradations to choose the median of: a single one may be nearly clean or very heavy."""


def bundled_photo(name: str) -> Pixels:
    """A photo of scikit-image's, the top cut to 3:2 and reduced to 384x256, uint8 (256, 384, 3) RGB."""
    photo: Pixels = getattr(skimage.data, name)()
    height, width = photo.shape[:2]
    box = (0, 0, min(width, height * WIDTH // HEIGHT), min(height, width * HEIGHT // WIDTH))
    reduced = Image.fromarray(photo).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)
    return np.asarray(reduced, dtype=np.uint8)


def typical(task: str, clean: Pixels, seed: int) -> Pixels:
    """Of DRAWS degradations of `clean` (seeds from `seed` on), the one whose PSNR is the median."""
    draws = [degrade(task, clean, seed + draw) for draw in range(DRAWS)]
    return sorted(draws, key=lambda degraded: psnr(degraded, clean))[DRAWS // 2]
