"""What is done to the photos of a parcel: read and decode, restore, encode and write.

Plain functions of photos, which know nothing of where they run. What fails is that photo's, with its reason; what
a store does not give at once is asked for again.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

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
    inspect,
)

from .. import storage
from .discovery import Item

if TYPE_CHECKING:
    from diffuir_core.restorer import Restoration

PARCEL_PIXELS = 2**24
"""Pixels that a parcel may hold decoded, unless a single photo has more: 48 MiB, twice, at each stage."""

PATIENCE = (0.2, 1.0, 4.0, 15.0)
"""Seconds between one attempt at the store and the next, each by chance up to twice as long: it is asked five
times, after what its own client tries."""

Result = TypeVar("Result")


class RestoresPixels(Protocol):
    """The part of `diffuir_core.Restorer` that is used here."""

    precision: str

    def restorations(self, images: Sequence[np.ndarray]) -> list[Restoration]:
        """uint8 (H, W, 3) arrays -> restored ones of the same shapes, and how."""


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One input on its way through the stages. At the end it holds no pixels, and a reason or a hash."""

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
    photos: list[Photo] = []
    pixels = 0
    for item in items:
        began = time.perf_counter()
        photo = Photo(item=item)
        try:
            data = patiently(partial(read_input, item))
            header = inspect(data)
            pixels += header.height * header.width
            if photos and pixels > PARCEL_PIXELS:
                photo = replace(photo, postponed=True)
            else:
                image = decode(data, exif=exif, truncated=truncated)
                height, width = image.pixels.shape[:2]
                photo = replace(photo, image=image, height=height, width=width, format=image.format)
        except storage.StoreError as error:
            photo = replace(photo, unreachable=True, reason=str(error))
        except UserError as error:
            photo = replace(photo, reason=str(error))
        photos.append(replace(photo, seconds_read=time.perf_counter() - began))
    return photos


def restore(photos: Sequence[Photo], restorer: RestoresPixels) -> list[Photo]:
    """The same photos with restored pixels; of one that the restorer fails on, the reason."""
    began = time.perf_counter()
    at = [i for i, photo in enumerate(photos) if photo.image is not None]
    results = restore_each(restorer, [photos[i].image.pixels for i in at])  # type: ignore[union-attr]
    share = (time.perf_counter() - began) / max(len(at), 1)
    restored = list(photos)
    for i, result in zip(at, results, strict=True):
        photo = replace(photos[i], seconds_restore=share, precision=restorer.precision)
        if isinstance(result, str):
            restored[i] = replace(photo, image=None, reason=result)
        else:
            restored[i] = replace(photo, image=with_restored(photo.image, result))  # type: ignore[arg-type]
    return restored


def write(photos: Sequence[Photo], folder: str, quality: int) -> list[Photo]:
    """Write each result below the URI `folder`, at once and as a whole; the same photos without their pixels."""
    written = []
    for photo in photos:
        began = time.perf_counter()
        if photo.image is not None:
            try:
                data = encode(photo.image, photo.item.format, quality)
                uri = storage.join(folder, photo.item.target)
                patiently(partial(storage.write_bytes, uri, data))
                digest = hashlib.sha256(data).hexdigest()
                photo = replace(photo, bytes=len(data), sha256=digest, notes="; ".join(photo.image.notes))
            except storage.StoreError as error:
                photo = replace(photo, unreachable=True, reason=str(error))
            except (UserError, ValueError) as error:  # ValueError: a name that no file can have
                photo = replace(photo, reason=f"its result cannot be written ({error})")
        written.append(replace(photo, image=None, seconds_write=time.perf_counter() - began))
    return written


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


def with_restored(image: Image, restoration: Restoration) -> Image:
    """The photo with its restored pixels, and a note where it was restored in tiles."""
    restored = image.with_pixels(restoration.pixels)
    if restoration.tiling is None:
        return restored
    return replace(restored, notes=(*restored.notes, f"restored in {restoration.tiling}"))


def patiently(run: Callable[[], Result], sleep: Callable[[float], None] = time.sleep) -> Result:
    """What `run` returns; where the store fails it, again after each of PATIENCE.

    What would be no other the next time is not tried again: no such file, no rights, no photo.
    """
    for pause in PATIENCE:
        try:
            return run()
        except (storage.Busy, storage.StoreError):
            sleep(pause * (1 + random.random()))
    return run()
