"""The actors of a restore, as Ray Data's pool runs them: each restores batches with one model.

The model is in a child process, which also reads, decodes, encodes and writes, so that pixels stay in one process;
and a photo that crashes, hangs or takes all memory is an answer of the actor, like any other.
"""

from __future__ import annotations

import pickle
import queue
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray

from diffuir_core.errors import UserError

from .inputs import Item
from .local import LocalRestorer
from .messages import LoadModel, Prepare, Refused, Restore, Restored
from .stages import FinishedPhoto
from .worker_process import Died, WorkerProcess

SECONDS_BETWEEN_SIGNS = 5.0
"""Interval at which an actor says that it still works on a batch, seconds."""
SECONDS_TO_GROW = 2.0
"""Time for which the first child has answered before the next one is started, seconds."""
GROWS_BELOW = 0.9
"""Share of the model in a batch's time below which another child pays: it could only do what is left beside it."""
SCHEMA = pa.schema({"number": pa.int64(), "finished": pa.binary()})
"""A row about a batch: its number, and its pickled `FinishedPhoto`s or `Refused`; nothing where it is a sign."""


@dataclass(frozen=True)
class Shape:
    """The processes of an actor."""

    processes: int
    """Child processes, each with the model; they take turns in using it."""
    calls: int
    """Batches that a process works on at the same time."""

    @property
    def batches(self) -> int:
        """Batches that an actor works on at the same time."""
        return self.processes * self.calls


TAKING_TURNS = Shape(processes=2, calls=2)
"""For the one model of a machine: while a batch is restored with all threads, another one is read or written, and
in two processes tiny photos are not held up by Python's lock. Where the model takes nearly all the time, one
process remains."""
OVERLAPPING = Shape(processes=1, calls=3)
"""For several models of a machine, and for a GPU, of which each process takes memory: while the photos of a batch
are restored, those of another are read, and of a third written."""


class ModelProcess:
    """The function that Ray Data maps over batches, which keeps its state in an actor.

    prepare: the first message for the child processes, as a reference.
    """

    def __init__(self, prepare: ray.ObjectRef[Prepare], shape: Shape) -> None:
        self._prepare: Prepare = replace(ray.get(prepare), calls=shape.calls)
        self._shape = shape
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the actor lives
        self._children: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        """Those that are free, each as often as it takes another batch."""
        self._put(_Child(self._prepare, self._file.fileno()))
        self._missing = shape.processes - 1
        self._first_answer = 0.0
        self._growing = threading.Lock()
        self._threads = ThreadPoolExecutor(shape.batches + self._missing)

    def _put(self, child: _Child) -> None:
        for _ in range(self._shape.calls):
            self._children.put(child)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Restore the batch of a row; yields signs meanwhile, and at last a row with what has become of it."""
        (row,) = table.to_pylist()
        if not row["items"]:
            return
        work = self._threads.submit(self._finished, pickle.loads(row["items"]))
        while not wait_for([work], SECONDS_BETWEEN_SIGNS).done:
            yield _row(row["number"], b"")
        yield _row(row["number"], work.result())

    def _finished(self, items: Sequence[Item]) -> bytes:
        """What has become of the items: pickled `FinishedPhoto`s, or a `Refused`."""
        child = self._children.get()
        try:
            answer = child.ask(Restore(tuple(items)))
        except Died as died:
            cause = str(died)
        else:
            if not isinstance(answer, Restored):
                return pickle.dumps(answer, protocol=5)
            self._grow(answer.restoring)
            return answer.pickled
        finally:
            self._children.put(child)
        return pickle.dumps(self._finished_one_by_one(items, cause), protocol=5)

    def _finished_one_by_one(self, items: Sequence[Item], cause: str) -> list[FinishedPhoto] | Refused:
        """What has become of items that were in a process which died of `cause`."""
        # Each photo by itself, in a process that has no other one, so that its deaths are that photo's.
        deaths = 1 if len(items) == 1 and self._shape.calls == 1 else 0
        with WorkerProcess(self._file.fileno()) as process:
            alone = LocalRestorer(process, replace(self._prepare, calls=1))
            try:
                finished = [alone.restored(item, deaths, cause) for item in items]
                return [FinishedPhoto(one.photo, max(2, one.attempt)) for one in finished]
            except UserError as error:
                return Refused(str(error))

    def _grow(self, restoring: float) -> None:
        """Start the next child where there is work for it, but later, as its start would delay the first results.

        restoring: the model's share in the time of a batch.
        """
        with self._growing:
            self._first_answer = self._first_answer or time.monotonic()
            is_time = time.monotonic() - self._first_answer > SECONDS_TO_GROW
            if self._missing and is_time and restoring < GROWS_BELOW:
                self._missing -= 1
                self._threads.submit(self._add_loaded)

    def _add_loaded(self) -> None:
        child = _Child(self._prepare, self._file.fileno())
        with suppress(Died):  # it is started again for its first batch
            child.ask(LoadModel())
        self._put(child)


class _Child:
    """A process with the model, replaced when it dies."""

    def __init__(self, prepare: Prepare, turn: int) -> None:
        self._prepare = prepare
        self._process = WorkerProcess(turn)
        self._process.send(prepare)
        self._lock = threading.Lock()

    def ask(self, request: Restore | LoadModel) -> Any:
        """The answer to a request; raises `Died`."""
        with self._lock:
            if not self._process.is_alive:
                self._process.start_anew()
                self._process.send(self._prepare)
        return self._process.ask(request, timeout=self._prepare.options.timeout)


def _row(number: int, finished: bytes) -> pa.Table:
    return pa.table([[number], [finished]], schema=SCHEMA)
