"""Photos through Ray Data: one execution for each run, of a source, a pool of actors, and rows for the ledger.

The driver sends batches of about one second of work to the source (`source.py`) while it lists. An actor
(`models.py`) restores each of them, from the bytes of the files to those of the results, so that pixels stay in
one process. What comes back is small: what has become of each photo. Ray Data starts and ends the actors, spreads
the batches over them, asks the cluster for more nodes, and shows all that on its page of the dashboard.

A photo that kills its process, hangs or takes all memory is dealt with in the actor. Where an actor dies with its
node, Ray Data sends its batches again once it can start another one, which without room is never: so the driver
sends a batch again that has given no sign for long. Its results are the same, and the first of them counts.
"""

from __future__ import annotations

import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import ray
from ray.data import ActorPoolStrategy

from diffuir_core.errors import UserError

from ..runtime import Resources, private
from ..text import counted
from .inputs import Item
from .messages import Prepare, Refused
from .models import OVERLAPPING, TAKING_TURNS, ModelProcess, Shape
from .source import BatchSource
from .stages import CONTINUES, FinishedPhoto

BATCH_SECONDS = 1.0
"""Work in one batch, in all stages together, seconds; also what a model takes at a time."""
MAX_BATCH_PHOTOS = 1024
"""Most photos in one batch."""
MAX_BATCH_BYTES = 8 * 2**20
"""Most bytes of encoded photos in one batch, unless a single photo has more."""
AHEAD = 2
"""Batches sent for each one that the actors work on, so that none of them waits for its next."""
POLL_SECONDS = 0.5
"""Longest wait for a finished batch before the driver looks at the listing again, seconds."""
SECONDS_BETWEEN_LOOKS = 5.0
"""Time between two looks at what the cluster has room for, seconds."""
SECONDS_OF_SILENCE = 30.0
"""Time without a sign after which a batch may be lost, seconds: the node of its actor has died."""
SECONDS_TO_END = 5.0
"""Longest wait for the end of the execution once all photos are finished, or none is waited for, seconds."""
SECONDS_BETWEEN_STOPS = 0.05
"""Time between two attempts to stop an execution that is just starting, seconds."""
LEAST_CPUS = 0.001
"""CPUs that an actor asks for where its threads alone limit what it uses."""


@dataclass
class Batch:
    """Photos that were sent and have not come back."""

    items: Sequence[Item]
    heard: float
    """Time at which it was sent, or gave a sign."""
    results: int
    """Batches that had come back by then."""
    times: int = 1
    """Times that it was sent."""


