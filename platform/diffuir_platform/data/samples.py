"""One slot of a batch: read, crop, degrade, flip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cachetools import LRUCache, cached

from diffuir_core import UserError
from diffuir_core.degradations import degrade
from diffuir_core.imaging import ImageError, decode

from .mixture import Slot
from .sources import Source

VARIED_TONES = frozenset(("rain", "snow", "blur"))
"""Tasks whose clean photos may be flat or dark: a model that met only vivid ones takes all others for hazy."""

VARIED_SHARE = 0.25
"""Of these tasks' photos."""

CACHE_BYTES = 512 * 2**20
"""Decoded photos that a loading process keeps: a small collection is decoded once, not once an epoch."""


def load_slot(slot: Slot, source: Source, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """(degraded, clean), each uint8 (crop, crop, 3): a pure function of the slot and the files.

    A photo with a side under `crop` is continued by reflection. Raises `UserError` for a file that can't be
    decoded or a pair whose sizes differ.
    """
    rng = np.random.default_rng(slot.seed)
    clean = read_pixels(source.clean)
    degraded = None if source.degraded is None else read_pixels(source.degraded)
    if degraded is not None and degraded.shape != clean.shape:
        raise UserError(
            f"{source.degraded} is {degraded.shape[1]}x{degraded.shape[0]}, its twin "
            f"{source.clean} {clean.shape[1]}x{clean.shape[0]}: a pair must be of one size"
        )
    top, left = (int(rng.integers(max(side - crop, 0) + 1)) for side in clean.shape[:2])
    window = (slice(top, top + crop), slice(left, left + crop))
    clean = _fill(clean[window], crop)
    if degraded is None and slot.task in VARIED_TONES and rng.random() < VARIED_SHARE:
        clean = vary_tones(clean, rng)
    degraded = (
        degrade(slot.task, clean, int(rng.integers(2**63)))
        if degraded is None
        else _fill(degraded[window], crop)
    )
    # Flipped after the degradation, which knows up from down: haze lies deeper towards the horizon.
    for axis in (0, 1):
        if rng.random() < 0.5:
            clean, degraded = np.flip(clean, axis), np.flip(degraded, axis)
    return np.ascontiguousarray(degraded), np.ascontiguousarray(clean)


def vary_tones(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3) with its contrast taken down, to half at most, about a random grey, and another gamma."""
    levels = np.arange(256) / 255
    contrast, grey, gamma = rng.uniform(0.5, 1), rng.uniform(0.2, 0.8), 2 ** rng.uniform(-0.5, 0.5)
    curve = grey + contrast * (levels**gamma - grey)
    return np.rint(curve * 255).astype(np.uint8)[clean]


@cached(LRUCache(CACHE_BYTES, getsizeof=lambda pixels: pixels.nbytes))
def read_pixels(path: str) -> np.ndarray:
    """The uint8 (H, W, 3) RGB pixels of an image file; raises `UserError` naming it where it can't be decoded."""
    try:
        return decode(Path(path).read_bytes()).pixels
    except ImageError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error


def _fill(window: np.ndarray, crop: int) -> np.ndarray:
    missing = [(0, crop - side) for side in window.shape[:2]]
    return (
        np.pad(window, (*missing, (0, 0)), mode="symmetric") if any(after for _, after in missing) else window
    )
