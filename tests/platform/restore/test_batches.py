"""Batches are filled from all that is listed, and a slow listing holds no model up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

import pytest

from diffuir_platform.restore.inputs import Item
from diffuir_platform.restore.pipeline import MAX_BATCH_PHOTOS, take


def items(*parts: int) -> Iterator[Item | None]:
    """Parts of a listing with so many items each, None after each."""
    for count in parts:
        yield from (Item(f"{i}.png", f"/in/{i}.png", f"{i}.png", None) for i in range(count))
        yield None


@pytest.mark.parametrize(
    ("parts", "taken", "is_end"),
    [
        ((10,) * 300, 2 * MAX_BATCH_PHOTOS, False),
        ((500,) * 20, 2 * MAX_BATCH_PHOTOS, False),
        ((500, 0, 500), 500, False),
        ((0, 500, 0, 0, 500), 500, False),
        ((0, 0, 500), 0, False),
        ((500, 7), 507, True),
        ((), 0, True),
    ],
)
def test_all_that_is_listed_is_taken(parts: tuple[int, ...], taken: int, is_end: bool) -> None:
    waiting: deque[Item] = deque()
    assert take(items(*parts), waiting) is is_end
    assert len(waiting) == taken


def test_what_is_taken_comes_once_and_in_order() -> None:
    listing = items(*(100,) * 40)
    expected = [item for item in items(*(100,) * 40) if item is not None]
    waiting: deque[Item] = deque()
    found: list[Item] = []
    while not take(listing, waiting) or waiting:
        found += islice(waiting, 300)
        for _ in range(min(300, len(waiting))):
            waiting.popleft()
    assert found == expected
