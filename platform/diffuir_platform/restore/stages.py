"""What is done to the photos of a parcel: read and decode, restore, encode and write.

Plain functions of photos, which know nothing of where they run. What fails is that photo's, with its reason; what
a store does not give at once is asked for again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from diffuir_core.errors import UserError
from diffuir_core.imaging import (
    DEFAULT_LIMITS,
    ExifPolicy,
    Image,
    Pixels,
    check_bytes,
    decode,
    encode,
)

from .. import storage
from ..patience import patiently
from .discovery import Item

if TYPE_CHECKING:
    from diffuir_core.restorer import Restoration

PARCEL_PIXELS = 2**24
"""Decoded pixels after which a parcel takes no more photos: 48 MiB, and what the last one has."""

OF_THE_STORE = (storage.Busy, storage.StoreError)
"""What is asked again: many nodes are at work, and one of them may find the store away for a while."""


class RestoresPixels(Protocol):
    """The part of `diffuir_core.Restorer` that is used here."""

    precision: str

    def restorations(self, images: Sequence[np.ndarray]) -> list[Restoration]:
        """uint8 (H, W, 3) arrays -> restored ones of the same shapes, and how."""


@dataclass(kw_only=True)
class Photo:
    """One input on its way through the stages, which fill it in; at the end it has a reason or a hash."""

    item: Item
    image: Image | None = None
    reason: str | None = None
    """Why it failed, one sentence."""
    postponed: bool = False
    """Its parcel had pixels enough without it: to be tried in another."""
    unreachable: bool = False
    """The store as a whole did not answer, which says nothing of this photo; the reason says more."""
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
    """The decoded photos of a parcel, each with its image, or with the reason why there is none."""
    photos = [Photo(item=item) for item in items]
    pixels = 0
    for photo in photos:
        if pixels >= PARCEL_PIXELS:
            photo.postponed = True
            continue
        began = time.perf_counter()
        try:
            data = patiently(partial(read_input, photo.item), OF_THE_STORE)
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
    """The same photos with restored pixels; of one that the restorer fails on, the reason."""
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
    """Write each result below the URI `folder`, at once and as a whole; the same photos without their pixels."""
    for photo in photos:
        began = time.perf_counter()
        image, photo.image = photo.image, None
        if image is None:
            continue
        try:
            data = encode(image, photo.item.format, quality)
            patiently(partial(storage.write_bytes, f"{folder}/{photo.item.target}", data), OF_THE_STORE)
            photo.bytes, photo.sha256 = len(data), hashlib.sha256(data).hexdigest()
            photo.notes = "; ".join(image.notes)
        except storage.StoreError as error:
            photo.unreachable, photo.reason = True, str(error)
        except (UserError, ValueError) as error:  # ValueError: a name that no file can have
            photo.reason = f"its result cannot be written ({error})"
        photo.seconds_write = time.perf_counter() - began
    return photos


def read_input(item: Item) -> bytes:
    """An input's bytes; raises ImageError for what is no file of an allowed size, and UserError."""
    if item.size is None:
        check_bytes(storage.entry(item.source).size, DEFAULT_LIMITS)
        return storage.read_bytes(item.source)
    check_bytes(item.size, DEFAULT_LIMITS)
    if item.offset is not None:
        return storage.read_range(item.source, item.offset, item.size)
    data = storage.read_bytes(item.source)
    check_bytes(len(data), DEFAULT_LIMITS)
    return data


def restore_each(restorer: RestoresPixels, images: Sequence[Pixels]) -> list[Restoration | str]:
    """The restored images, or for one that the restorer fails on the reason; the others do not suffer for it."""
    if not images:
        return []
    try:
        return list(restorer.restorations(images))
    except Exception as error:  # noqa: BLE001 - whatever the model raises, it is this batch's and no more
        if len(images) == 1:
            text = " ".join(str(error).split())[:200]
            return [f"the restorer failed on it ({type(error).__name__}: {text})"]
    return [result for image in images for result in restore_each(restorer, [image])]


def with_restored(image: Image, pixels: Pixels, tiles: object) -> Image:
    """The photo with its restored pixels, and a note of the tiles that it was restored in, None: whole."""
    restored = image.with_pixels(pixels)
    if tiles is None:
        return restored
    return replace(restored, notes=(*restored.notes, f"restored in {tiles}"))
