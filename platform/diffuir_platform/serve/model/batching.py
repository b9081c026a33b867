"""Photos that wait for one model, handed to it together where it takes several of a size at once.

`ray.serve.batch` hands over whatever came next to each other. A model runs photos of one padded size and one set
of options together, and others would only wait for them; and one whose client has gone away leaves the queue.
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
class Turn(Generic[Result]):
    """What came of an item.

    queued, took: seconds that it waited, and its share of its batch's time. batch: items in that.
    """

    result: Result
    queued: float
    took: float
    batch: int


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    kind: Hashable
    item: Item
    most: int
    since: float
    turn: asyncio.Future[Turn[Result]]


class Batcher(Generic[Item, Result]):
    """Runs `run` on batches of items of one kind, one batch at a time, the longest waiting first.

    run: gives a result for each item, in order. wait: seconds that an item waits for others of its kind, unless
    the batch before had but one and nobody came meanwhile: then there is nobody to wait for.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], wait: float) -> None:
        self._run = run
        self._wait = wait
        self._waiting: list[_Waiting[Item, Result]] = []
        self._came = asyncio.Event()
        self._has_company = True
        self._loop: asyncio.Task[None] | None = None

    async def __call__(self, kind: Hashable, item: Item, most: int) -> Turn[Result]:
        """The result of `item`, which may share a batch with up to `most` - 1 others of its kind."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._serve())
        waiting = _Waiting[Item, Result](
            kind, item, most, time.perf_counter(), asyncio.get_running_loop().create_future()
        )
        self._waiting.append(waiting)
        self._came.set()
        try:
            return await waiting.turn
        finally:
            if waiting in self._waiting:  # cancelled before its turn
                self._waiting.remove(waiting)

    async def _serve(self) -> None:
        while True:
            while not self._waiting:
                self._came.clear()
                await self._came.wait()
            await self._others()
            batch = self._next()
            if batch:
                await self._serve_batch(batch)
                self._has_company = len(batch) > 1 or bool(self._waiting)

    async def _others(self) -> None:
        """Until the first has enough of its kind beside it, or has waited long enough."""
        while self._waiting and self._has_company:
            first = self._waiting[0]
            left = first.since + self._wait - time.perf_counter()
            if left <= 0 or self._of_kind(first) >= first.most:
                return
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), left)
            except TimeoutError:
                return

    def _of_kind(self, first: _Waiting[Item, Result]) -> int:
        return sum(waiting.kind == first.kind for waiting in self._waiting)

    def _next(self) -> list[_Waiting[Item, Result]]:
        if not self._waiting:
            return []
        first = self._waiting[0]
        batch = [waiting for waiting in self._waiting if waiting.kind == first.kind][: first.most]
        self._waiting = [waiting for waiting in self._waiting if waiting not in batch]
        return batch

    async def _serve_batch(self, batch: list[_Waiting[Item, Result]]) -> None:
        began = time.perf_counter()
        try:
            results = await self._run([waiting.item for waiting in batch])
            took = (time.perf_counter() - began) / len(batch)
            turns = [
                (waiting.turn, Turn(result, began - waiting.since, took, len(batch)))
                for waiting, result in zip(batch, results, strict=True)
            ]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to those who wait for it
            for waiting in batch:
                if not waiting.turn.done():
                    waiting.turn.set_exception(error)
            return
        for future, turn in turns:
            if not future.done():
                future.set_result(turn)
