"""Photos to try things with: those in this folder (see SOURCES.md), and the photos that scikit-image bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from diffuir_core.degradations import degrade
from diffuir_core.imaging import Pixels
from diffuir_core.metrics import psnr

PHOTOS_FOLDER = Path(__file__).parent / "photos"
"""Twelve clean photos, JPEG, 512 pixels on the long side."""
PAIRS_FOLDER = Path(__file__).parent / "pairs"
"""Two synthetic pairs for each task in `<task>/degraded` and `<task>/clean`, JPEG, 256 pixels on the long side;
none of their photos is in PHOTOS_FOLDER."""

WIDTH, HEIGHT = 384, 256
"""Size of the bundled photos after they are reduced, pixels."""
DRAWS = 15
"""Number of degradations of which `typical` takes the median: a single one may be nearly clean or very heavy."""


def bundled_photo(name: str) -> Pixels:
    """A photo of scikit-image's wheel, cut at the bottom to 3:2, reduced to 384x256, uint8 (256, 384, 3) RGB."""
    photo: Pixels = getattr(skimage.data, name)()
    height, width = photo.shape[:2]
    box = (0, 0, min(width, height * WIDTH // HEIGHT), min(height, width * HEIGHT // WIDTH))
    reduced = Image.fromarray(photo).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)
    return np.asarray(reduced, dtype=np.uint8)


def typical(task: str, clean: Pixels, seed: int) -> Pixels:
    """The degradation of `clean` whose PSNR is the median of DRAWS, with the seeds from `seed` on."""
    draws = [degrade(task, clean, seed + draw) for draw in range(DRAWS)]
    return sorted(draws, key=lambda degraded: psnr(degraded, clean))[DRAWS // 2]
