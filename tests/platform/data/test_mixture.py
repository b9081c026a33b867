"""Guarantee 2: every global batch holds each task in its exact quota and follows from (seed, number) alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffuir_core.degradations import TASKS
from diffuir_platform.data import SHARES, Mixture, TrainingStage, quotas

SIZES = {"haze": 7, "rain": 5, "snow": 3, "low_light": 2, "blur": 11}
STAGES = (TrainingStage(6, 20, 64), TrainingStage(9, 10, 128))


def mixture(seed: int = 0) -> Mixture:
    return Mixture(seed, STAGES, SIZES)


def test_published_quotas() -> None:
    assert quotas(10) == {"haze": 4, "rain": 2, "snow": 2, "low_light": 1, "blur": 1}


@pytest.mark.parametrize("batch", [1, 5, 12])
def test_a_batch_without_whole_numbers_of_images_is_refused(batch: int) -> None:
    with pytest.raises(ValueError, match="whole number"):
        quotas(batch)


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(ValueError, match="sum to"):
        quotas(10, {"haze": 0.5, "rain": 0.4})


def test_every_batch_holds_the_exact_quotas() -> None:
    plan = mixture()
    for batch in range(len(plan)):
        size = 20 if batch < 6 else 10
        assert Counter(slot.task for slot in plan.slots(batch)) == quotas(size)
        assert plan.stage(batch).crop == (64 if batch < 6 else 128)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 14))
def test_a_batch_follows_from_seed_and_number_alone(seed: int, batch: int) -> None:
    assert mixture(seed).slots(batch) == mixture(seed).slots(batch)


def test_batches_may_be_planned_in_any_order() -> None:
    forwards = [mixture().slots(batch) for batch in range(15)]
    plan = mixture()
    assert [plan.slots(batch) for batch in reversed(range(15))] == forwards[::-1]


def test_another_seed_is_another_sequence() -> None:
    assert mixture(1).slots(0) != mixture(2).slots(0)


@pytest.mark.parametrize("task", TASKS)
def test_each_epoch_of_a_task_is_a_permutation_of_its_items(task: str) -> None:
    plan = mixture()
    drawn = [slot.index for batch in range(len(plan)) for slot in plan.slots(batch) if slot.task == task]
    size = SIZES[task]
    epochs = [drawn[i : i + size] for i in range(0, len(drawn) - size + 1, size)]
    assert len(epochs) >= 1
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)


def test_seeds_never_repeat() -> None:
    plan = mixture()
    seeds = [slot.seed for batch in range(len(plan)) for slot in plan.slots(batch)]
    assert len(set(seeds)) == len(seeds) == 6 * 20 + 9 * 10


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_the_workers_parts_make_up_the_batch(world_size: int) -> None:
    slots = mixture().slots(4)
    shares = [slots[rank::world_size] for rank in range(world_size)]
    assert sorted((s.task, s.index, s.seed) for share in shares for s in share) == sorted(
        (s.task, s.index, s.seed) for s in slots
    )
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_shares_are_those_of_the_paper() -> None:
    assert SHARES == {"haze": 0.4, "rain": 0.2, "snow": 0.2, "low_light": 0.1, "blur": 0.1}
