"""`diffuir restore --plan`: time and cost of a collection, estimated from a sample restored on this machine.

The other nodes are assumed to be like this machine. `cluster/CAPACITY.md` says where the constants come from.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import islice

from diffuir_core.errors import UserError
from diffuir_core.imaging import encode

from ..inference import RestoresPixels, fetch_model
from ..text import counted
from .inputs import Item
from .listing import items_at
from .pipeline import BATCH_SECONDS, MAX_BATCH_PHOTOS
from .settings import RestoreOptions
from .stages import Photo, read, restore

SAMPLE = 12
"""Photos of the collection that are restored as a sample."""
SAMPLED_FROM = 2000
"""Inputs at the start of the listing that the sample is drawn from, at equal distances."""
LISTING_SECONDS = 20.0
"""Longest time spent on listing, seconds; after it the number of inputs is given as "at least"."""

DRIVER_SECONDS_PER_BATCH = 8.5e-3
"""Time of the driver for each batch, seconds; measured by `tests/benchmarks/collection.py`."""
DRIVER_SECONDS_PER_PHOTO = 0.08e-3
"""Time of the driver for each photo, seconds; measured by `tests/benchmarks/collection.py`."""
PUTS_PER_SECOND = 3500
"""PUT requests a second that AWS S3 takes for a prefix, by its documentation; other stores have other limits."""
LEDGER_BYTES_PER_PHOTO = 90
"""Size of a row of the ledger, bytes."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimate for a collection on `nodes` nodes like this machine. megapixels and seconds are means per photo."""

    photos: int
    is_all: bool
    """Whether the listing was complete, so that there are no more photos."""
    source_bytes: int
    """Size of the photos whose size the listing says, bytes."""
    sampled: int
    failed: int
    """Photos of the sample that failed."""
    megapixels: float
    seconds_read: float
    seconds_restore: float
    seconds_write: float
    nodes: int
    price: float

    def limits(self) -> dict[str, float]:
        """Return each possible bottleneck with the photos a second that it allows."""
        cores = os.cpu_count() or 1
        on_cores = (self.seconds_read + self.seconds_write) / cores
        work = self.seconds_read + self.seconds_restore + self.seconds_write
        batch = min(max(BATCH_SECONDS / work, 1), MAX_BATCH_PHOTOS)
        return {
            "the model": self.nodes / (self.seconds_restore + on_cores),
            "the driver": 1 / (DRIVER_SECONDS_PER_PHOTO + DRIVER_SECONDS_PER_BATCH / batch),
            "the store, at 3,500 PUTs a second for a prefix": PUTS_PER_SECOND,
        }

    @property
    def rate(self) -> float:
        """Throughput in photos a second."""
        return min(self.limits().values())

    @property
    def bottleneck(self) -> str:
        """Name of the part that limits the throughput."""
        limits = self.limits()
        return min(limits, key=lambda name: limits[name])

    def lines(self) -> list[str]:
        """Return the estimate as lines for a person."""
        hours = self.photos / self.rate / 3600
        least = "" if self.is_all else "at least "
        price = f"{self.price * self.nodes * hours:,.2f} at {self.price:g} an hour and node"
        cost = f", {least}{price}" if self.price else ""
        return [
            f"{least}{counted(self.photos, 'photo')}, {self.source_bytes / 1e9:,.2f} GB",
            f"a sample of {self.sampled} was restored here, {self.failed} of them failed: {self.megapixels:.2f} "
            f"megapixels, {self.seconds_read:.3f} s to read, {self.seconds_restore:.3f} s to restore, "
            f"{self.seconds_write:.3f} s to encode, on average",
            f"{counted(self.nodes, 'node')} like this machine: {self.rate:,.2f} images/s, "
            f"{least}{_duration(hours)}{cost}",
            f"the bottleneck is {self.bottleneck}",
            f"the ledger takes {least}{self.photos * LEDGER_BYTES_PER_PHOTO / 1e6:,.1f} MB; nothing was written",
        ]


def estimate(source: str, target: str, options: RestoreOptions, nodes: int, price: float) -> Estimate:
    """List the collection, restore a sample without writing it, and extrapolate.

    nodes: number of nodes of the cluster. price: price of a node for an hour, in any currency. Raises `UserError`
    as `restore` does, and where no photo of the sample can be restored.
    """
    if nodes < 1:
        raise UserError(f"--nodes is {nodes}: give at least 1")
    weights = fetch_model(options.restorer, options.weights)
    options.check_device()
    listing = items_at(source, target, options)
    deadline = time.monotonic() + LISTING_SECONDS
    first = list(islice(listing, SAMPLED_FROM))
    count, size, is_all = len(first), sum(item.size or 0 for item in first), True
    for item in listing:
        count, size = count + 1, size + (item.size or 0)
        if time.monotonic() > deadline:
            is_all = False
            break
    with weights.as_file() as file:
        restorer = options.make_restorer(file)
    chosen = first[:: max(1, len(first) // SAMPLE)][:SAMPLE]
    # The first restore warms everything up, which is not part of a photo's time.
    restore(read(chosen[:1], options.exif, options.truncated, options.max_pixels), restorer)
    sample = [_restore_timed(item, options, restorer) for item in chosen]
    good = [photo for photo in sample if photo.reason is None]
    if not good:
        raise UserError(
            f"no photo of a sample of {len(sample)} can be restored ({sample[0].reason}): check IN"
        )

    def mean(name: str) -> float:
        return sum(getattr(photo, name) for photo in good) / len(good)

    return Estimate(
        photos=count,
        is_all=is_all,
        source_bytes=size,
        sampled=len(sample),
        failed=len(sample) - len(good),
        megapixels=sum((p.width or 0) * (p.height or 0) for p in good) / len(good) / 1e6,
        seconds_read=mean("seconds_read"),
        seconds_restore=mean("seconds_restore"),
        seconds_write=mean("seconds_write"),
        nodes=nodes,
        price=price,
    )


def _restore_timed(item: Item, options: RestoreOptions, restorer: RestoresPixels) -> Photo:
    """Restore and encode one photo without writing it; returns it with its times."""
    (photo,) = restore(read([item], options.exif, options.truncated, options.max_pixels), restorer)
    if photo.image is not None:
        began = time.perf_counter()
        encode(photo.image, item.format, options.quality)
        photo.seconds_write = time.perf_counter() - began
    return photo


def _duration(hours: float) -> str:
    """Return a duration as text for a person."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:,.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"
