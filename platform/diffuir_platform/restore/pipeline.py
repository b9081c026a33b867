"""Photos through Ray: tasks that read, actors that hold a model each, and tasks that write, all at the same time.

Photos travel in batches of about one second of work. The driver keeps a bounded number of batches in flight, so
that neither its memory nor a worker's grows with the number of photos. Pixels pass between the stages inside Ray's
object store and never through the driver.

Why Ray's tasks and actors, and not Ray Data: its source must be known before it starts, while a listing of ten
million keys is not; a batch that kills its process ends a Ray Data job, or is retried for ever; and after the
death of a node with no CPUs to spare elsewhere it waited for ever. Here a lost batch comes back to the driver,
which retries it in smaller batches, then each photo in isolation, and at last gives up on the one photo that kills
its process.
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
from .models import ModelHandle, ModelPool
from .settings import RestoreOptions
from .stages import CONTINUES, FinishedPhoto, Photo

BATCH_SECONDS = 1.0
"""Work in one batch, in all stages together, seconds; also what a model takes at a time."""
MAX_BATCH_PHOTOS = 256
"""Most photos in one batch."""
MAX_BATCH_BYTES = 8 * 2**20
"""Most bytes of encoded photos in one batch, unless a single photo has more."""
RETRY_PIECES = 8
"""Smaller batches that a lost batch is split into for its retry."""
MAX_LOSSES = 20
"""Lost batches after which a photo is given up, even where a node died each time, which is not its fault."""
CPUS_PER_TASK = 0.97
"""CPUs that a reading or writing task asks Ray for. Just under one, so that beside a model, which asks for
slightly more than half of a node, still run as many tasks as there are CPUs left."""
POLL_SECONDS = 0.5
"""Longest wait for a finished batch before the driver looks at the models and the listing again, seconds."""


@dataclass(frozen=True)
class Batch:
    """Photos that go through the stages together."""

    items: tuple[Item, ...]
    isolated: bool = False
    """Whether no other photo is in its processes, so that if one dies, this photo is the cause."""
    deaths: int = 0
    """Processes that died while it was isolated in them."""
    losses: int = 0
    """Times that it did not come back, for whatever reason."""


class Pipeline:
    """Restores items into the folder `target`, a URI."""

    def __init__(self, target: str, options: RestoreOptions, models: ModelPool) -> None:
        self._target = target
        self._options = options
        self._models = models
        self._seconds_per_photo = BATCH_SECONDS
        self._retries: deque[Batch] = deque()
        self._in_flight: dict[Any, tuple[int, Batch, ModelHandle]] = {}
        self._numbers = count()
        # A crash must come back at once to the driver, which knows better than Ray how to retry.
        once = {"max_retries": 0, "num_cpus": CPUS_PER_TASK}
        self._read = ray.remote(packed.read).options(**once, scheduling_strategy="SPREAD")
        self._write = ray.remote(packed.write).options(**once)

    def finished_photos(self, items: Iterator[Item | None]) -> Iterator[FinishedPhoto]:
        """Yield a finished photo for each of `items`, in the order in which they finish.

        items: None where the next item is not known yet, so that a slow listing does not hold up what is in
        flight. Raises `UserError` where the model can't be loaded, or where the store as a whole does not answer.
        """
        waiting: deque[Item] = deque()
        ended = False
        while not (ended and not waiting and not self._retries and not self._in_flight):
            self._models.maintain()
            ended = ended or self._fill(waiting, items)
            while (batch := self._next_batch(waiting, ended)) is not None:
                model = self._models.choose(batch.isolated)
                if model is None:
                    self._retries.appendleft(batch)
                    break
                self._send(batch, model)
            if ended and not waiting and not self._retries:
                self._models.stop_idle()
            yield from self._collect()

    def _fill(self, waiting: deque[Item], items: Iterator[Item | None]) -> bool:
        """Take items until there are enough for the next batches; return whether there are no more."""
        while len(waiting) < 2 * MAX_BATCH_PHOTOS:
            item = next(items, False)
            if item is False:
                return True
            if item is None:
                return False
            waiting.append(item)  # type: ignore[arg-type]
        return False

    def _next_batch(self, waiting: deque[Item], ended: bool) -> Batch | None:
        """Return the batch to send next; None where nothing is waiting."""
        if self._retries:
            return self._retries.popleft()
        size = min(MAX_BATCH_PHOTOS, self._options.batch_size or MAX_BATCH_PHOTOS)
        size = max(1, min(size, int(BATCH_SECONDS / self._seconds_per_photo)))
        if ended:  # the last photos are shared out evenly among the models
            size = max(1, min(size, len(waiting) // max(len(self._models), 1)))
        items: list[Item] = []
        total = 0
        while waiting and len(items) < size:
            total += (
                waiting[0].size or 0
            )  # sizes of a list are unknown; what is too much is postponed by `read`
            if items and total > MAX_BATCH_BYTES:
                break
            items.append(waiting.popleft())
        return Batch(tuple(items)) if items else None

    def _send(self, batch: Batch, model: ModelHandle) -> None:
        options = self._options
        photos = self._read.remote(batch.items, options.exif, options.truncated, options.max_pixels)
        restored = model.actor.restore.remote(photos)
        number = next(self._numbers)
        model.batches.add(number)
        model.isolated = batch.isolated
        written = self._write.remote(restored, self._target, options.quality, options.overwrite)
        self._in_flight[written] = (number, batch, model)

    def _collect(self) -> Iterator[FinishedPhoto]:
        """Wait at most POLL_SECONDS for a batch to come back, and yield the photos of those that have."""
        if not self._in_flight:
            time.sleep(POLL_SECONDS / 10)
            return
        ray.wait(list(self._in_flight), timeout=POLL_SECONDS)
        done, _ = ray.wait(list(self._in_flight), num_returns=len(self._in_flight), timeout=0)
        for reference in done:
            number, batch, model = self._in_flight.pop(reference)
            model.batches.discard(number)
            model.isolated = False
            try:
                photos = ray.get(reference)
            except ray.exceptions.RayError as error:
                yield from self._handle_loss(batch, model, error)
                continue
            self._update_seconds_per_photo(photos)
            for photo in photos:
                if photo.unreachable:
                    raise UserError(f"{photo.reason}; {CONTINUES}")
                if photo.postponed:
                    self._retries.append(Batch((photo.item,)))
                else:
                    yield FinishedPhoto(photo, 1 + batch.losses)

    def _update_seconds_per_photo(self, photos: Sequence[Photo]) -> None:
        """Move the running mean of the time of one photo towards that of a finished batch."""
        seconds = sum(p.seconds_read + p.seconds_restore + p.seconds_write for p in photos) / len(photos)
        self._seconds_per_photo += 0.3 * (seconds - self._seconds_per_photo)

    def _handle_loss(self, batch: Batch, model: ModelHandle, error: Exception) -> Iterator[FinishedPhoto]:
        """Queue the retry of a batch whose process died, or yield its photo as failed after the last retry."""
        if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(
            error.cause, ray.exceptions.RayError
        ):
            raise error  # a bug of this program
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        if isinstance(cause, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
            self._models.discard(model)
        batch = replace(batch, losses=batch.losses + 1)
        if batch.isolated and not is_node_failure(cause):
            batch = replace(batch, deaths=batch.deaths + 1)
        if batch.deaths >= self._options.attempts or batch.losses >= MAX_LOSSES:
            reason = (
                f"the process that was to restore it died {batch.deaths or batch.losses} times "
                f"({cause_of_death(cause)})"
            )
            yield FinishedPhoto(Photo(item=batch.items[0], reason=reason), batch.losses)
        elif len(batch.items) == 1:
            self._retries.append(replace(batch, isolated=True))
        else:
            size = -(-len(batch.items) // RETRY_PIECES)
            starts = range(0, len(batch.items), size)
            self._retries.extend(replace(batch, items=batch.items[i : i + size]) for i in starts)


def is_node_failure(error: BaseException | None) -> bool:
    """Whether a process died because its node did, or data is lost because the node that held it died."""
    failures = (
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,
        ray.exceptions.ActorUnavailableError,
    )
    # For an actor that died with its node, only the text of Ray's error says so.
    return isinstance(error, failures) or "its node has died" in str(error)


def cause_of_death(error: BaseException | None) -> str:
    """Cause of a process's death, for a person."""
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "low on memory" in str(error):
        return "memory ran out"
    return "killed or crashed"
