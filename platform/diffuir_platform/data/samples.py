"""One slot of a batch: read, crop, degrade, flip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from cachetools import LRUCache, cached

from diffuir_core import UserError
from diffuir_core.degradations import degrade
from diffuir_core.equalise import equalised
from diffuir_core.imaging import ImageError, decode

from .. import storage
from .index import EQUALISE, read_image
from .mixture import Slot
from .sources import Source

VARIED_TONES = frozenset(("rain", "snow", "blur"))
"""Tasks whose clean photos may be flat or dark: a model that met only vivid ones takes all others for hazy."""

VARIED_SHARE = 0.25
"""Of these tasks' photos."""

UNUSABLE_IN_A_ROW = 32
"""Items that are passed over before a run gives up: so many are no accident."""

CACHE_BYTES = 512 * 2**20
"""Decoded photos that a loading process keeps: a small collection is decoded once, not once an epoch."""


class UnusablePhoto(UserError):  # noqa: N818 - it names what is wrong
    """A photo that cannot be trained on, now or later: it is gone, damaged, kept from us, or not what the index
    says."""


@dataclass(frozen=True)
class Sample:
    """degraded, clean: uint8 (crop, crop, 3). replaced: a line for each item that had to be passed over."""

    degraded: np.ndarray
    clean: np.ndarray
    replaced: tuple[str, ...] = ()


@cached(LRUCache(CACHE_BYTES, getsizeof=lambda pixels: pixels.nbytes), lock=Lock())
def read_pixels(uri: str, offset: int | None = None, length: int | None = None) -> np.ndarray:
    """The uint8 (H, W, 3) RGB pixels of an image file or of a part of one.

    Raises `UnusablePhoto` where it can't be read or decoded, `UserError` where the store does not answer.
    """
    try:
        return decode(read_image(uri, offset, length)).pixels
    except ImageError as error:
        place = uri if offset is None else f"{uri} from byte {offset:,} on"
        raise UnusablePhoto(f"{place}: {error}") from error
    except (storage.Busy, storage.StoreError):
        raise
    except UserError as error:
        raise UnusablePhoto(str(error)) from error


Read = Callable[[str, int | None, int | None], np.ndarray]
"""What `read_pixels` does, or gives what it has made before."""


def load_or_replace(slot: Slot, items: Sequence[Source], crop: int, read: Read = read_pixels) -> Sample:
    """What the slot holds; where its item is unusable, what it would hold with the next item, and so on.

    So which items take the places of unusable ones follows from the slot and the files alone. A store that does
    not answer is no reason to take another item: that raises, as `UserError`. So do UNUSABLE_IN_A_ROW items.
    """
    replaced: list[str] = []
    while len(replaced) < UNUSABLE_IN_A_ROW:
        source = items[(slot.index + len(replaced)) % len(items)]
        try:
            degraded, clean = load_slot(slot, source, crop, read)
            return Sample(degraded, clean, tuple(replaced))
        except UnusablePhoto as error:
            # All photos of a packed file lie in a file of one name, which is not theirs.
            named = f"{source.key}: " if source.clean_offset is not None else ""
            replaced.append(f"{named}{error}")
    raise UserError(
        f"{len(replaced)} items of {slot.task} in a row can't be used, the last because {replaced[-1]}"
    )


def load_slot(
    slot: Slot, source: Source, crop: int, read: Read = read_pixels
) -> tuple[np.ndarray, np.ndarray]:
    """(degraded, clean), each uint8 (crop, crop, 3): a pure function of the slot and the files.

    A photo with a side under `crop` is continued by reflection. Raises `UnusablePhoto` as `read_whole` does.
    """
    rng = np.random.default_rng(slot.seed)
    clean, *twin = read_whole(source, read)
    top, left = (int(rng.integers(max(side - crop, 0) + 1)) for side in clean.shape[:2])
    window = (slice(top, top + crop), slice(left, left + crop))
    clean = _fill(clean[window], crop)
    if twin:
        degraded = _fill(twin[0][window], crop)
    else:
        if slot.task in VARIED_TONES and rng.random() < VARIED_SHARE:
            clean = vary_tones(clean, rng)
        degraded = degrade(slot.task, clean, int(rng.integers(2**63)))
    # Flipped after the degradation, which knows up from down: haze lies deeper towards the horizon.
    for axis in (0, 1):
        if rng.random() < 0.5:
            clean, degraded = np.flip(clean, axis), np.flip(degraded, axis)
    return np.ascontiguousarray(degraded), np.ascontiguousarray(clean)


def read_whole(source: Source, read: Read = read_pixels) -> list[np.ndarray]:
    """The clean photo and, of a pair, the degraded one as the network is to see it: uint8 (H, W, 3).

    Raises `UnusablePhoto` for a file that is gone, can't be read or decoded, or is of another size than its twin
    or the index says.
    """
    clean, *twin = (read(*photo) for photo in source.photos)
    _check_size(source.clean_uri, clean, source)
    if twin and twin[0].shape != clean.shape:
        raise UnusablePhoto(
            f"{source.degraded_uri} is {twin[0].shape[1]}x{twin[0].shape[0]}, its twin "
            f"{source.clean_uri} {clean.shape[1]}x{clean.shape[0]}: a pair must be of one size"
        )
    # The whole photo's histogram, as in a restore.
    return [clean, *map(equalised, twin)] if source.preprocessing == EQUALISE else [clean, *twin]


def _check_size(uri: str, pixels: np.ndarray, source: Source) -> None:
    if source.width and pixels.shape[:2] != (source.height, source.width):
        raise UnusablePhoto(
            f"{uri} is {pixels.shape[1]}x{pixels.shape[0]}, the index says {source.width}x{source.height}: "
            "make the index again"
        )


def vary_tones(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3) with its contrast taken down, to half at most, about a random grey, and another gamma."""
    levels = np.arange(256) / 255
    contrast, grey, gamma = rng.uniform(0.5, 1), rng.uniform(0.2, 0.8), 2 ** rng.uniform(-0.5, 0.5)
    curve = grey + contrast * (levels**gamma - grey)
    return np.rint(curve * 255).astype(np.uint8)[clean]


def _fill(window: np.ndarray, crop: int) -> np.ndarray:
    missing = [(0, crop - side) for side in window.shape[:2]]
    return (
        np.pad(window, (*missing, (0, 0)), mode="symmetric") if any(after for _, after in missing) else window
    )
