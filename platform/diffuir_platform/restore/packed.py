"""The stages as Ray runs them, with photos pickled on the way.

Ray pickles what it passes on object by object, asking in Python how each is to be pickled: 59 microseconds a photo
from one process to the next, where this takes 23; with tiny photos that is a tenth of the job.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from concurrent.futures import Executor

from diffuir_core.imaging import ExifPolicy

from ..inference import RestoresPixels
from . import stages
from .inputs import Item
from .stages import Photo


def read(items: Sequence[Item], exif: ExifPolicy, truncated: bool) -> bytes:
    """`stages.read`, pickled."""
    return pickle.dumps(stages.read(items, exif, truncated), protocol=5)


def restore(photos: bytes, restorer: RestoresPixels, model: Executor) -> bytes:
    """`stages.restore` of pickled photos, pickled; only what the restorer does is done by `model`."""
    restored = model.submit(stages.restore, pickle.loads(photos), restorer).result()
    return pickle.dumps(restored, protocol=5)


def write(photos: bytes, folder: str, quality: int) -> list[Photo]:
    """`stages.write` of pickled photos."""
    return stages.write(pickle.loads(photos), folder, quality)
