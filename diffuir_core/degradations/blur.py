"""Blur by a camera that moved during the exposure or was slightly out of focus.

    B = sRGB(sum over kernel of kernel(p) linear(x - p))

The path of the camera is a random walk with inertia and sudden jerks (Boracchi & Foi, "Modeling the performance
of image restoration from motion blur", IEEE TIP 2012; Kupyn et al., "DeblurGAN", CVPR 2018, Algorithm 1). Its
trace is the kernel, and it is applied in linear light, in which exposures add up (Nah et al., "Deep Multi-scale
Convolutional Neural Network for Dynamic Scene Deblurring", CVPR 2017, Eq. 2). A camera that also turns blurs the
corners more than the middle (Whyte et al., "Non-uniform Deblurring for Shaken Images", IJCV 2012): then the poses
of the path are averaged one by one. An object may move before the background, which may be still, along a path of
its own; its edge is as transparent as the share of the exposure in which it was elsewhere. Lights that are clipped
in the photo were brighter than white, so they leave bright traces (Hu et al., "Deblurring Low-light Images with
Light Streaks", CVPR 2014). The GoPro data set is averaged in grey levels instead (its mean level is that of the
sharp photos, its mean light is not), so some draws are too.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..pixels import Pixels
from ._fields import (
    NEARLY_NONE,
    Field,
    check_photo,
    clipped_lights,
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
    """Longest side of the path of an object with a motion of its own, pixels, [0, 63]; -1 for no such object."""
    shake: float
    """Restlessness of the hand, [0, 1]: 0 gives a straight line."""
    in_levels: bool
    """True averages sRGB grey levels, like GoPro; False averages light, like a sensor."""
    defocus: float
    """Radius of the defocus blur, pixels, [0, 8]."""
    noise: float
    """Standard deviation of the noise added after the blur, grey levels, [0, 10]."""
    rotation: float = 0.0
    """Largest turn of the camera about its axis on the way, degrees, [0, 10]."""
    highlights: float = 0.0
    """Light of clipped white beyond full white, as a share of full white, [0, 50]; not with `in_levels`."""

    def __post_init__(self) -> None:
        require_range(self, "extent", 0, 63)
        require_range(self, "second_extent", -1, 63)
        require_range(self, "shake", 0, 1)
        require_range(self, "defocus", 0, 8)
        require_range(self, "noise", 0, 10)
        require_range(self, "rotation", 0, 10)
        require_range(self, "highlights", 0, 50)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a blur: a path under one pixel in a share `NEARLY_NONE` of draws, up to 40 pixels in the others.

        The background is still in a third of the draws with an object of its own motion.
        """
        nearly_none = rng.random() < NEARLY_NONE
        extent = float(rng.uniform(0, 1)) if nearly_none else log_uniform(rng, 1.5, 40)
        split = not nearly_none and rng.random() < 0.4
        focus = rng.random() < 0.3
        in_levels = bool(rng.random() < 0.4)
        turns = not nearly_none and not in_levels and rng.random() < 0.4
        is_still = split and rng.random() < 1 / 3
        return cls(
            extent=float(rng.uniform(0, 0.8)) if is_still else extent,
            second_extent=float(min(extent * (1.0 if is_still else rng.uniform(0, 1.5)), 40))
            if split
            else -1.0,
            shake=float(rng.choice([0.0, rng.random()], p=[0.25, 0.75])),
            in_levels=in_levels,
            defocus=float(rng.uniform(0, 0.4) if nearly_none else rng.uniform(0.3, 2.5)) if focus else 0.0,
            noise=float(rng.uniform(0, 2)) if rng.random() < 0.5 else 0.0,
            rotation=float(rng.uniform(0.2, 2.5)) if turns else 0.0,
            highlights=log_uniform(rng, 0.5, 20) if not in_levels and rng.random() < 0.4 else 0.0,
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
    if params.highlights > 0 and not params.in_levels:
        light = light + np.float32(params.highlights) * clipped_lights(clean)[:, :, None]
    exposed = _expose(light, rng, params, params.extent, params.rotation)
    if params.second_extent >= 0:
        # An object with a sharp outline of its own: where it is on the way, what is behind it shines through.
        cover = np.clip(24 * (smooth_field(rng, height, width, 2.5) - 0.55), 0, 1)[:, :, None]
        layers = np.concatenate((light * cover, np.repeat(cover, 3, axis=-1)), axis=-1)
        kernel = camera_kernel(rng, params.second_extent, params.shake, params.defocus)
        moved, share = (convolve(layers[..., i : i + 3], kernel) for i in (0, 3))
        exposed = moved + (1 - share) * exposed
    levels = exposed if params.in_levels else from_linear(exposed)
    if params.noise > 0:
        levels = levels + np.float32(params.noise) * rng.standard_normal(levels.shape, dtype=np.float32)
    return to_photo(levels)


def _expose(
    light: Field, rng: np.random.Generator, params: BlurParams, extent: float, rotation: float
) -> Field:
    """Average a (H, W, 3) field over the camera's path: by one kernel where it does not turn."""
    if rotation == 0:
        return convolve(light, camera_kernel(rng, extent, params.shake, params.defocus))
    height, width = light.shape[:2]
    path = _scaled(_path(rng, params.shake), extent)
    turns = _scaled(_path(rng, params.shake)[:, :1], np.deg2rad(rotation))[:, 0]
    farthest = extent + np.deg2rad(rotation) * np.hypot(height, width) / 2
    chosen = np.linspace(0, len(path) - 1, min(len(path), 2 + int(farthest))).round().astype(int)
    margin = int(np.ceil(farthest)) + 2
    padded = np.pad(light, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    channels = [Image.fromarray(np.ascontiguousarray(padded[..., i])) for i in range(3)]
    total = np.zeros_like(light)
    for (dy, dx), angle in zip(path[chosen], turns[chosen], strict=True):
        cos, sin = np.cos(angle), np.sin(angle)
        y, x = (height - 1) / 2, (width - 1) / 2
        # Output (column, row) -> input, about the middle of the photo (Pillow's AFFINE; pixel centres at .5).
        start_x = margin + x + dx - cos * (x + 0.5) + sin * (y + 0.5) + 0.5
        start_y = margin + y + dy - sin * (x + 0.5) - cos * (y + 0.5) + 0.5
        coefficients = (cos, -sin, start_x, sin, cos, start_y)
        for i, channel in enumerate(channels):
            total[..., i] += np.asarray(
                channel.transform(
                    (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
                )
            )
    total /= len(chosen)
    if params.defocus > 0:
        total = np.stack([gaussian_blur(total[..., i], params.defocus / 2) for i in range(3)], axis=-1)
    return total


def _scaled(path: NDArray[np.float64], extent: float) -> NDArray[np.float64]:
    """Move and scale (points, axes) so that their mean is 0 and their longest side is `extent`."""
    return (path - path.mean(0)) * (extent / max(np.ptp(path, axis=0).max(), 1e-9))


def camera_kernel(rng: np.random.Generator, extent: float, shake: float, defocus: float) -> Field:
    """The trace of a random camera path: (k, k) float32 >= 0, k odd, sum 1, centre of mass in the middle.

    extent: longest side of the path, pixels. shake: in [0, 1]. defocus: radius, pixels.
    """
    path = _scaled(_path(rng, shake), extent)
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
