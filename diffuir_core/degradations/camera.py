"""A camera's own traces on a photo: drops on its lens, noise, demosaicking, sharpening, a smaller copy, JPEG.

    y = JPEG(sharpen(resize(developed(drops) + noise)))

The noise is that of the exposure (low_light.py says by which model), correlated over neighbouring pixels by
demosaicking and the camera's own smoothing. Sharpening is an unsharp mask with its halos. The order is that of a
camera and of the person who then shares a smaller copy (Brooks et al., "Unprocessing Images for Learned Raw
Denoising", CVPR 2019; Wang et al., "Real-ESRGAN", ICCVW 2021, section 3, for the last two). Drops on the lens show
the scene upside down and out of focus, with a darker rim (You et al., "Adherent Raindrop Modeling, Detection and
Removal in Video", TPAMI 2016, section 3).
"""

import io
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

from ..pixels import Pixels
from ._fields import (
    Field,
    check_photo,
    from_linear,
    gaussian_blur,
    generators,
    log_uniform,
    require_range,
    smooth_noise,
    to_linear,
    to_photo,
)


@dataclass(frozen=True, kw_only=True)
class CameraParams:
    """Parameters of a camera. Raises ValueError with the name of a field that is out of its range."""

    photons: float
    """Photons of full white, [50, 1e7]; fewer make more noise."""
    read_noise: float
    """Standard deviation of the read noise, as a share of full white, [0, 0.05]."""
    smoothing: float
    """Strength of the smoothing of the noise over neighbouring pixels, [0, 1]."""
    scale: float
    """Size of the copy that the photo was enlarged from again, as a share of its side, [0.4, 1]; 1 for none."""
    sharpening: float
    """Strength of the unsharp mask, [0, 3]."""
    quality: int
    """JPEG quality, [5, 100]; 100 for no JPEG."""
    drops: int = 0
    """Drops on the lens, [0, 200]."""
    drop_radius: float = 8.0
    """Mean radius of the drops, pixels, [2, 60]."""

    def __post_init__(self) -> None:
        require_range(self, "photons", 50, 1e7)
        require_range(self, "read_noise", 0, 0.05)
        require_range(self, "smoothing", 0, 1)
        require_range(self, "scale", 0.4, 1)
        require_range(self, "sharpening", 0, 3)
        require_range(self, "quality", 5, 100)
        require_range(self, "drops", 0, 200)
        require_range(self, "drop_radius", 2, 60)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a camera: from one that is hardly seen to a telephone's in bad light, JPEG of quality 40 to 95."""
        return cls(
            photons=log_uniform(rng, 2e3, 1e6),
            read_noise=log_uniform(rng, 2e-5, 2e-3),
            smoothing=float(rng.uniform(0, 1)),
            scale=float(rng.uniform(0.6, 1)) if rng.random() < 0.15 else 1.0,
            sharpening=float(rng.uniform(0.1, 1.2)) if rng.random() < 0.4 else 0.0,
            quality=int(rng.integers(40, 96)) if rng.random() < 0.75 else 100,
            drops=int(rng.integers(1, 40)) if rng.random() < 0.04 else 0,
            drop_radius=log_uniform(rng, 3, 20),
        )


def camera(photo: Pixels, seed: int, params: CameraParams | None = None) -> Pixels:
    """Add a camera's traces to a photo; the same arguments give the same bytes.

    photo: uint8 (H, W, 3) RGB. seed: >= 0; seeds the noise, and the parameters if they are None. Returns uint8
    (H, W, 3). Raises ValueError for another array.
    """
    check_photo(photo)
    parameters, rng = generators(seed)
    if params is None:
        params = CameraParams.draw(parameters)
    height, width = photo.shape[:2]
    if params.drops > 0:
        photo = to_photo(_drops_on_the_lens(photo.astype(np.float32), params, rng))
    light = to_linear(photo)
    noise = smooth_noise(rng.standard_normal(light.shape, dtype=np.float32), params.smoothing)
    noise *= np.sqrt(light / np.float32(params.photons) + np.float32(params.read_noise**2))
    levels = from_linear(light + noise)
    small = max(1, round(height * params.scale)), max(1, round(width * params.scale))
    if small != (height, width):
        copy = Image.fromarray(to_photo(levels)).resize(small[::-1], Image.Resampling.BICUBIC)
        levels = np.asarray(copy.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    if params.sharpening > 0:
        levels = _unsharp(levels, params.sharpening)
    developed = to_photo(levels)
    return developed if params.quality == 100 else _jpeg(developed, params.quality)


def _unsharp(levels: Field, strength: float) -> Field:
    soft = np.stack([gaussian_blur(levels[..., channel], 1.0) for channel in range(3)], axis=-1)
    return levels + np.float32(strength) * (levels - soft)


def _jpeg(photo: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).copy()


def _drops_on_the_lens(wet: Field, params: CameraParams, rng: np.random.Generator) -> Field:
    """Draw drops in front of a (H, W, 3) field: each shows the scene around it upside down, out of focus."""
    height, width = wet.shape[:2]
    soft = np.stack([gaussian_blur(wet[..., i], 2.5) for i in range(3)], axis=-1)
    for _ in range(params.drops):
        radius = params.drop_radius * rng.lognormal(0, 0.4)
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        tall, wide = radius * rng.uniform(1, 1.4), radius * rng.uniform(0.8, 1.1)
        top, bottom = max(int(y - tall), 0), min(int(y + tall) + 2, height)
        left, right = max(int(x - wide), 0), min(int(x + wide) + 2, width)
        dy = (np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)) / np.float32(tall)
        dx = (np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)) / np.float32(wide)
        distance = np.hypot(dy, dx)
        # The farther from the middle, the farther away lies what is seen there.
        reach = np.float32(6 * radius)
        rows = np.clip(np.rint(y - reach * dy * (0.5 + distance)), 0, height - 1).astype(np.int64)
        columns = np.clip(np.rint(x - reach * dx * (0.5 + distance)), 0, width - 1).astype(np.int64)
        seen = soft[rows, columns] * (1 - 0.5 * np.clip(distance, 0, 1) ** 4)[:, :, None]
        cover = np.clip(np.float32(radius / 2) * (1 - distance), 0, 0.95)[:, :, None]
        patch = wet[top:bottom, left:right]
        patch += cover * (seen - patch)
    return wet
