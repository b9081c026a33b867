"""The sample of one slot of a batch: read, cropped, degraded, flipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from cachetools import LRUCache, cached
from PIL import Image

from diffuir_core import UserError
from diffuir_core.degradations import degrade, good_picture
from diffuir_core.equalise import equalise_histogram
from diffuir_core.imaging import DEFAULT_LIMITS, ImageError, decode

from .. import storage
from ..text import size_text
from .index import EQUALISE, photo_limits, read_image
from .mixture import NO_OTHER_DRAWS, Draws, Slot
from .sources import Source

VARIED_TONES = frozenset(("rain", "snow", "blur"))
"""Tasks for which some clean photos are made flatter or darker: a model trained only on vivid photos mistakes any
flat one for haze."""

VARIED_SHARE = 0.25
"""Share of the photos of VARIED_TONES whose tones are varied."""

MOST_UNUSABLE = 1000
"""Unusable items, drawn for one sample, after which a run gives up: then hardly any can be usable."""

CACHE_BYTES = 512 * 2**20
"""Size of a loading process's cache of decoded photos, bytes: a small collection is decoded only once."""


class UnusablePhoto(UserError):  # noqa: N818 - it names what is wrong
    """A photo that can't be trained on, now or later: gone, damaged, unreadable, or not what the index says."""


@dataclass(frozen=True)
class Sample:
    """A training sample. degraded, clean: uint8 (crop, crop, 3). replaced: a line for each unusable item."""

    degraded: np.ndarray
    clean: np.ndarray
    replaced: tuple[str, ...] = ()


@cached(LRUCache(CACHE_BYTES, getsizeof=lambda pixels: pixels.nbytes), lock=Lock())
def read_pixels(
    uri: str,
    offset: int | None = None,
    length: int | None = None,
    max_pixels: int = DEFAULT_LIMITS.max_pixels,
) -> np.ndarray:
    """Return the uint8 (H, W, 3) RGB pixels of an image file, or of a part of a packed file.

    Raises `UnusablePhoto` where it can't be read or decoded, or has more than `max_pixels`; `UserError` where the
    store does not answer.
    """
    try:
        with photo_limits(max_pixels) as limits:
            return decode(read_image(uri, offset, length, limits), limits).pixels
    except ImageError as error:
        place = uri if offset is None else f"{uri} from byte {offset:,} on"
        raise UnusablePhoto(f"{place}: {error}") from error
    except (storage.Busy, storage.StoreError):
        raise
    except UserError as error:
        raise UnusablePhoto(str(error)) from error


Read = Callable[[str, int | None, int | None, int], np.ndarray]
"""`read_pixels`, or a function that returns pixels that it has read before."""


def load_or_replace(
    slot: Slot,
    items: Sequence[Source],
    crop: int,
    read: Read = read_pixels,
    *,
    whole: float = 0.0,
    draws: Draws = NO_OTHER_DRAWS,
) -> Sample:
    """Load the slot's sample as `load_slot` does; an unusable item is replaced by another one, drawn by the slot.

    Which item replaces an unusable one thus follows from the slot and the files alone; neighbours are often broken
    together. Raises `UserError` where none of the items can be used, or none of the first MOST_UNUSABLE, and where
    the store does not answer, which is no reason to take another item.
    """
    replaced: list[str] = []
    for place in _candidates(slot, len(items)):
        source = items[place]
        try:
            degraded, clean = load_slot(slot, source, crop, read, whole=whole, draws=draws)
            return Sample(degraded, clean, tuple(replaced))
        except UnusablePhoto as error:
            # Photos of a packed file share its name, so the key says which one it was.
            named = f"{source.key}: " if source.clean_offset is not None else ""
            replaced.append(f"{named}{error}")
    raise UserError(
        f"the run tried {len(replaced)} items of {slot.task} and none can be used, the last because {replaced[-1]}"
    )


def _candidates(slot: Slot, count: int) -> Iterator[int]:
    """The places of the slot's item and of those that may replace it: each at most once, MOST_UNUSABLE at most."""
    yield slot.index
    others = np.random.default_rng((slot.seed, 2)).permutation(count)
    yield from (int(place) for place in others[:MOST_UNUSABLE] if place != slot.index)


