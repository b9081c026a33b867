"""The three stages of a batch of photos: read and decode, restore, encode and write.

Plain functions of photos that know nothing of where they run. A photo that fails keeps the reason and does not
affect the others; requests to a busy store are retried.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

from diffuir_core.errors import UserError
from diffuir_core.imaging import (
    DEFAULT_LIMITS,
    ExifPolicy,
    Image,
    Limits,
    check_bytes,
    check_fits,
    decode,
    encode,
    format_to_write,
    lost_in,
)

from .. import storage
from ..inference import RestoresPixels, restore_each, with_restored
from ..storage import retry
from . import journal
from .inputs import Item, is_same_place
from .writing import REMEDY, RETRIED, write_result

BATCH_PIXELS = 2**24
"""Decoded pixels after which `read` takes no more photos: 48 MiB, plus the size of the last photo."""
REQUESTS = 8
"""Photos that are read from or written to a remote store at the same time."""

CONTINUES = "what is written stays, and the same command continues from there"
"""End of the sentence of a run that a store has stopped."""


@dataclass(kw_only=True)
class Photo:
    """One input on its way through the stages, which fill in its fields; at the end it has a reason or a hash."""

    item: Item
    image: Image | None = None
    reason: str | None = None
    """Why it failed, one sentence."""
    unreachable: bool = False
    """Whether the store as a whole did not answer, which is not the photo's fault; the reason says more."""
    notes: str = ""
    format: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    journal: str | None = None
    """URI of the journal's entry that names its result; None where there is none."""
    precision: str | None = None
    seconds_read: float = 0.0
    seconds_restore: float = 0.0
    seconds_write: float = 0.0


@dataclass(frozen=True)
class FinishedPhoto:
    """A photo that is done or has failed, and the number of the attempt, from 1."""

    photo: Photo
    attempt: int


def read(items: Sequence[Item], exif: ExifPolicy, truncated: bool, max_pixels: int) -> list[Photo]:
    """Read and decode the first of `items`, at least one, until they have BATCH_PIXELS together.

    Each returned photo has its image, or the reason why it has none.
    """
    limits = Limits.for_pixels(max_pixels)
    photos: list[Photo] = []
    pixels = 0
    for item, get in zip(items, _fetched(items, limits), strict=False):
        photo = Photo(item=item)
        photos.append(photo)
        began = time.perf_counter()
        try:
            photo.image = decode(get(), limits, exif=exif, truncated=truncated)
            photo.height, photo.width = photo.image.pixels.shape[:2]
            photo.format = photo.image.format
            check_fits(photo.image, format_to_write(photo.format, photo.item.format))
            pixels += photo.height * photo.width
        except storage.StoreError as error:
            photo.unreachable, photo.reason = True, str(error)
        except (UserError, ValueError) as error:  # ValueError: a name that no file can have
            photo.image, photo.reason = None, str(error)
        photo.seconds_read = time.perf_counter() - began
        if pixels >= BATCH_PIXELS:
            break
    return photos


def _fetched(items: Sequence[Item], limits: Limits) -> Iterator[Callable[[], bytes]]:
    """Yield for each item a function that returns its bytes, or raises; remote ones are read some ahead."""

    def fetch(item: Item) -> bytes:
        return retry(partial(read_input, item, limits), RETRIED)

    if len(items) == 1 or not storage.is_remote(items[0].source):
        yield from (partial(fetch, item) for item in items)
        return
    with ThreadPoolExecutor(REQUESTS) as readers:
        ahead: deque[Future[bytes]] = deque()
        for item in items:
            ahead.append(readers.submit(fetch, item))
            if len(ahead) == REQUESTS:
                yield ahead.popleft().result
        while ahead:
            yield ahead.popleft().result


