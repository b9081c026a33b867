"""Conversion of colours from an ICC profile to sRGB, by LittleCMS."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..metadata.colour_space import ColourSpace
from .sampled import Array


def to_srgb(samples: Array, icc_profile: bytes) -> Array:
    """Convert the colours of uint8 or uint16 (H, W, 1 .. 4) from a profile that fits them to sRGB.

    They stay as they are under a profile that cannot be used.
    """
    import imagecodecs

    count = 1 if samples.shape[-1] < 3 else 3
    kind = "gray" if count == 1 else "rgb"
    target = ColourSpace("sRGB").profile(grey=count == 1) or b""
    colours = np.ascontiguousarray(samples[..., :count])
    try:
        converted = imagecodecs.cms_transform(
            colours[..., 0] if count == 1 else colours,
            icc_profile,
            target,
            colorspace=kind,
            outcolorspace=kind,
            outdtype=samples.dtype,
        )
    except (RuntimeError, ValueError):
        return samples
    return np.concatenate((converted.reshape(colours.shape), samples[..., count:]), axis=-1)


def is_srgb(icc_profile: bytes) -> bool:
    """Whether colours stay what they are, within one level of 8 bits, when they are converted to sRGB."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    is_grey = icc_profile[16:20] == b"GRAY"
    grid: Any = levels[:, None, None] if is_grey else np.stack(np.meshgrid(levels, levels, levels), -1)
    samples = grid.reshape(-1, 1, grid.shape[-1])
    difference = to_srgb(samples, icc_profile).astype(int) - samples
    return int(np.abs(difference).max()) <= 1
