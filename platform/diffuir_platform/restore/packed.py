"""The stages as Ray runs them, with the photos of a batch pickled as one object.

Ray pickles the objects of a list one by one and asks in Python how to pickle each: 59 microseconds a photo from
one process to the next, where this takes 23; with tiny photos that is a tenth of the job.
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


def read(items: Sequence[Item], exif: ExifPolicy, truncated: bool, max_pixels: int) -> bytes:
    """Run `stages.read`; returns its photos pickled."""
    return pickle.dumps(stages.read(items, exif, truncated, max_pixels), protocol=5)


def restore(photos: bytes, restorer: RestoresPixels, executor: Executor) -> bytes:
    """Run `stages.restore` on pickled photos in `executor`; returns them pickled."""
    restored = executor.submit(stages.restore, pickle.loads(photos), restorer).result()
    return pickle.dumps(restored, protocol=5)


def write(photos: bytes, folder: str, quality: int, overwrite: bool) -> list[Photo]:
    """Run `stages.write` on pickled photos."""
    return stages.write(pickle.loads(photos), folder, quality, overwrite=overwrite)
