"""Training photos that are also test photos, or show a test photo's place from the same stand.

A photo is reduced to a small grey picture without its coarse brightness, so that another exposure, size, format or
white balance hardly matters. Two photos are alike where these correlate, at any small shift, also mirrored. It was
0.72 at most for unrelated photos of BSDS500, Sun-Hays 80, LOL and the rain benchmarks (two bare horizons), and at
least 0.93 for photos of one place from one stand in LOL, whose objects and light differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffuir_core import UserError
from diffuir_core.imaging import DEFAULT_LIMITS, ImageError, Pixels, decode

from ..text import counted
from .index import Index, IndexRow, open_index, photo_limits, read_image
from .samples import UnusablePhoto, read_pixels
from .sources import DataConfig, Items, Photo

ALIKE = 0.8
"""Correlation from which two photos show the same."""
SIDE = 32
"""Side of the small pictures, pixels."""
SHIFT = 3
"""Largest shift between two small pictures, pixels: a tenth of the photo."""
COARSE = 6.0
"""Standard deviation of the coarse brightness that is taken away, pixels of the small picture."""

READERS = 4
"""Photos that are read and compared at the same time."""

Vectors = NDArray[np.float32]
"""Small pictures as unit vectors, float32 (n, SIDE * SIDE)."""


class TestPhotos:
    """The photos of test indexes, to be compared with training photos; max_pixels: as in `DataConfig`.

    Raises `UserError` for something that is no index, and for a photo that can't be read.
    """

    __test__ = False  # pytest takes the name for a class of tests

    def __init__(self, indexes: Sequence[str], max_pixels: int = DEFAULT_LIMITS.max_pixels) -> None:
        opened = [open_index(uri) for uri in indexes]
        self.fingerprints = sorted(index.fingerprint for index in opened)
        """Fingerprints of the indexes, by which a training index remembers that it was compared."""
        self._names: list[str] = []
        views = []
        for name, row in _rows(opened):
            views.append(_views(read_clean(row, max_pixels)))
            self._names.append(name)
        if not views:
            raise UserError(
                f"{', '.join(indexes)} list no clean photos to stay apart from: name another index"
            )
        self._views = np.concatenate(views)
        self._views_of_one = len(views[0])

    def same_place(self, pixels: Pixels) -> str | None:
        """Name the test photo that `pixels`, uint8 (H, W, 3), show too; None where there is none."""
        picture = _unit(_small(pixels)[SHIFT:-SHIFT, SHIFT:-SHIFT][None])[0]
        likeness = self._views @ picture
        best = int(likeness.argmax())
        return self._names[best // self._views_of_one] if likeness[best] >= ALIKE else None


def check_apart(config: DataConfig, sources: Mapping[str, Items]) -> None:
    """Raise `UserError`, naming the first few, where training photos show what those of `apart_from` show.

    sources: the items of each task. A line says that they are compared, which may take minutes. Photos that
    can't be read are passed over: the training replaces them. Nothing is read where all photos are those of
    indexes that were compared already.
    """
    if not config.apart_from:
        return
    wanted = {open_index(uri).fingerprint for uri in config.apart_from}
    compared = [wanted <= set(open_index(uri).apart_from) for uri in config.index]
    if all(compared) and not config.clean and not config.pairs:
        return
    photos = dict.fromkeys(source.photos[0] for items in sources.values() for source in items)
    print(
        f"comparing {counted(len(photos), 'photo')} with those of {', '.join(config.apart_from)}", flush=True
    )
    tests = TestPhotos(config.apart_from, config.max_pixels)

    def alike(photo: Photo) -> str | None:
        try:
            other = tests.same_place(read_pixels(*photo))
        except UnusablePhoto:
            return None
        return None if other is None else f"{photo[0]} shows what {other} shows"

    with ThreadPoolExecutor(READERS, thread_name_prefix="apart") as threads:
        found = [line for line in threads.map(alike, photos) if line is not None]
    if found:
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(
            f"training photos are also test photos: {'; '.join(found[:3])}{more}: leave them out, or make the "
            "index with --apart-from"
        )


def _rows(indexes: Iterable[Index]) -> Iterable[tuple[str, IndexRow]]:
    for index in indexes:
        seen = set()
        for row in index.rows():
            place = (row.clean_uri, row.clean_offset)
            if row.clean_uri is not None and place not in seen:
                seen.add(place)
                yield f"{row.dataset}/{row.key}", row


def read_clean(row: IndexRow, max_pixels: int) -> Pixels:
    """Return the clean photo of a row, uint8 (H, W, 3).

    Raises `UserError` where it can't be read, or has more than `max_pixels`.
    """
    uri = str(row.clean_uri)
    try:
        with photo_limits(max_pixels) as limits:
            return decode(read_image(uri, row.clean_offset, row.clean_length, limits), limits).pixels
    except ImageError as error:
        raise UserError(f"{uri}: {error}") from error


def _small(pixels: Pixels) -> NDArray[np.float32]:
    """The photo as a small grey picture without coarse brightness, float32 (SIDE + 2 SHIFT, SIDE + 2 SHIFT)."""
    side = SIDE + 2 * SHIFT
    grey = Image.fromarray(pixels).convert("L").resize((side, side), Image.Resampling.BOX)
    small = np.asarray(grey, dtype=np.float32)
    return small - _smooth(_smooth(small).T).T


def _smooth(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Smooth the columns of a square picture by a Gaussian of COARSE pixels, edges replicated."""
    offsets = np.arange(len(rows))
    weights = np.exp(-0.5 * ((offsets[:, None] - offsets[None, :]) / COARSE) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32) @ rows


def _views(pixels: Pixels) -> Vectors:
    """The photo at every shift, and mirrored: (2 (2 SHIFT + 1)^2, SIDE * SIDE)."""
    small = _small(pixels)
    shifts = range(2 * SHIFT + 1)
    cuts = [
        side[y : y + SIDE, x : x + SIDE] for side in (small, small[:, ::-1]) for y in shifts for x in shifts
    ]
    return _unit(np.stack(cuts))


def _unit(pictures: NDArray[np.float32]) -> Vectors:
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(1, keepdims=True)
    # A nearly even picture has no structure to compare: it stays far from a unit vector.
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), SIDE)
