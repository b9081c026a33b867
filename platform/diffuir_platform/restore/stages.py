"""The three stages of a batch of photos: read and decode, restore, encode and write.

Plain functions of photos that know nothing of where they run. A photo that fails keeps the reason and does not
affect the others; requests to a busy store are retried.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from diffuir_core.errors import UserError
from diffuir_core.imaging import (
    DEFAULT_LIMITS,
    ExifPolicy,
    Image,
    check_bytes,
    decode,
    encode,
)

from .. import storage
from ..inference import RestoresPixels, restore_each, with_restored
from ..storage import retry
from .inputs import Item

BATCH_PIXELS = 2**24
"""Decoded pixels after which a batch takes no more photos: 48 MiB, plus the size of the last photo."""

RETRIED = (storage.Busy, storage.StoreError)
"""Errors of the store that are retried. StoreError too: with many nodes at work, one may not reach the store for a
while."""


@dataclass(kw_only=True)
class Photo:
    """One input on its way through the stages, which fill in its fields; at the end it has a reason or a hash."""

    item: Item
    image: Image | None = None
    reason: str | None = None
    """Why it failed, one sentence."""
    postponed: bool = False
    """Whether its batch had enough pixels without it, so that it goes into another."""
    unreachable: bool = False
    """Whether the store as a whole did not answer, which is not the photo's fault; the reason says more."""
    notes: str = ""
    format: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    precision: str | None = None
    seconds_read: float = 0.0
    seconds_restore: float = 0.0
    seconds_write: float = 0.0


def read(items: Sequence[Item], exif: ExifPolicy, truncated: bool) -> list[Photo]:
    """Read and decode the photos of a batch; each returned photo has its image, or the reason why it has none."""
    photos = [Photo(item=item) for item in items]
    pixels = 0
    for photo in photos:
        if pixels >= BATCH_PIXELS:
            photo.postponed = True
            continue
        began = time.perf_counter()
        try:
            data = retry(partial(read_input, photo.item), RETRIED)
            photo.image = decode(data, exif=exif, truncated=truncated)
            photo.height, photo.width = photo.image.pixels.shape[:2]
            photo.format = photo.image.format
            pixels += photo.height * photo.width
        except storage.StoreError as error:
            photo.unreachable, photo.reason = True, str(error)
        except (UserError, ValueError) as error:  # ValueError: a name that no file can have
            photo.reason = str(error)
        photo.seconds_read = time.perf_counter() - began
    return photos


def restore(photos: list[Photo], restorer: RestoresPixels) -> list[Photo]:
    """Restore the pixels of decoded photos in place; a photo that the restorer fails on gets the reason."""
    began = time.perf_counter()
    decoded = [(photo, photo.image) for photo in photos if photo.image is not None]
    results = restore_each(restorer, [image.pixels for _, image in decoded])
    share = (time.perf_counter() - began) / max(len(decoded), 1)
    for (photo, image), result in zip(decoded, results, strict=True):
        photo.seconds_restore, photo.precision = share, restorer.precision
        if isinstance(result, str):
            photo.image, photo.reason = None, result
        else:
            photo.image = with_restored(image, result.pixels, result.tiling)
    return photos


def write(photos: list[Photo], folder: str, quality: int) -> list[Photo]:
    """Encode each photo and write it below the URI `folder`, atomically; returns them without pixels."""
    for photo in photos:
        began = time.perf_counter()
        image, photo.image = photo.image, None
        if image is None:
            continue
        try:
            data = encode(image, photo.item.format, quality)
            retry(partial(storage.write_bytes, f"{folder}/{photo.item.target}", data), RETRIED)
            photo.bytes, photo.sha256 = len(data), hashlib.sha256(data).hexdigest()
            photo.notes = "; ".join(image.notes)
        except storage.StoreError as error:
            photo.unreachable, photo.reason = True, str(error)
        except (UserError, ValueError) as error:  # ValueError: a name that no file can have
            photo.reason = f"its result cannot be written ({error})"
        photo.seconds_write = time.perf_counter() - began
    return photos


def read_input(item: Item) -> bytes:
    """Return an input's bytes; raises `ImageError` over the size limit, `UserError` where it can't be read."""
    if item.size is None:
        check_bytes(storage.entry(item.source).size, DEFAULT_LIMITS)
        return storage.read_bytes(item.source)
    check_bytes(item.size, DEFAULT_LIMITS)
    if item.offset is not None:
        return storage.read_range(item.source, item.offset, item.size)
    data = storage.read_bytes(item.source)
    check_bytes(len(data), DEFAULT_LIMITS)
    return data
