"""Delivers the records of a spool to MLflow in a background thread, each point once."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from diffuir_core import UserError

from .connection import connect, connection_errors, reason, unusable_tracker, without_password
from .registry import register_version
from .spool import RUN_FILE, Queue, Record, Spool

METRICS_PER_REQUEST = 1000
"""MLflow's limit."""
PARAMS_PER_REQUEST = 100
"""MLflow's limit."""
FIRST_BACKOFF = 0.5
"""Wait before the first retry while the tracker can't be used, seconds; it doubles with each further one."""
LONGEST_BACKOFF = 15.0
"""Longest wait between two retries, seconds."""
FLUSH_BACKOFF = 0.5
"""Wait between two retries while `flush` waits for the end, seconds."""

_log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The tracker will never take this record."""


class Uploader:
    """Delivers the spool of one run.

    A record is applied at least once, and a second time changes nothing: a point is left out where its curve
    already has one of its step, and everything else writes the same again.
    """

    def __init__(self, uri: str, run_id: str, spool: Spool) -> None:
        self._uri = uri
        self._run_id = run_id
        self._spool = spool
        self._steps: dict[str, set[int]] = {}
        """Steps of the points that each curve has in MLflow, as far as they were asked for."""
        self._steps_valid_at = -1
        """Delivered position of the records at which `_steps` is complete; -1 where it may not be."""
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._work_available = threading.Event()
        self._flushing = threading.Event()
        self._error = ""
        """Reason why the tracker can't be used; empty while it can."""
        self._has_refused = False
        self._applying = False
        """Whether a request to the tracker is under way."""

    @cached_property
    def _client(self) -> Any:
        return connect(self._uri)

    def notify(self) -> None:
        """Have the thread deliver what was spooled; the first call starts it."""
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
                self._thread.start()
        self._work_available.set()

    def flush(self, stall_timeout: float) -> bool:
        """Wait until all is delivered, and return whether it is; give up after `stall_timeout` seconds in which
        nothing was."""
        self.notify()
        self._flushing.set()
        try:
            positions, since = self._spool.positions(), time.monotonic()
            while not self._spool.is_delivered():
                if (now := self._spool.positions()) != positions:
                    positions, since = now, time.monotonic()
                # A slow upload moves no position until it is through or fails.
                if time.monotonic() - since > stall_timeout and not self._applying:
                    return False
                time.sleep(0.02)
            return True
        finally:
            self._flushing.clear()

    @property
    def failure(self) -> str:
        """Reason why the tracker has not taken everything, as far as it is known."""
        return self._error or "it takes too long"

    def deliver(self) -> int:
        """Deliver what is spooled and return the number of records.

        Raises what MLflow's client raises; what is undelivered then stays in the spool.
        """
        try:
            # Points first: they must not wait for an artifact store that can't be used.
            return self._deliver(self._spool.records) + self._deliver(self._spool.uploads)
        except FileNotFoundError:
            if self._spool.folder.exists():
                raise
            return 0  # another process has delivered all and, at the end of the run, removed the folder

    def _deliver(self, queue: Queue) -> int:
        count = 0
        with queue.delivering() as position:
            if queue is self._spool.records:
                # Another process has delivered since, or a response was lost: the curves may have more points.
                if position.byte != self._steps_valid_at:
                    self._steps.clear()
                self._steps_valid_at = -1
            for batch, end in _batches(queue.records(position.byte)):
                self._applying = True
                try:
                    self._apply(batch)
                finally:
                    self._applying = False
                position.move(end)
                count += len(batch)
                for record in batch:
                    if record["do"] == "file":
                        self._spool.drop_file(record["file"])
            if queue is self._spool.records:
                self._steps_valid_at = position.byte
        return count

    def _work(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            self._work_available.wait()
            # Cleared before delivering: a record that is spooled during it sets it again.
            self._work_available.clear()
            try:
                self.deliver()
            except Exception as error:  # noqa: BLE001 - training goes on, whatever a store raises
                self._log_failure(error)
                self._work_available.set()
                if self._flushing.wait(backoff):
                    time.sleep(FLUSH_BACKOFF)
                backoff = min(2 * backoff, LONGEST_BACKOFF)
            else:
                backoff = FIRST_BACKOFF
                self._log_recovery()

    def _log_failure(self, error: Exception) -> None:
        if not self._error:
            _log.warning(
                "the tracker at %s does not take what is logged (%s): the run goes on, %s keeps it meanwhile",
                *(without_password(self._uri), reason(error), self._spool.folder),
            )
        self._error = reason(error)

    def _log_recovery(self) -> None:
        if self._error:
            _log.warning(
                "the tracker at %s is back and has what was kept for it", without_password(self._uri)
            )
        self._error = ""

    def _apply(self, batch: list[Record]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            _ACTIONS[batch[0]["do"]](self, batch)
        except (MlflowException, RefusedError) as error:
            if isinstance(error, MlflowException) and not self._is_refusal(error):
                raise
            if len(batch) > 1:
                for record in batch:
                    self._apply([record])
                return
            self._spool.refuse(batch[0], reason(error))
            if not self._has_refused:
                _log.warning(
                    "the tracker at %s refuses a record (%s): refused records are kept in %s",
                    *(without_password(self._uri), reason(error), self._spool.refused),
                )
            self._has_refused = True

    def _is_refusal(self, error: Any) -> bool:
        """Whether the record itself is at fault, and not the tracker or the run, which may recover."""
        if error.error_code != "INVALID_PARAMETER_VALUE":
            return False
        return bool(self._client.get_run(self._run_id).info.lifecycle_stage == "active")

    def _add_points(self, batch: list[Record]) -> None:
        from mlflow.entities import Metric

        points: dict[tuple[str, int], Any] = {}
        for record in batch:
            for name, value in record["values"].items():
                if record["step"] not in self._steps_of(name):
                    point = Metric(name, value, record["time"], record["step"])
                    points.setdefault((name, record["step"]), point)
        for keys in _chunks(list(points), METRICS_PER_REQUEST):
            self._client.log_batch(self._run_id, metrics=[points[key] for key in keys])
            for name, step in keys:
                self._steps[name].add(step)

    def _steps_of(self, name: str) -> set[int]:
        """Return the steps of a curve's points: a restarted worker repeats some, and MLflow would keep both."""
        if name not in self._steps:
            history = self._client.get_metric_history(self._run_id, name)
            self._steps[name] = {point.step for point in history}
        return self._steps[name]

    def _add_params(self, batch: list[Record]) -> None:
        from mlflow.entities import Param

        for record in batch:
            params = [Param(name, value) for name, value in record["values"].items()]
            for some in _chunks(params, PARAMS_PER_REQUEST):
                self._client.log_batch(self._run_id, params=some)

    def _set_status(self, batch: list[Record]) -> None:
        status = batch[-1]["status"]
        if status == "RUNNING":
            self._client.update_run(self._run_id, status=status)
        else:
            self._client.set_terminated(self._run_id, status, batch[-1]["time"])

    def _add_file(self, batch: list[Record]) -> None:
        for record in batch:
            file = self._spool.folder / record["file"]
            if not file.exists():
                raise RefusedError(f"{file} is gone")
            self._client.log_artifact(self._run_id, str(file), record["folder"] or None)

    def _register(self, batch: list[Record]) -> None:
        for record in batch:
            register_version(self._client, self._run_id, record)


_ACTIONS: dict[str, Callable[[Uploader, list[Record]], None]] = {
    "point": Uploader._add_points,
    "params": Uploader._add_params,
    "status": Uploader._set_status,
    "file": Uploader._add_file,
    "register": Uploader._register,
}


def deliver(folder: Path, uri: str | None = None) -> int:
    """Deliver what runs have left in a spool, and return the number of records.

    folder: the spool, or the folder of one run in it. uri: address of the tracker; None for the one in the spool,
    which is without user and password (set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD). Raises
    `UserError` where the folder is not a spool or the tracker can't be used; what is undelivered then stays.
    """
    runs = sorted(file.parent for file in (*folder.glob(RUN_FILE), *folder.glob(f"*/{RUN_FILE}")))
    if not runs:
        raise UserError(f"{folder} is not a spool: give the folder that a run has printed")
    count = 0
    for run in runs:
        about = json.loads((run / RUN_FILE).read_text())
        spool, address = Spool(run), uri or about["uri"]
        try:
            count += Uploader(address, about["run_id"], spool).deliver()
        except connection_errors() as error:
            kept = (
                f"{spool.undelivered_text()} of the run {about['run_id']} stay in {run}, deliver them later"
            )
            raise unusable_tracker(address, error, kept) from None
        spool.remove_if_delivered()
    return count


def _batches(records: Iterator[tuple[Record, int]]) -> Iterator[tuple[list[Record], int]]:
    """Yield (records of one request, position after them): points that follow each other, or one other record."""
    batch: list[Record] = []
    metrics = end = 0
    for record, after in records:
        more = len(record["values"]) if record["do"] == "point" else METRICS_PER_REQUEST
        if batch and metrics + more > METRICS_PER_REQUEST:
            yield batch, end
            batch, metrics = [], 0
        batch.append(record)
        metrics, end = metrics + more, after
    if batch:
        yield batch, end


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))
