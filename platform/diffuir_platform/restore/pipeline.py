"""Photos through Ray: tasks that read, processes that hold a model each, tasks that write, all at the same time.

Photos travel in parcels of about a second's work. The driver keeps a bounded number of parcels on the way, so that
neither its memory nor a worker's grows with the number of photos; pixels pass between the stages inside Ray's
object store and never through the driver.

Ray's tasks and actors, and not Ray Data: its source must be known before it starts, while a listing of ten million
keys is not; a batch that kills its process ends a Ray Data job, or comes back for ever; and a node's death without
CPUs to spare made it wait for ever. Here a lost parcel comes back to the driver, which tries it again in smaller
parcels, then alone, and at last gives up on the one photo that does it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import ray

from diffuir_core.errors import UserError

from . import packed
from .inputs import Item
from .models import Model, Models
from .settings import RestoreOptions
from .stages import Photo

SECONDS_OF_A_PARCEL = 1.0
"""Of work, in all stages together; what a model takes up at once."""
MOST_PHOTOS = 256
MOST_BYTES = 8 * 2**20
"""Of encoded photos in a parcel, unless a single one has more."""
PIECES = 8
"""That a lost parcel is tried again in."""
MOST_LOST = 20
"""How often nodes may die under one photo, which is none of its doing."""
CPUS_OF_A_TASK = 0.97
"""As many run beside a model as it leaves CPUs, though it takes a little more than half of them."""
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Parcel:
    """Photos that go through the stages together."""

    items: tuple[Item, ...]
    alone: bool = False
    """Whether nothing else is with it in its processes, so that if one dies it was this photo's doing."""
    deaths: int = 0
    """Of processes that it was alone in."""
    lost: int = 0
    """How often it did not come back, for whatever reason."""


@dataclass(frozen=True)
class Outcome:
    """What came of one photo, and at which attempt."""

    photo: Photo
    attempt: int


