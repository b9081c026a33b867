"""The stream: Ray Data makes the batches up on CPU workers, in order, and hands a trainer its share of each.

One row of a data set is one global batch, and what it holds follows from its number; so the stream starts at any
batch without reading those before it, and quotas are exact however rows are scheduled.
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

from ..runtime.pacing import pace
from .mixture import Mixture, Slot
from .samples import load_or_replace, read_pixels
from .sources import Source

Sources = Any
"""A reference (ray.ObjectRef) to every task's items, Mapping[str, Sequence[Source]]."""

FETCHES = 8
"""Photos that a loading task waits for at once."""

BLOCK_BATCHES, BLOCK_BYTES = 16, 32 * 2**20
"""What a loading task makes: batches, fewer where they are large, but at least one."""

AHEAD_BLOCKS = 4
"""How far loading may run ahead of a trainer, for each of its tasks: on a small machine they share the cores. Ray
Data begins no task unless twice what one makes is left, so that with less not all of them would work, or none."""

SPAN = 4_000
"""Batches of a data set: Ray keeps a record of all its blocks, and a training has a million batches."""

LEAD = 256
"""How many batches before the end of a span the next one is begun."""


@dataclass(frozen=True)
class Share:
    """What one worker gets of global batch number `batch`: n of its images.

    degraded, clean: uint8 (n, crop, crop, 3). slots: what each is. total: images in the whole batch. replaced: a
    line for each item that could not be used.
    """

    batch: int
    degraded: np.ndarray
    clean: np.ndarray
    slots: list[Slot]
    total: int
    replaced: list[str]


class LoadShare:
    """Row {"item": batch number} -> the pixels of this worker's slots of that batch; runs on the data workers."""

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
        return self.mixture.slots(batch)[self.rank :: self.world_size]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        batch = int(row["item"])
        crop = self.mixture.stage(batch).crop
        sources: Mapping[str, Sequence[Source]] = ray.get(self.sources)

        # Threads read side by side. What is made of the photos is made in one: threads that take turns with the
        # interpreter lock take a third longer.
        with ThreadPoolExecutor(FETCHES) as threads:
            slots = self.slots(batch)
            wanted = dict.fromkeys(photo for s in slots for photo in sources[s.task][s.index].photos)
            photos = {photo: threads.submit(read_pixels, *photo) for photo in wanted}

            def read(*photo: Any) -> np.ndarray:
                return photos[photo].result() if photo in photos else read_pixels(*photo)

            samples = [load_or_replace(slot, sources[slot.task], crop, read) for slot in slots]
        return {
            "batch": batch,
            "degraded": np.stack([sample.degraded for sample in samples]),
            "clean": np.stack([sample.clean for sample in samples]),
            "replaced": "\n".join(line for sample in samples for line in sample.replaced),
        }


def shares_of_batches(
    mixture: Mixture,
    sources: Sources,
    start: int,
    rank: int,
    world_size: int,
    data_tasks: int = 2,
    prefetch: int = 2,
    cpus_of_a_task: float = 1,
) -> Iterator[Share]:
    """This worker's share of every global batch from number `start` on, in order, loaded ahead of their use.

    sources: every task's items, in Ray's object store, so that a million of them are not sent with every task.
    data_tasks: how many tasks load for this worker at once. prefetch: batches fetched to the worker's own machine.
    cpus_of_a_task: logical CPUs that each asks for; none where the caller's own are theirs too.
    """
    load = LoadShare(mixture, sources, rank, world_size)
    largest = max(2 * 3 * stage.crop**2 * math.ceil(stage.batch / world_size) for stage in mixture.stages)
    per_block = max(1, min(BLOCK_BATCHES, BLOCK_BYTES // largest))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    pace(context)
    options = context.execution_options
    options.preserve_order = True
    ahead = data_tasks * AHEAD_BLOCKS * per_block * largest
    options.resource_limits = options.resource_limits.copy(object_store_memory=ahead)
    tasks = ray.data.TaskPoolStrategy(size=data_tasks)

    def begin(span: range) -> Iterator[dict[str, Any]]:
        """The rows of these batches; returns once the first of them is there."""
        numbers = ray.data.from_items(list(span), override_num_blocks=math.ceil(len(span) / per_block))
        shares = numbers.map(load, compute=tasks, num_cpus=cpus_of_a_task)
        rows = iter(shares.iter_batches(batch_size=1, prefetch_batches=prefetch))
        return chain([next(rows)], rows)

    spans = [range(i, min(i + SPAN, len(mixture))) for i in range(start, len(mixture), SPAN)]
    with ThreadPoolExecutor(1) as beginner:
        begun = [beginner.submit(begin, span) for span in spans[:1]]
        for span, following in zip_longest(spans, spans[1:]):
            for batch, row in zip(span, begun.pop().result(), strict=True):
                if following and batch == max(span.start, span.stop - LEAD):
                    begun.append(beginner.submit(begin, following))
                total = mixture.stage(batch).batch
                replaced = str(row["replaced"][0]).splitlines()
                yield Share(batch, row["degraded"][0], row["clean"][0], load.slots(batch), total, replaced)