def restore(photos: list[Photo], restorer: RestoresPixels) -> list[Photo]:
    """Restore the pixels of decoded photos in place; a photo that the restorer fails on gets the reason."""
    began = time.perf_counter()
    decoded = [(photo, photo.image) for photo in photos if photo.image is not None]
    names = [photo.item.key for photo, _ in decoded]
    results = restore_each(restorer, [image.pixels for _, image in decoded], names)
    share = (time.perf_counter() - began) / max(len(decoded), 1)
    for (photo, image), result in zip(decoded, results, strict=True):
        photo.seconds_restore, photo.precision = share, restorer.precision
        if isinstance(result, str):
            photo.image, photo.reason = None, result
        else:
            photo.image = with_restored(image, result.pixels, result.tiling, result.note)
    return photos


def write(
    photos: list[Photo], folder: str, quality: int, *, overwrite: bool = False, journaled: bool = True
) -> list[Photo]:
    """Encode each photo and write it below the URI `folder`, atomically; returns them without pixels.

    overwrite: replace files that are no earlier results, which otherwise fail their photo. journaled: note the
    results in the journal of `folder` first, by which a later run knows them.
    """
    encoded = [(photo, data) for photo in photos if (data := _encoded(photo, quality)) is not None]
    began = time.perf_counter()
    entry = None
    try:
        if journaled and encoded:
            names = {photo.item.target: str(photo.sha256) for photo, _ in encoded}
            entry = retry(partial(journal.note, folder, names), RETRIED)
    except UserError as error:
        for photo, _ in encoded:
            _fail_to_write(photo, error)
        return photos
    share = (time.perf_counter() - began) / max(len(encoded), 1)
    noted = cache(lambda: retry(partial(journal.noted, folder), RETRIED))

    def write_one(photo: Photo, data: bytes) -> None:
        began = time.perf_counter()
        uri = f"{folder}/{photo.item.target}"
        photo.journal = entry
        try:
            if overwrite:
                if is_same_place(photo.item.source, uri):
                    raise UserError("it would replace its photo: choose another OUT")
                retry(partial(storage.write_bytes, uri, data), RETRIED)
            else:
                write_result(uri, data, replaces=photo.item.replaces, noted=noted, name=photo.item.target)
        except (UserError, ValueError) as error:  # ValueError: a name that no file can have
            _fail_to_write(photo, error)
        photo.seconds_write += share + time.perf_counter() - began

    if len(encoded) > 1 and storage.is_remote(folder):
        with ThreadPoolExecutor(REQUESTS) as writers:
            list(writers.map(write_one, *zip(*encoded, strict=True)))
    else:
        for photo, data in encoded:
            write_one(photo, data)
    return photos


def _encoded(photo: Photo, quality: int) -> bytes | None:
    """Encode a photo, which loses its pixels and gets size, hash and notes; None where it has failed."""
    began = time.perf_counter()
    image, photo.image = photo.image, None
    if image is None:
        return None
    try:
        data = encode(image, photo.item.format, quality)
    except UserError as error:
        _fail_to_write(photo, error)
        return None
    photo.bytes, photo.sha256 = len(data), hashlib.sha256(data).hexdigest()
    photo.notes = "; ".join((*image.notes, *lost_in(image, photo.item.format)))
    photo.seconds_write = time.perf_counter() - began
    return data


def _fail_to_write(photo: Photo, error: Exception) -> None:
    photo.bytes, photo.sha256, photo.notes = None, None, ""
    if isinstance(error, storage.StoreError):
        photo.unreachable, photo.reason = True, str(error)
    else:
        photo.reason = (
            str(error) if str(error).endswith(REMEDY) else f"its result cannot be written ({error})"
        )


def read_input(item: Item, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return an input's bytes; raises `ImageError` over the size limit, `UserError` where it can't be read."""
    if item.size is None:
        check_bytes(storage.entry(item.source).size, limits)
        return storage.read_bytes(item.source)
    check_bytes(item.size, limits)
    if item.offset is not None:
        return storage.read_range(item.source, item.offset, item.size)
    data = storage.read_bytes(item.source)
    check_bytes(len(data), limits)
    return data