class Pipeline:
    """Restores what it is given into the folder `target`, a URI."""

    def __init__(self, target: str, options: RestoreOptions, models: Models) -> None:
        self._target = target
        self._options = options
        self._models = models
        self._seconds_of_a_photo = SECONDS_OF_A_PARCEL
        self._again: deque[Parcel] = deque()
        self._under_way: dict[Any, tuple[int, Parcel, Model]] = {}
        self._numbers = count()
        # A crash must come back to the driver at once, which knows better what to try again.
        once = {"max_retries": 0, "num_cpus": CPUS_OF_A_TASK}
        self._read = ray.remote(packed.read).options(**once, scheduling_strategy="SPREAD")
        self._write = ray.remote(packed.write).options(**once)

    def outcomes(self, items: Iterator[Item | None]) -> Iterator[Outcome]:
        """An outcome for each of `items`, as they come, in no fixed order.

        items: None where there is none yet and others follow, so that a slow listing does not hold up what is on
        the way. Raises `UserError` where the model cannot be loaded, or the store as a whole does not answer.
        """
        waiting: deque[Item] = deque()
        ended = False
        while not (ended and not waiting and not self._again and not self._under_way):
            self._models.keep_up()
            ended = ended or self._fill(waiting, items)
            while (parcel := self._next(waiting, ended)) is not None:
                model = self._models.for_parcel(parcel.alone)
                if model is None:
                    self._again.appendleft(parcel)
                    break
                self._send(parcel, model)
            if ended and not waiting and not self._again:
                self._models.release_idle()
            yield from self._arrived()

    def _fill(self, waiting: deque[Item], items: Iterator[Item | None]) -> bool:
        """Take items until there are enough for the next parcels; whether there are no more."""
        while len(waiting) < 2 * MOST_PHOTOS:
            item = next(items, False)
            if item is False:
                return True
            if item is None:
                return False
            waiting.append(item)  # type: ignore[arg-type]
        return False

    def _next(self, waiting: deque[Item], ended: bool) -> Parcel | None:
        """The parcel to send next."""
        if self._again:
            return self._again.popleft()
        size = min(MOST_PHOTOS, self._options.batch_size or MOST_PHOTOS)
        size = max(1, min(size, int(SECONDS_OF_A_PARCEL / self._seconds_of_a_photo)))
        if ended:  # the last ones are shared out
            size = max(1, min(size, len(waiting) // max(len(self._models), 1)))
        items: list[Item] = []
        held = 0
        while waiting and len(items) < size:
            held += waiting[0].size or 0  # of a list nobody knows; what is too much is postponed
            if items and held > MOST_BYTES:
                break
            items.append(waiting.popleft())
        return Parcel(tuple(items)) if items else None

    def _send(self, parcel: Parcel, model: Model) -> None:
        options = self._options
        photos = self._read.remote(parcel.items, options.exif, options.truncated)
        restored = model.actor.restore.remote(photos)
        number = next(self._numbers)
        model.parcels.add(number)
        model.alone = parcel.alone
        self._under_way[self._write.remote(restored, self._target, options.quality)] = (number, parcel, model)

    def _arrived(self) -> Iterator[Outcome]:
        """What has come back by now, or soon does."""
        if not self._under_way:
            time.sleep(SECONDS_BETWEEN_LOOKS / 10)
            return
        ray.wait(list(self._under_way), timeout=SECONDS_BETWEEN_LOOKS)
        done, _ = ray.wait(list(self._under_way), num_returns=len(self._under_way), timeout=0)
        for reference in done:
            number, parcel, model = self._under_way.pop(reference)
            model.parcels.discard(number)
            model.alone = False
            try:
                photos = ray.get(reference)
            except ray.exceptions.RayError as error:
                yield from self._lost(parcel, model, error)
                continue
            self._learn(photos)
            for photo in photos:
                if photo.unreachable:
                    raise UserError(f"{photo.reason}; what is written stays, and the same command goes on")
                if photo.postponed:
                    self._again.append(Parcel((photo.item,)))
                else:
                    yield Outcome(photo, 1 + parcel.lost)

    def _learn(self, photos: Sequence[Photo]) -> None:
        """How long a photo takes, from those that came last."""
        seconds = sum(p.seconds_read + p.seconds_restore + p.seconds_write for p in photos) / len(photos)
        self._seconds_of_a_photo += 0.3 * (seconds - self._seconds_of_a_photo)

    def _lost(self, parcel: Parcel, model: Model, error: Exception) -> Iterator[Outcome]:
        """A process died under a parcel: try it again, or give its photo up."""
        if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(
            error.cause, ray.exceptions.RayError
        ):
            raise error  # a fault of this program
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        if isinstance(cause, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
            self._models.lost(model)
        parcel = replace(parcel, lost=parcel.lost + 1)
        if parcel.alone and not is_the_nodes_doing(cause):
            parcel = replace(parcel, deaths=parcel.deaths + 1)
        if parcel.deaths >= self._options.attempts or parcel.lost >= MOST_LOST:
            reason = (
                f"the process that was to restore it died {parcel.deaths or parcel.lost} times ({why(cause)})"
            )
            yield Outcome(Photo(item=parcel.items[0], reason=reason), parcel.lost)
        elif len(parcel.items) == 1:
            self._again.append(replace(parcel, alone=True))
        else:
            size = -(-len(parcel.items) // PIECES)
            starts = range(0, len(parcel.items), size)
            self._again.extend(replace(parcel, items=parcel.items[i : i + size]) for i in starts)


def is_the_nodes_doing(error: BaseException | None) -> bool:
    """Whether a process is gone because its node is, or data because where it lay is."""
    gone = (
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,
        ray.exceptions.ActorUnavailableError,
    )
    # Of an actor that died with its node Ray says so in words alone.
    return isinstance(error, gone) or "its node has died" in str(error)


def why(error: BaseException | None) -> str:
    """The kind of a death, for a person."""
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "low on memory" in str(error):
        return "memory ran out"
    return "killed or crashed"
