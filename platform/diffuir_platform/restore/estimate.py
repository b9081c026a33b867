"""`diffuir restore --plan`: what a collection takes, from a sample of it restored here.

The other nodes are taken to be like this machine. `cluster/CAPACITY.md` says where the constants come from.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import islice

from diffuir_core.errors import UserError
from diffuir_core.imaging import encode

from ..inference import RestoresPixels, fetch_weights
from ..text import counted
from .inputs import Item
from .pipeline import MOST_PHOTOS, SECONDS_OF_A_PARCEL
from .run import check_device, items_at
from .settings import RestoreOptions
from .stages import Photo, read, restore

SAMPLE = 12
"""Photos that are restored."""
SAMPLED_FROM = 2000
"""The first of the listing, evenly."""
SECONDS_OF_LISTING = 20.0
"""After which the number of inputs is "at least"."""

DRIVER_SECONDS_A_PARCEL = 2.5e-3
DRIVER_SECONDS_A_PHOTO = 0.08e-3
"""That the driver is busy with; `tests/benchmarks/collection.py` measured both."""
PUTS_A_SECOND_OF_A_PREFIX = 3500
"""Of AWS S3, by its documentation; other stores have limits of their own."""
LEDGER_BYTES_A_PHOTO = 90


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of a collection on `nodes` nodes like this machine. Means are of one photo."""

    photos: int
    is_all: bool
    """Whether the listing came to its end: there are no more photos."""
    source_bytes: int
    """Of those whose size the listing says."""
    sampled: int
    failed: int
    """Of the sampled ones."""
    megapixels: float
    seconds_read: float
    seconds_restore: float
    seconds_write: float
    nodes: int
    price: float

    def limits(self) -> dict[str, float]:
        """Photos a second that each part lets through."""
        cores = os.cpu_count() or 1
        on_cores = (self.seconds_read + self.seconds_write) / cores
        work = self.seconds_read + self.seconds_restore + self.seconds_write
        parcel = min(max(SECONDS_OF_A_PARCEL / work, 1), MOST_PHOTOS)
        return {
            "the model": self.nodes / (self.seconds_restore + on_cores),
            "the driver": 1 / (DRIVER_SECONDS_A_PHOTO + DRIVER_SECONDS_A_PARCEL / parcel),
            "the store, at 3,500 PUTs a second for a prefix": PUTS_A_SECOND_OF_A_PREFIX,
        }

    @property
    def rate(self) -> float:
        """Photos a second."""
        return min(self.limits().values())

    @property
    def bottleneck(self) -> str:
        """The part that lets the fewest photos through."""
        limits = self.limits()
        return min(limits, key=lambda name: limits[name])

    def lines(self) -> list[str]:
        """For a person, a line each."""
        hours = self.photos / self.rate / 3600
        least = "" if self.is_all else "at least "
        price = f"{self.price * self.nodes * hours:,.2f} at {self.price:g} an hour and node"
        cost = f", {least}{price}" if self.price else ""
        return [
            f"{least}{counted(self.photos, 'photo')}, {self.source_bytes / 1e9:,.2f} GB",
            f"a sample of {self.sampled} was restored here, {self.failed} of them failed: {self.megapixels:.2f} "
            f"megapixels, {self.seconds_read:.3f} s to read, {self.seconds_restore:.3f} s to restore, "
            f"{self.seconds_write:.3f} s to encode, in the mean",
            f"{counted(self.nodes, 'node')} like this machine: {self.rate:,.2f} images/s, "
            f"{least}{_time(hours)}{cost}",
            f"the bottleneck is {self.bottleneck}",
            f"the ledger takes {least}{self.photos * LEDGER_BYTES_A_PHOTO / 1e6:,.1f} MB; nothing was written",
        ]


def estimate(source: str, target: str, options: RestoreOptions, nodes: int, price: float) -> Estimate:
    """List, restore a sample without writing it, and work out the rest.

    nodes: of the cluster. price: of a node for an hour, in any currency. Raises `UserError` as `restore` does, and
    where nothing of the sample can be restored.
    """
    if nodes < 1:
        raise UserError(f"--nodes is {nodes}: it must be at least 1")
    weights = fetch_weights(options.weights)
    check_device(options)
    listing = items_at(source, target, options)
    deadline = time.monotonic() + SECONDS_OF_LISTING
    first = list(islice(listing, SAMPLED_FROM))
    count, size, is_all = len(first), sum(item.size or 0 for item in first), True
    for item in listing:
        count, size = count + 1, size + (item.size or 0)
        if time.monotonic() > deadline:
            is_all = False
            break
    with weights.as_file() as file:
        restorer = options.restorer(file)
    chosen = first[:: max(1, len(first) // SAMPLE)][:SAMPLE]
    # The first one sets everything up, which is no part of a photo's time.
    restore(read(chosen[:1], options.exif, options.truncated), restorer)
    tried = [_tried(item, options, restorer) for item in chosen]
    good = [photo for photo in tried if photo.reason is None]
    if not good:
        raise UserError(f"nothing of a sample of {len(tried)} can be restored ({tried[0].reason})")

    def mean(name: str) -> float:
        return sum(getattr(photo, name) for photo in good) / len(good)

    return Estimate(
        photos=count,
        is_all=is_all,
        source_bytes=size,
        sampled=len(tried),
        failed=len(tried) - len(good),
        megapixels=sum((p.width or 0) * (p.height or 0) for p in good) / len(good) / 1e6,
        seconds_read=mean("seconds_read"),
        seconds_restore=mean("seconds_restore"),
        seconds_write=mean("seconds_write"),
        nodes=nodes,
        price=price,
    )


def _tried(item: Item, options: RestoreOptions, restorer: RestoresPixels) -> Photo:
    """The photo with its times; encoded, but not written."""
    (photo,) = restore(read([item], options.exif, options.truncated), restorer)
    if photo.image is not None:
        began = time.perf_counter()
        encode(photo.image, item.format, options.quality)
        photo.seconds_write = time.perf_counter() - began
    return photo


def _time(hours: float) -> str:
    """A duration for a person."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:,.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"
