"""Batches of the photos that wait for one model: which go together, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from diffuir_platform.serve.model.batching import Batcher

Kind = str


class Model:
    """Runs one batch at a time, each when it is allowed to; returns the items in capitals."""

    def __init__(self, wait: float = 0.0, held: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.free = asyncio.Event()
        if not held:
            self.free.set()
        self.busy = 0
        self.take = Batcher[str, str](self.run, wait)

    async def run(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.busy += 1
        assert self.busy == 1, "a second batch at once"
        try:
            await self.free.wait()
        finally:
            self.busy -= 1
        if "bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]

    def ask(self, kind: Kind, item: str, most: int) -> asyncio.Task[Any]:
        return asyncio.create_task(self.take(kind, item, most))

    async def occupied(self) -> asyncio.Task[Any]:
        """Have the model begin with an item, so that later ones have to wait."""
        task = self.ask("first", "first", 1)
        while not self.batches:
            await asyncio.sleep(0)
        return task


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within_a_second() -> None:
        async with asyncio.timeout(5):
            await test()

    asyncio.run(within_a_second())


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_those_of_one_kind_go_together_each_with_its_own_result() -> None:
    async def test() -> None:
        model = Model(held=True)
        await model.occupied()
        asked = [
            model.ask(kind, item, 4) for kind, item in (("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2"))
        ]
        await turns()
        model.free.set()
        got = await asyncio.gather(*asked)
        assert [turn.result for turn in got] == ["A1", "B1", "A2", "B2"]
        assert [turn.batch for turn in got] == [2, 2, 2, 2]
        assert model.batches == [["first"], ["a1", "a2"], ["b1", "b2"]]

    run(test)


def test_the_one_that_waits_longest_is_next() -> None:
    async def test() -> None:
        model = Model(held=True)
        await model.occupied()
        asked = []
        for kind in "abcab":
            asked.append(model.ask(kind, kind, 1))
            await turns()
        model.free.set()
        await asyncio.gather(*asked)
        assert [batch[0] for batch in model.batches] == ["first", *"abcab"]

    run(test)


def test_no_more_go_together_than_the_model_takes() -> None:
    async def test() -> None:
        model = Model(held=True)
        await model.occupied()
        asked = [model.ask("a", str(i), 3) for i in range(7)]
        await turns()
        model.free.set()
        await asyncio.gather(*asked)
        assert [len(batch) for batch in model.batches] == [1, 3, 3, 1]

    run(test)


def test_a_lone_one_waits_for_others_only_so_long() -> None:
    async def test() -> None:
        model = Model(wait=0.05)
        began = time.perf_counter()
        turn = await model.take("a", "x", 8)
        took = time.perf_counter() - began
        assert 0.05 <= turn.queued <= took
        assert turn.batch == 1

    run(test)


def test_who_comes_after_a_lone_one_waits_for_nobody_until_there_are_others_again() -> None:
    async def test() -> None:
        model = Model(wait=60)
        await asyncio.gather(model.ask("a", "x", 2), model.ask("a", "y", 2))
        await model.take("a", "fills a batch", 1)
        assert (await model.take("a", "alone", 2)).batch == 1
        model.free.clear()
        first = model.ask("a", "alone too", 2)
        while not model.busy:
            await asyncio.sleep(0)
        second = model.ask("a", "came meanwhile", 2)
        await turns()
        model.free.set()
        await first
        await turns()
        assert not second.done()
        assert (await model.take("a", "company", 2)).batch == 2

    run(test)


def test_a_full_batch_does_not_wait() -> None:
    async def test() -> None:
        model = Model(wait=60)
        asked = [model.ask("a", "x", 2), model.ask("a", "y", 2)]
        await asyncio.gather(*asked)
        assert model.batches == [["x", "y"]]

    run(test)


def test_another_kind_does_not_end_the_wait() -> None:
    async def test() -> None:
        model = Model(wait=60)
        first = model.ask("a", "x", 2)
        other = model.ask("b", "z", 2)
        await turns()
        await asyncio.gather(first, model.ask("a", "y", 2))
        assert model.batches == [["x", "y"]]
        assert not other.done()

    run(test)


def test_where_only_one_is_taken_at_once_none_waits_for_others() -> None:
    async def test() -> None:
        model = Model(wait=60)
        assert (await model.take("a", "x", 1)).result == "X"

    run(test)


def test_one_whose_client_has_gone_leaves_the_queue() -> None:
    async def test() -> None:
        model = Model(held=True)
        await model.occupied()
        gone, stays = model.ask("a", "gone", 4), model.ask("a", "stays", 4)
        await turns()
        gone.cancel()
        await turns()
        model.free.set()
        assert (await stays).batch == 1
        assert gone.cancelled()
        assert model.batches == [["first"], ["stays"]]

    run(test)


def test_one_that_goes_while_it_is_restored_leaves_the_others_theirs() -> None:
    async def test() -> None:
        model = Model(held=True)
        gone, stays = model.ask("a", "gone", 2), model.ask("a", "stays", 2)
        while not model.busy:
            await asyncio.sleep(0)
        gone.cancel()
        await turns()
        model.free.set()
        assert (await stays).result == "STAYS"
        assert model.batches == [["gone", "stays"]]
        assert (await model.take("a", "later", 1)).result == "LATER"

    run(test)


def test_when_all_that_wait_have_gone_the_next_is_served() -> None:
    async def test() -> None:
        model = Model(wait=0.05)
        gone = model.ask("a", "gone", 4)
        await turns()
        gone.cancel()
        await turns()
        assert (await model.take("b", "later", 1)).result == "LATER"
        assert model.batches == [["later"]]

    run(test)


def test_an_error_is_told_to_those_of_its_batch_and_nobody_else() -> None:
    async def test() -> None:
        model = Model(held=True)
        first = await model.occupied()
        asked = [model.ask(kind, item, 2) for kind, item in (("a", "bad"), ("a", "with it"), ("b", "other"))]
        await turns()
        model.free.set()
        bad, with_it, other = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(bad, ValueError)
        assert isinstance(with_it, ValueError)
        assert (other.result, (await first).result) == ("OTHER", "FIRST")
        assert (await model.take("a", "later", 2)).result == "LATER"

    run(test)


def test_the_time_of_a_batch_is_shared_by_those_in_it() -> None:
    async def test() -> None:
        async def slow(items: Sequence[str]) -> Sequence[str]:
            await asyncio.sleep(0.1)
            return items

        batcher = Batcher[str, str](slow, 60)
        began = time.perf_counter()
        turns_of = await asyncio.gather(*[batcher("a", str(i), 4) for i in range(4)])
        assert {turn.batch for turn in turns_of} == {4}
        assert 0.1 <= sum(turn.took for turn in turns_of) <= time.perf_counter() - began

    run(test)
