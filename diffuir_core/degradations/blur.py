"""Blur: the camera moved during the exposure, or was a little out of focus.

    B = sRGB(sum over kernel of kernel(p) linear(x - p))

The path of the camera is a random walk with inertia and sudden jerks (Boracchi & Foi, "Modeling the performance
of image restoration from motion blur", IEEE TIP 2012; Kupyn et al., "DeblurGAN", CVPR 2018, Algorithm 1). Its
trace is the kernel, and it is applied in linear light, where a longer exposure adds up (Nah et al., "Deep
Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring", CVPR 2017, Eq. 2). A second kernel may
blur another part of the photo, as where an object moves by itself. GoPro turns out to be averaged in grey levels
instead (its mean level is that of the sharp photos, its mean light is not), so some draws do that.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ._fields import (
    NEARLY_NONE,
    Field,
    Photo,
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

# Points of a camera path: dense enough for the longest one to leave no gaps.
_PATH_POINTS = 96

# Kernels of at least this many taps are faster through the Fourier transform.
_MANY_TAPS = 150


@dataclass(frozen=True, kw_only=True)
class BlurParams:
    """One blur; ValueError names a field out of its range."""

    extent: float
    """Longest side of the camera's path, pixels, [0, 63]."""
    second_extent: float
    """The same for the part that moves otherwise, pixels, [0, 63]; negative -1 is no such part."""
    shake: float
    """0 is a straight line, 1 a restless hand, [0, 1]."""
    in_levels: bool
    """True averages sRGB grey levels, as GoPro does; False averages light, as a sensor does."""
    defocus: float
    """Radius of the blur by focus, pixels, [0, 8]."""
    noise: float
    """Standard deviation of the noise after it, grey levels, [0, 10]."""

    def __post_init__(self) -> None:
        require_range(self, "extent", 0, 63)
        require_range(self, "second_extent", -1, 63)
        require_range(self, "shake", 0, 1)
        require_range(self, "defocus", 0, 8)
        require_range(self, "noise", 0, 10)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """A random blur: a quarter under a pixel, the others up to a path of 31 pixels."""
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


def blur(clean: Photo, seed: int, params: BlurParams | None = None) -> Photo:
    """`clean`, uint8 (H, W, 3) RGB, blurred: the same shape and type. A pure function of its arguments.

    seed >= 0 gives the path and, without `params`, draws them too. ValueError if `clean` is no such photo.
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
    """The trace of one camera path, (k, k) float32 >= 0 with k odd, sum 1, its centre of mass in the middle.

    extent: longest side of the path in pixels; shake in [0, 1]; defocus: radius in pixels.
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
    """(points, 2) positions without a scale: a walk with inertia, and a jerk now and then."""
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
    """(H, W, 3) float32 by a (k, k) kernel, k odd, each channel, edges reflected: the same shape."""
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
        # A convolution, so that the trace in the photo is the kernel and not its mirror image.
        y, x = kernel.shape[0] - 1 - row, kernel.shape[1] - 1 - column
        total += kernel[row, column] * padded[y : y + height, x : x + width]
    return total


def _by_fourier(padded: Field, kernel: Field) -> Field:
    skipped = kernel.shape[0] - 1
    # Multiples of 32 keep the transforms fast; the zeros that fill up never reach the part that is kept.
    size = tuple(-(-side // 32) * 32 for side in padded.shape[:2])
    spectrum = (
        np.fft.rfft2(padded, s=size, axes=(0, 1)) * np.fft.rfft2(kernel, s=size, axes=(0, 1))[:, :, None]
    )
    whole = np.fft.irfft2(spectrum, s=size, axes=(0, 1))
    return whole[skipped : padded.shape[0], skipped : padded.shape[1]].astype(np.float32)