class Pipeline:
    """Restores items through the Ray that runs.

    prepare: model and settings. room: resources that models may have at this moment. is_local: whether it is a Ray
    of our own on this machine.
    """

    def __init__(self, prepare: Prepare, room: Callable[[], Resources], is_local: bool) -> None:
        self._options = prepare.options
        self._room = room
        self._next_look = 0.0
        self._numbers = count()
        self._outstanding: dict[int, Batch] = {}
        self._results = 0
        self._seconds_per_photo = BATCH_SECONDS
        resources = room()
        self._shape = TAKING_TURNS if is_local and not resources.model_gpus else OVERLAPPING
        self._models = self._models_in(resources)
        self._execution = Execution(prepare, resources, self._shape, self._pool(is_local))

    def _models_in(self, resources: Resources) -> int:
        share = self._options.gpu_share if resources.model_gpus else 1.0
        return max(1, self._options.models or int(resources.models / share))

    def _pool(self, is_local: bool) -> ActorPoolStrategy:
        sizes = (
            {"size": self._models}
            if is_local
            else {"min_size": 1, "max_size": self._options.models, "initial_size": self._models}
        )
        return ActorPoolStrategy(
            **sizes,
            max_concurrent_calls_per_actor=self._shape.batches,
            max_tasks_in_flight_per_actor=AHEAD * self._shape.batches,
            enable_true_multi_threading=True,
        )

    def finished_photos(self, items: Iterator[Item | None]) -> Iterator[FinishedPhoto]:
        """Yield a finished photo for each of `items`, in the order in which they finish.

        items: None where the next item is not known yet, so that a slow listing does not hold up what is under
        way. Raises `UserError` where the model can't be loaded, or where the store as a whole does not answer.
        """
        waiting: deque[Item] = deque()
        ended = False
        with self._execution:
            self._execution.start()
            while not (ended and not waiting and not self._outstanding):
                ended = ended or take(items, waiting)
                while len(self._outstanding) < self._most_outstanding():
                    if not (batch := self._next_batch(waiting, ended)):
                        break
                    self._send(next(self._numbers), batch)
                for number, finished in self._execution.rows(POLL_SECONDS):
                    yield from self._finished(number, finished)
                self._send_lost_again(is_all_sent=ended and not waiting)

    @property
    def statistics(self) -> str:
        """The statistics of Ray Data, once the execution has ended."""
        return self._execution.statistics

    @property
    def at_work(self) -> str:
        """The number of models at work, for a person."""
        models = self._execution.models
        return counted(models, "model") if models else ""

    def _most_outstanding(self) -> int:
        if time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
            self._models = self._models_in(self._room())
        return 2 * AHEAD * self._shape.batches * self._models

    def _next_batch(self, waiting: deque[Item], ended: bool) -> list[Item]:
        """Return the items to send next; none where nothing is waiting."""
        size = min(MAX_BATCH_PHOTOS, self._options.batch_size or MAX_BATCH_PHOTOS)
        size = max(1, min(size, int(BATCH_SECONDS / self._seconds_per_photo)))
        if ended:  # the last photos are shared out evenly among the models
            size = max(1, min(size, len(waiting) // (self._models * self._shape.batches)))
        items: list[Item] = []
        total = 0
        while waiting and len(items) < size:
            total += waiting[0].size or 0  # sizes of a list are unknown
            if items and total > MAX_BATCH_BYTES:
                break
            items.append(waiting.popleft())
        return items

    def _send(self, number: int, items: Sequence[Item]) -> None:
        self._execution.send(number, items)
        self._outstanding[number] = Batch(items, time.monotonic(), self._results)

    def _finished(self, number: int, finished: bytes) -> Iterator[FinishedPhoto]:
        """Take a row: yield the photos of a batch that has come back, or note a sign."""
        batch = self._outstanding.get(number)
        if batch is None:  # it was sent again, and has come back already
            return
        batch.heard, batch.results = time.monotonic(), self._results
        if not finished:
            return
        del self._outstanding[number]
        self._results += 1
        answer: list[FinishedPhoto] | Refused = pickle.loads(finished)
        if isinstance(answer, Refused):
            raise UserError(answer.reason)
        photos = [finished.photo for finished in answer]
        seconds = sum(p.seconds_read + p.seconds_restore + p.seconds_write for p in photos) / len(photos)
        self._seconds_per_photo += 0.3 * (seconds - self._seconds_per_photo)
        for finished_photo in answer:
            if finished_photo.photo.unreachable:
                raise UserError(f"{finished_photo.photo.reason}; {CONTINUES}")
            yield FinishedPhoto(finished_photo.photo, max(batch.times, finished_photo.attempt))

    def _send_lost_again(self, is_all_sent: bool) -> None:
        """Send the batches again that others have overtaken and that have been silent for long, longer each time.

        Others have overtaken a batch if as many have come back since as there may be before it, or if some have
        and nothing else is left to send.
        """
        now = time.monotonic()
        overtaken = 1 if is_all_sent else self._most_outstanding()
        for number, batch in self._outstanding.items():
            silent = now - batch.heard > batch.times * SECONDS_OF_SILENCE
            if silent and self._results - batch.results >= overtaken:
                self._execution.send(number, batch.items)
                batch.heard, batch.results, batch.times = now, self._results, batch.times + 1


def take(items: Iterator[Item | None], waiting: deque[Item]) -> bool:
    """Add items to those that wait, as many as are known and enough for the next batches; return whether there are
    no more.

    items: with None in between where the next item may not be known yet. One None alone means nothing, as a
    listing has it between its parts.
    """
    is_known = True
    while len(waiting) < 2 * MAX_BATCH_PHOTOS:
        item = next(items, False)
        if item is False:
            return True
        if item is None and not is_known:
            return False
        if is_known := item is not None:
            waiting.append(item)  # type: ignore[arg-type]
    return False


class Execution:
    """One execution of Ray Data, in which batches go in and rows come out; a context manager."""

    def __init__(self, prepare: Prepare, resources: Resources, shape: Shape, pool: ActorPoolStrategy) -> None:
        self._source = BatchSource()
        self._prepare = ray.put(prepare)  # kept while the actors may be started again
        data = ray.data.read_datasource(
            self._source,
            override_num_blocks=1,
            num_cpus=0,
            label_selector={"ray.io/node-id": self._source.node},
        )
        share = prepare.options.gpu_share
        # Other resources than those of the source keep the two from being one operator.
        self._data = data.map_batches(
            ModelProcess,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_args=(self._prepare, shape),
            compute=pool,
            num_cpus=resources.model_cpus or LEAST_CPUS,
            num_gpus=resources.model_gpus * share,
        )
        self._data.context.target_max_block_size = 1  # each row is passed on when it is there
        self._rows: queue.SimpleQueue[tuple[int, bytes] | BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="diffuir-execution")
        self.statistics = ""

    @property
    def models(self) -> int:
        """Actors of the pool that have started."""
        return private.running_actors(self._data)

    def __enter__(self) -> None: ...

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._source.end()
            self._thread.join(SECONDS_TO_END)
        # Ray must not end before their threads, which would crash this process; an execution that is just
        # starting can be stopped once it has started.
        deadline = time.monotonic() + SECONDS_TO_END
        private.stop_execution(self._data)
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(SECONDS_BETWEEN_STOPS)
            private.stop_execution(self._data)

    def send(self, number: int, items: Sequence[Item]) -> None:
        """Send a batch."""
        self._source.send(number, items)

    def rows(self, seconds: float) -> Iterator[tuple[int, bytes]]:
        """Yield the rows that are there, the first after at most `seconds`; raises what ended the execution."""
        try:
            row = self._rows.get(timeout=seconds)
            while True:
                if isinstance(row, BaseException):
                    raise row
                assert row is not None, "the execution has ended before its source"
                yield row
                row = self._rows.get(block=False)
        except queue.Empty:
            return

    def _run(self) -> None:
        try:
            for table in self._data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in table.to_pylist():
                    self._rows.put((row["number"], row["finished"]))
            self.statistics = self._data.stats()
            self._rows.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the driver
            self._rows.put(error)
