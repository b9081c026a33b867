"""Photos that wait for one model, given to it together where it takes several of a size at once.

`ray.serve.batch` makes batches of whatever came one after the other. A model runs photos of one padded size and
one set of options together, and others would only wait for them; and a photo whose client has gone leaves this
queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class BatchedResult(Generic[Result]):
    """The result of one item.

    queued: seconds in the queue. took: the item's share of its batch's seconds. batch: items in the batch.
    """

    result: Result
    queued: float
    took: float
    batch: int


@dataclass(eq=False)
class _QueuedItem(Generic[Item, Result]):
    kind: Hashable
    item: Item
    most: int
    since: float
    future: asyncio.Future[BatchedResult[Result]]


class Batcher(Generic[Item, Result]):
    """Runs `run` on batches of items of one kind, one batch at a time, with the longest waiting item first.

    run: gives a result for each item, in order. wait: seconds that an item waits for others of its kind, unless
    the batch before had only one item and none came meanwhile, when there is nothing to wait for.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], wait: float) -> None:
        self._run = run
        self._wait = wait
        self._queue: list[_QueuedItem[Item, Result]] = []
        self._arrived = asyncio.Event()
        self._expects_others = True
        self._loop: asyncio.Task[None] | None = None

    async def __call__(self, kind: Hashable, item: Item, most: int) -> BatchedResult[Result]:
        """The result of `item`, which may share a batch with up to `most` - 1 others of its kind."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._run_batches())
        queued = _QueuedItem[Item, Result](
            kind, item, most, time.perf_counter(), asyncio.get_running_loop().create_future()
        )
        self._queue.append(queued)
        self._arrived.set()
        try:
            return await queued.future
        finally:
            if queued in self._queue:  # cancelled before its turn
                self._queue.remove(queued)

    async def _run_batches(self) -> None:
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            await self._wait_for_others()
            batch = self._next_batch()
            if batch:
                await self._run_batch(batch)
                self._expects_others = len(batch) > 1 or bool(self._queue)

    async def _wait_for_others(self) -> None:
        """Wait until the first item has a full batch of its kind, or has waited long enough."""
        while self._queue and self._expects_others:
            first = self._queue[0]
            left = first.since + self._wait - time.perf_counter()
            if left <= 0 or self._count(first.kind) >= first.most:
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _count(self, kind: Hashable) -> int:
        return sum(queued.kind == kind for queued in self._queue)

    def _next_batch(self) -> list[_QueuedItem[Item, Result]]:
        if not self._queue:
            return []
        first = self._queue[0]
        batch = [queued for queued in self._queue if queued.kind == first.kind][: first.most]
        self._queue = [queued for queued in self._queue if queued not in batch]
        return batch

    async def _run_batch(self, batch: list[_QueuedItem[Item, Result]]) -> None:
        began = time.perf_counter()
        try:
            results = await self._run([queued.item for queued in batch])
            took = (time.perf_counter() - began) / len(batch)
            done = [
                (queued.future, BatchedResult(result, began - queued.since, took, len(batch)))
                for queued, result in zip(batch, results, strict=True)
            ]
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for the batch get it
            for queued in batch:
                if not queued.future.done():
                    queued.future.set_exception(error)
            return
        for future, result in done:
            if not future.done():
                future.set_result(result)
