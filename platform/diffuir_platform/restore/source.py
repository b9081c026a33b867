"""The source of the data set that a restore is for Ray Data: batches that the driver sends while it lists."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.util.queue import Queue

from .inputs import Item

SCHEMA = pa.schema({"number": pa.int64(), "items": pa.binary()})
"""A row is a batch: its number, and its pickled items, none for a row that is to be ignored."""


class BatchSource(Datasource):  # type: ignore[misc]
    """Batches of items, sent one by one while the data set is processed."""

    def __init__(self) -> None:
        super().__init__()
        self.node = ray.get_runtime_context().get_node_id()
        """The driver's node: queue and read task are lost with the driver, and not before it."""
        here = {"num_cpus": 0, "label_selector": {"ray.io/node-id": self.node}}
        # Batches that are lost where it dies are sent again like others that are lost.
        self._queue = Queue(actor_options={**here, "max_restarts": -1, "max_task_retries": -1})
        self._sent = 0

    def send(self, number: int, items: Sequence[Item]) -> None:
        """Add a batch."""
        self._queue.put((self._sent, number, pickle.dumps(items, protocol=5)))
        self._sent += 1

    def end(self) -> None:
        """Let the data set end after the batches that were sent."""
        self._queue.put(None)

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown, as Ray Data has it."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return one task that yields each batch as a block of one row."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(_batches, self._queue), unknown, schema=SCHEMA)]


def _batches(queue: Queue) -> Iterator[pa.Table]:
    place = 0
    while (sent := queue.get()) is not None:
        # Where Ray runs this task again, it drops as many blocks as it has had before.
        for _ in range(place, sent[0]):
            yield _row(-1, b"")
        place = sent[0] + 1
        yield _row(*sent[1:])


def _row(number: int, items: bytes) -> pa.Table:
    return pa.table([[number], [items]], schema=SCHEMA)
