"""The stream of training batches: Ray Data loads them on CPU workers, in order, a local batch for each trainer.

One row of a Ray data set is one global batch, and its contents follow from its number; so the stream can start at
any batch without reading those before it, and quotas are exact however rows are scheduled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import ray

from ..runtime.pacing import pause_between_rounds
from .mixture import Mixture, Slot
from .samples import load_or_replace, read_pixels
from .sources import Source

Sources = Any
"""A ray.ObjectRef of every task's items, Mapping[str, Sequence[Source]]."""

FETCHES = 8
"""Photos that a loading task reads at the same time."""

BLOCK_BATCHES, BLOCK_BYTES = 16, 32 * 2**20
"""Most batches, and most bytes, that a loading task makes; at least one batch."""

AHEAD_BLOCKS = 4
"""Blocks that each loading task may be ahead of its trainer; few, as on a small machine they share the cores. Ray
Data starts a task only where there is room for twice its output, so with fewer blocks some tasks, or all, would
stand still."""

SPAN = 4_000
"""Batches in one Ray data set: Ray keeps a record of each block, and a training has a million batches."""

LEAD = 256
"""Batches before the end of a span at which the next one is started."""


@dataclass(frozen=True)
class LocalBatch:
    """One worker's n images of global batch number `batch`.

    degraded, clean: uint8 (n, crop, crop, 3). slots: the slot of each image. total: images in the global batch.
    replaced: a line for each item that could not be used.
    """

    batch: int
    degraded: np.ndarray
    clean: np.ndarray
    slots: list[Slot]
    total: int
    replaced: list[str]


class LoadLocalBatch:
    """Maps a row {"item": batch number} to the pixels of this worker's slots of it, on the data workers."""

    def __init__(
        self,
        mixture: Mixture,
        sources: Sources,
        rank: int,
        world_size: int,
    ) -> None:
        self.mixture = mixture
        self.sources = sources
        self.rank = rank
        self.world_size = world_size

    def slots(self, batch: int) -> list[Slot]:
        """Return this worker's slots of a global batch."""
        return self.mixture.slots(batch)[self.rank :: self.world_size]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        batch = int(row["item"])
        stage, draws = self.mixture.stage(batch), self.mixture.draws
        sources: Mapping[str, Sequence[Source]] = ray.get(self.sources)

        # Files are read in threads, but processed in one: sharing the interpreter lock takes a third longer.
        with ThreadPoolExecutor(FETCHES) as threads:
            slots = self.slots(batch)
            wanted = dict.fromkeys(photo for s in slots for photo in sources[s.task][s.index].photos)
            photos = {photo: threads.submit(read_pixels, *photo) for photo in wanted}

            def read(*photo: Any) -> np.ndarray:
                return photos[photo].result() if photo in photos else read_pixels(*photo)

            samples = [
                load_or_replace(slot, sources[slot.task], stage.crop, read, whole=stage.whole, draws=draws)
                for slot in slots
            ]
        return {
            "batch": batch,
            "degraded": np.stack([sample.degraded for sample in samples]),
            "clean": np.stack([sample.clean for sample in samples]),
            "replaced": "\n".join(line for sample in samples for line in sample.replaced),
        }


def local_batches(
    mixture: Mixture,
    sources: Sources,
    start: int,
    rank: int,
    world_size: int,
    data_tasks: int = 2,
    prefetch: int = 2,
    cpus_of_a_task: float = 1,
) -> Iterator[LocalBatch]:
    """Yield this worker's part of every global batch from number `start` on, in order, loaded ahead of its use.

    rank, world_size: this worker's number and the number of workers. sources: every task's items, in Ray's object
    store, so that a million of them are not sent with every task. data_tasks: tasks that load for this worker at
    the same time. prefetch: batches fetched ahead to the worker's own machine. cpus_of_a_task: logical CPUs that
    each task asks for; 0 where they use the caller's own.
    """
    load = LoadLocalBatch(mixture, sources, rank, world_size)
    largest = max(2 * 3 * stage.crop**2 * math.ceil(stage.batch / world_size) for stage in mixture.stages)
    per_block = max(1, min(BLOCK_BATCHES, BLOCK_BYTES // largest))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    pause_between_rounds(context)
    options = context.execution_options
    options.preserve_order = True
    ahead = data_tasks * AHEAD_BLOCKS * per_block * largest
    options.resource_limits = options.resource_limits.copy(object_store_memory=ahead)
    tasks = ray.data.TaskPoolStrategy(size=data_tasks)

    def start_span(span: range) -> Iterator[dict[str, Any]]:
        """Return the rows of these batches, once the first one is loaded."""
        numbers = ray.data.from_items(list(span), override_num_blocks=math.ceil(len(span) / per_block))
        loaded = numbers.map(load, compute=tasks, num_cpus=cpus_of_a_task)
        rows = iter(loaded.iter_batches(batch_size=1, prefetch_batches=prefetch))
        return chain([next(rows)], rows)

    spans = [range(i, min(i + SPAN, len(mixture))) for i in range(start, len(mixture), SPAN)]
    with ThreadPoolExecutor(1) as starter:
        started = [starter.submit(start_span, span) for span in spans[:1]]
        for span, following in zip_longest(spans, spans[1:]):
            for batch, row in zip(span, started.pop().result(), strict=True):
                if following and batch == max(span.start, span.stop - LEAD):
                    started.append(starter.submit(start_span, following))
                total = mixture.stage(batch).batch
                replaced = str(row["replaced"][0]).splitlines()
                yield LocalBatch(
                    batch, row["degraded"][0], row["clean"][0], load.slots(batch), total, replaced
                )
