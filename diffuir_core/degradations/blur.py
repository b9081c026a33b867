"""Blur by a camera that moved during the exposure or was slightly out of focus.

    B = sRGB(sum over kernel of kernel(p) linear(x - p))

The path of the camera is a random walk with inertia and sudden jerks (Boracchi & Foi, "Modeling the performance
of image restoration from motion blur", IEEE TIP 2012; Kupyn et al., "DeblurGAN", CVPR 2018, Algorithm 1). Its
trace is the kernel, and it is applied in linear light, in which exposures add up (Nah et al., "Deep Multi-scale
Convolutional Neural Network for Dynamic Scene Deblurring", CVPR 2017, Eq. 2). A second kernel may blur another
part of the photo, like an object with a motion of its own. The GoPro data set is averaged in grey levels instead
(its mean level is that of the sharp photos, its mean light is not), so some draws are too.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..pixels import Pixels
from ._fields import (
    NEARLY_NONE,
    Field,
    check_photo,
    from_linear,
    gaussian_blur,
    generators,
    log_uniform,
    require_range,
    smooth_field,
    splat,
    to_linear,
    to_photo,
)

# Points of a camera path, enough for the longest one to have no gaps.
_PATH_POINTS = 96

# Number of taps from which the Fourier transform is faster than shifts.
_MANY_TAPS = 150


@dataclass(frozen=True, kw_only=True)
class BlurParams:
    """Parameters of a blur. Raises ValueError with the name of a field that is out of its range."""

    extent: float
    """Longest side of the camera's path, pixels, [0, 63]."""
    second_extent: float
    """Longest side of the path of the part with a motion of its own, pixels, [0, 63]; -1 for no such part."""
    shake: float
    """Restlessness of the hand, [0, 1]: 0 gives a straight line."""
    in_levels: bool
    """True averages sRGB grey levels, like GoPro; False averages light, like a sensor."""
    defocus: float
    """Radius of the defocus blur, pixels, [0, 8]."""
    noise: float
    """Standard deviation of the noise added after the blur, grey levels, [0, 10]."""

    def __post_init__(self) -> None:
        require_range(self, "extent", 0, 63)
        require_range(self, "second_extent", -1, 63)
        require_range(self, "shake", 0, 1)
        require_range(self, "defocus", 0, 8)
        require_range(self, "noise", 0, 10)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a blur: a path under one pixel in a share `NEARLY_NONE` of draws, up to 31 pixels in the others."""
        nearly_none = rng.random() < NEARLY_NONE
        extent = float(rng.uniform(0, 1)) if nearly_none else log_uniform(rng, 1.5, 31)
        split = not nearly_none and rng.random() < 0.4
        focus = rng.random() < 0.3
        return cls(
            extent=extent,
            second_extent=float(min(extent * rng.uniform(0, 1.5), 31)) if split else -1.0,
            shake=float(rng.choice([0.0, rng.random()], p=[0.25, 0.75])),
            in_levels=bool(rng.random() < 0.4),
            defocus=float(rng.uniform(0, 0.4) if nearly_none else rng.uniform(0.3, 2.5)) if focus else 0.0,
            noise=float(rng.uniform(0, 2)) if rng.random() < 0.5 else 0.0,
        )


def blur(clean: Pixels, seed: int, params: BlurParams | None = None) -> Pixels:
    """Blur a photo; the same arguments give the same bytes.

    clean: uint8 (H, W, 3) RGB. seed: >= 0; seeds the camera's path, and the parameters if they are None. Returns
    uint8 (H, W, 3). Raises ValueError for another array.
    """
    check_photo(clean)
    parameters, rng = generators(seed)
    if params is None:
        params = BlurParams.draw(parameters)
    height, width = clean.shape[:2]
    light = clean.astype(np.float32) if params.in_levels else to_linear(clean)
    blurred = convolve(light, camera_kernel(rng, params.extent, params.shake, params.defocus))
    if params.second_extent >= 0:
        other = convolve(light, camera_kernel(rng, params.second_extent, params.shake, params.defocus))
        share = np.clip(4 * smooth_field(rng, height, width, 2) - 1.5, 0, 1)[:, :, None]
        blurred += share * (other - blurred)
    levels = blurred if params.in_levels else from_linear(blurred)
    if params.noise > 0:
        levels = levels + np.float32(params.noise) * rng.standard_normal(levels.shape, dtype=np.float32)
    return to_photo(levels)


def camera_kernel(rng: np.random.Generator, extent: float, shake: float, defocus: float) -> Field:
    """The trace of a random camera path: (k, k) float32 >= 0, k odd, sum 1, centre of mass in the middle.

    extent: longest side of the path, pixels. shake: in [0, 1]. defocus: radius, pixels.
    """
    path = _path(rng, shake)
    span = np.ptp(path, axis=0).max()
    path = (path - path.mean(0)) * (extent / span)
    reach = int(np.ceil(np.abs(path).max() + 2 * defocus)) + 1
    size = 2 * reach + 1
    kernel = splat(size, size, path[:, 0] + reach, path[:, 1] + reach, np.ones(len(path)))
    if defocus > 0:
        # A disc of radius r has the second moment of a Gaussian of sigma r / 2.
        kernel = gaussian_blur(kernel, defocus / 2)
    kernel /= kernel.sum()
    return kernel


def _path(rng: np.random.Generator, shake: float) -> NDArray[np.float64]:
    """A random walk with inertia and occasional jerks: (points, 2) positions, not scaled."""
    direction = rng.uniform(0, 2 * np.pi)
    velocity = np.array([np.sin(direction), np.cos(direction)])
    turns = rng.normal(0, 0.35 * shake, (_PATH_POINTS, 2))
    jerks = rng.random(_PATH_POINTS) < 0.06 * shake
    turns[jerks] += rng.normal(0, 1.5, (int(jerks.sum()), 2))
    steps = np.empty((_PATH_POINTS, 2))
    for i in range(_PATH_POINTS):
        velocity = (1 - 0.1 * shake) * velocity + turns[i]
        steps[i] = velocity
    return steps.cumsum(0)


def convolve(light: Field, kernel: Field) -> Field:
    """Convolve each channel of a (H, W, 3) field with a (k, k) kernel, k odd, edges reflected: (H, W, 3)."""
    reach = kernel.shape[0] // 2
    padded = np.pad(light, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    kept = np.where(kernel > kernel.max() * 1e-4, kernel, 0)
    kept *= kernel.sum() / kept.sum()
    by = _by_shifts if np.count_nonzero(kept) < _MANY_TAPS else _by_fourier
    return by(padded, kept)


def _by_shifts(padded: Field, kernel: Field) -> Field:
    height, width = (size - kernel.shape[0] + 1 for size in padded.shape[:2])
    total = np.zeros((height, width, 3), np.float32)
    for row, column in zip(*np.nonzero(kernel), strict=True):
        # A convolution, not a correlation: a point of light shows the kernel, not its mirror image.
        y, x = kernel.shape[0] - 1 - row, kernel.shape[1] - 1 - column
        total += kernel[row, column] * padded[y : y + height, x : x + width]
    return total


def _by_fourier(padded: Field, kernel: Field) -> Field:
    skipped = kernel.shape[0] - 1
    # Sizes that are multiples of 32 are fast to transform; the zeros added never reach the part that is kept.
    size = tuple(-(-side // 32) * 32 for side in padded.shape[:2])
    spectrum = (
        np.fft.rfft2(padded, s=size, axes=(0, 1)) * np.fft.rfft2(kernel, s=size, axes=(0, 1))[:, :, None]
    )
    whole = np.fft.irfft2(spectrum, s=size, axes=(0, 1))
    return whole[skipped : padded.shape[0], skipped : padded.shape[1]].astype(np.float32)