def load_slot(
    slot: Slot,
    source: Source,
    crop: int,
    read: Read = read_pixels,
    *,
    whole: float = 0.0,
    draws: Draws = NO_OTHER_DRAWS,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (degraded, clean), each uint8 (crop, crop, 3): a pure function of the slot and the files.

    whole: probability that the photo is made smaller until its shorter side is `crop`. draws: shares of other
    draws where the photo has no degraded counterpart. A photo with a side under `crop` is padded by reflection.
    Raises `UnusablePhoto` as `read_whole` does.
    """
    rng = np.random.default_rng(slot.seed)
    photos = read_whole(source, read)
    # Another generator, so that crops and degradations stay what they are without these shares.
    other = np.random.default_rng((slot.seed, 1))
    if other.random() < whole:
        photos = [_smaller(photo, crop) for photo in photos]
    clean, *twin = photos
    top, left = (int(rng.integers(max(side - crop, 0) + 1)) for side in clean.shape[:2])
    window = (slice(top, top + crop), slice(left, left + crop))
    clean = _pad(clean[window], crop)
    if twin:
        degraded = _pad(twin[0][window], crop)
    elif other.random() < draws.good:
        degraded = clean = good_picture(slot.seed, crop, crop) if other.random() < 0.5 else clean
    else:
        if slot.task in VARIED_TONES and rng.random() < VARIED_SHARE:
            clean = vary_tones(clean, rng)
        seed = int(rng.integers(2**63))
        degraded = degrade(slot.task, clean, seed, second=draws.second, traces=draws.traces)
    # Flipped after the degradation, which depends on up and down: haze is thicker towards the horizon.
    for axis in (0, 1):
        if rng.random() < 0.5:
            clean, degraded = np.flip(clean, axis), np.flip(degraded, axis)
    return np.ascontiguousarray(degraded), np.ascontiguousarray(clean)


def _smaller(photo: np.ndarray, side: int) -> np.ndarray:
    """Reduce uint8 (H, W, 3) until its shorter side is `side` pixels; a smaller photo stays as it is."""
    height, width = photo.shape[:2]
    scale = side / min(height, width)
    if scale >= 1:
        return photo
    size = max(side, round(width * scale)), max(side, round(height * scale))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0))


def read_whole(source: Source, read: Read = read_pixels) -> list[np.ndarray]:
    """Return the clean photo and, for a pair, the degraded one as the network sees it: uint8 (H, W, 3).

    Raises `UnusablePhoto` for a file that is gone or can't be read or decoded, and for another size than that of
    its counterpart or the one in the index.
    """
    clean, *twin = (read(*photo) for photo in source.photos)
    _check_size(source.clean_uri, clean, source)
    if twin and twin[0].shape != clean.shape:
        raise UnusablePhoto(
            f"{source.degraded_uri} is {_size(twin[0])} pixels, its counterpart {source.clean_uri} "
            f"{_size(clean)}: a pair must be of one size"
        )
    # The whole photo's histogram, as in a restore.
    return [clean, *map(equalise_histogram, twin)] if source.preprocessing == EQUALISE else [clean, *twin]


def _check_size(uri: str, pixels: np.ndarray, source: Source) -> None:
    if source.width and pixels.shape[:2] != (source.height, source.width):
        raise UnusablePhoto(
            f"{uri} is {_size(pixels)} pixels, the index says {size_text(source.width, source.height)}: "
            "make the index again"
        )


def _size(pixels: np.ndarray) -> str:
    return size_text(pixels.shape[1], pixels.shape[0])


def vary_tones(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 (H, W, 3) with a random gamma and less contrast, at least half of it, about a random grey."""
    levels = np.arange(256) / 255
    contrast, grey, gamma = rng.uniform(0.5, 1), rng.uniform(0.2, 0.8), 2 ** rng.uniform(-0.5, 0.5)
    curve = grey + contrast * (levels**gamma - grey)
    return np.rint(curve * 255).astype(np.uint8)[clean]


def _pad(window: np.ndarray, crop: int) -> np.ndarray:
    missing = [(0, crop - side) for side in window.shape[:2]]
    return (
        np.pad(window, (*missing, (0, 0)), mode="symmetric") if any(after for _, after in missing) else window
    )
