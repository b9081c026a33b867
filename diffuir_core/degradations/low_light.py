"""Low light: a short exposure in linear light, with the noise of few photons, developed to 8 bits.

    raw = cast 2^ev linear^gamma,    noisy = raw + sqrt(gain raw / photons + (gain read)^2) n,    n ~ N(0, 1)

Shot noise has a variance in proportion to the signal, read noise a constant one: the Gaussian approximation of
Poisson-Gaussian raw noise (Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image
raw-data", IEEE TIP 2008, Eq. 3). `gamma` over 1 is a camera that crushes its shadows, `cast` a white balance that
went wrong in the dark; both are found in LOL (Wei et al., "Deep Retinex Decomposition", BMVC 2018).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ._fields import (
    NEARLY_NONE,
    Field,
    Photo,
    check_photo,
    from_linear,
    generators,
    log_uniform,
    require_range,
    smooth_field,
    to_linear,
    to_photo,
)


@dataclass(frozen=True, kw_only=True)
class LowLightParams:
    """One dark photo; ValueError names a field out of its range."""

    ev: float
    """Exposure, stops, [-9, 0]."""
    gamma: float
    """Power on linear light before the exposure, [0.5, 3]; over 1 darkens the shadows most."""
    cast: tuple[float, float, float]
    """White balance, a factor for each of RGB, each [0.3, 1.5]."""
    unevenness: float
    """How much darker, of the light, the worst lit part of the scene is, [0, 0.9]."""
    photons: float
    """Photons that full white (after the exposure) stands for, [50, 1e7]: fewer are noisier."""
    read_noise: float
    """Standard deviation of the read noise, of full white, [0, 0.05]."""
    gains: tuple[float, float, float]
    """The camera's white balance, which amplifies the noise of RGB by these factors, each [1, 4]."""
    smoothing: float
    """How far the camera has smoothed the noise over neighbouring pixels, [0, 1]."""

    def __post_init__(self) -> None:
        require_range(self, "ev", -9, 0)
        require_range(self, "gamma", 0.5, 3)
        require_range(self, "cast", 0.3, 1.5)
        require_range(self, "unevenness", 0, 0.9)
        require_range(self, "photons", 50, 1e7)
        require_range(self, "read_noise", 0, 0.05)
        require_range(self, "gains", 1, 4)
        require_range(self, "smoothing", 0, 1)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """A random dark photo: a quarter hardly darker, the others down to six stops and a half."""
        nearly_none = rng.random() < NEARLY_NONE
        strength = 0.06 if nearly_none else 1.0
        cast = 2 ** np.clip(rng.normal(0, 0.25 * strength, 3), -1, 0.5)
        return cls(
            ev=float(-0.15 * rng.random() ** 2 if nearly_none else rng.uniform(-6.5, -0.8)),
            gamma=float(1 + rng.uniform(-0.15, 0.7) * strength),
            cast=(float(cast[0]), float(cast[1]), float(cast[2])),
            unevenness=float(rng.uniform(0, 0.5) * strength) if rng.random() < 0.4 else 0.0,
            photons=log_uniform(rng, 1e5, 1e6) if nearly_none else log_uniform(rng, 3e3, 4e5),
            read_noise=log_uniform(rng, 2e-5, 1e-4) if nearly_none else log_uniform(rng, 5e-5, 1.2e-3),
            gains=(float(rng.uniform(1, 2.2)), 1.0, float(rng.uniform(1, 2))),
            smoothing=float(rng.uniform(0, 1)),
        )


def low_light(clean: Photo, seed: int, params: LowLightParams | None = None) -> Photo:
    """`clean`, uint8 (H, W, 3) RGB, in the dark: the same shape and type. A pure function of its arguments.

    seed >= 0 gives the noise and, without `params`, draws them too. ValueError if `clean` is no such photo.
    """
    check_photo(clean)
    parameters, rng = generators(seed)
    if params is None:
        params = LowLightParams.draw(parameters)
    height, width = clean.shape[:2]
    curve = to_linear(np.arange(256, dtype=np.uint8)) ** np.float32(params.gamma) * np.float32(2**params.ev)
    raw = curve[clean] * np.asarray(params.cast, np.float32)
    if params.unevenness > 0:
        raw *= (1 - params.unevenness * smooth_field(rng, height, width, 2))[:, :, None]
    noise = rng.standard_normal(raw.shape, dtype=np.float32)
    if params.smoothing > 0:
        noise = _smoothed(noise, params.smoothing)
    gains = np.asarray(params.gains, np.float32)
    noise *= np.sqrt(
        raw * (gains / np.float32(params.photons)) + (gains * np.float32(params.read_noise)) ** 2
    )
    return to_photo(from_linear(raw + noise))


def _smoothed(noise: Field, smoothing: float) -> Field:
    """(H, W, 3) noise mixed with its neighbour below and to the right, its variance kept."""
    share = np.float32(smoothing / 2)
    keep = np.float32(1 / np.hypot(1 - share, share))
    for axis in (0, 1):
        noise = keep * ((1 - share) * noise + share * np.roll(noise, 1, axis))
    return noise
