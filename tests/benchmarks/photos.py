"""The photos that scikit-image bundles, as input of benchmarks that are given none."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from skimage import data

from diffuir_core.degradations import degrade
from diffuir_core.pixels import Pixels

NAMES = ("astronaut", "coffee", "chelsea")
"""Photos of 512x512, 600x400 and 451x300 pixels."""

DEGRADED = (
    ("astronaut", "haze"),
    ("coffee", "low_light"),
    ("rocket", "rain"),
    ("coffee", "haze"),
    ("astronaut", "snow"),
)
"""Photos of at least 400x400 pixels, and the degradation of each."""


def bundled_photo(name: str) -> Pixels:
    """A photo of scikit-image, uint8 (H, W, 3) RGB."""
    photo: Pixels = getattr(data, name)()
    return photo


def degraded_photos() -> list[Pixels]:
    """The photos of `DEGRADED`, uint8 (H, W, 3) RGB, the same in every run."""
    return [degrade(task, bundled_photo(name), seed) for seed, (name, task) in enumerate(DEGRADED)]


def write_photos(folder: Path, suffix: str = ".png") -> list[Path]:
    """Write the photos of `NAMES` to `folder`, which is made if it is missing; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}{suffix}" for name in NAMES]
    for file in files:
        Image.fromarray(bundled_photo(file.stem)).save(file, quality=95)
    return files
