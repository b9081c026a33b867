"""The contents of every batch - image, crop, flips, degradation - as a pure function of (seed, batch number).

Nothing here depends on the number of workers, on restarts or on the storage (guarantee 2): a batch is planned as a
whole, and each worker takes its own slots of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffuir_core.degradations import TASKS

SHARES: Mapping[str, float] = {"haze": 0.4, "rain": 0.2, "snow": 0.2, "low_light": 0.1, "blur": 0.1}
"""Share of each task in every global batch (section 4.2 of the paper)."""


@dataclass(frozen=True)
class Slot:
    """One image of a batch: item `index` of `task`; seed: of its crop, flips, degradation, time and noise."""

    task: str
    index: int
    seed: int


@dataclass(frozen=True)
class TrainingStage:
    """A stage of training: `batches` global batches of `batch` images in crops of `crop` x `crop` pixels.

    whole: share of the crops for which the photo is made smaller first, so that the crop holds nearly all of it.
    """

    batches: int
    batch: int
    crop: int
    whole: float = 0.0


@dataclass(frozen=True)
class Draws:
    """Shares of the photos without a degraded counterpart that are drawn in other ways than the task's own."""

    second: float = 0.0
    """Share with a second degradation, 0 to 1."""
    traces: float = 0.0
    """Share with a camera's own traces, 0 to 1."""
    good: float = 0.0
    """Share with nothing wrong, 0 to 1: half of them the photo as it is, half drawn pictures."""


NO_OTHER_DRAWS = Draws()
"""Every photo is degraded by its task alone."""


def quotas(batch: int, shares: Mapping[str, float] = SHARES) -> dict[str, int]:
    """Return the number of images of each task in a global batch of `batch` images.

    Raises `ValueError` where the shares don't sum to 1 or don't give whole numbers.
    """
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"the shares of the tasks sum to {sum(shares.values()):g}, not to 1")
    counts = {task: share * batch for task, share in shares.items()}
    for task, count in counts.items():
        if abs(count - round(count)) > 1e-9:
            raise ValueError(
                f"a batch of {batch} would hold {count:g} images of {task}: choose a whole number"
            )
    return {task: round(count) for task, count in counts.items()}


class Mixture:
    """The plan of a training run: which slots each global batch holds. Its length is the number of batches.

    stages: the stages of training, in order. sizes: number of items of each task. shares: share of each task in a
    batch. draws: shares of photos that are degraded in other ways.
    """

    def __init__(
        self,
        seed: int,
        stages: Sequence[TrainingStage],
        sizes: Mapping[str, int],
        shares: Mapping[str, float] = SHARES,
        draws: Draws = NO_OTHER_DRAWS,
    ) -> None:
        self.seed = seed
        self.draws = draws
        self.stages = tuple(stages)
        self.sizes = dict(sizes)
        self.quotas = [quotas(stage.batch, shares) for stage in self.stages]

    def __len__(self) -> int:
        return sum(stage.batches for stage in self.stages)

    def stage(self, batch: int) -> TrainingStage:
        """Return the stage of global batch number `batch`, from 0."""
        return self.stages[self._locate(batch)[0]]

    def slots(self, batch: int) -> list[Slot]:
        """Return the slots of global batch number `batch`, task by task; each worker takes its own of them."""
        stage, within = self._locate(batch)
        seeds = np.random.SeedSequence((self.seed, batch)).generate_state(self.stages[stage].batch, np.uint64)
        drawn = [
            (task, j)
            for task in TASKS
            for j in self._items(
                task, self._drawn_before(task, stage, within), self.quotas[stage].get(task, 0)
            )
        ]
        return [Slot(task, item, int(s)) for (task, item), s in zip(drawn, seeds, strict=True)]

    def _locate(self, batch: int) -> tuple[int, int]:
        if not 0 <= batch < len(self):
            raise IndexError(f"batch {batch} of {len(self)}")
        for i, stage in enumerate(self.stages):
            if batch < stage.batches:
                return i, batch
            batch -= stage.batches
        raise AssertionError

    def _drawn_before(self, task: str, stage: int, within: int) -> int:
        earlier = sum(
            s.batches * q.get(task, 0) for s, q in zip(self.stages[:stage], self.quotas, strict=False)
        )
        return earlier + within * self.quotas[stage].get(task, 0)

    def _items(self, task: str, start: int, count: int) -> Iterator[int]:
        """Yield items start .. start+count-1 of the task's endless sequence: one permutation after another."""
        size = self.sizes[task]
        for position in range(start, start + count):
            epoch, place = divmod(position, size)
            yield int(_permutation(self.seed, TASKS.index(task), epoch, size)[place])


@lru_cache(maxsize=16)
def _permutation(seed: int, task: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((seed, task, epoch)).permutation(size)
