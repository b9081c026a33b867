"""Brings what is spooled to the tracker, in the background, each point once."""

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

from .connection import cannot_be_used, connect, reason, shown, unusable
from .registry import register_version
from .spool import RUN_FILE, Queue, Record, Spool

METRICS_AT_ONCE = 1000
"""MLflow's limit on a request."""
PARAMS_AT_ONCE = 100
"""The same of parameters."""
FIRST_WAIT = 0.5
LONGEST_WAIT = 15.0
"""Seconds between two tries while the tracker is away; each wait is twice the one before."""
HURRIED_WAIT = 0.5
"""Seconds between two tries while somebody waits for the end."""

_log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The tracker will never take this record."""


class Courier:
    """Delivers the spool of one run.

    Records are applied at least once and each of them so that a second time changes nothing: a point is left out
    where its curve has one of that step already, the rest says the same again.
    """

    def __init__(self, uri: str, run_id: str, spool: Spool) -> None:
        self._uri = uri
        self._run_id = run_id
        self._spool = spool
        self._known: dict[str, set[int]] = {}
        """The steps that each curve has a point of."""
        self._left_at = -1
        """The position of the records up to which `_known` is right; -1 where it is not known to be."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._news = threading.Event()
        self._hurry = threading.Event()
        self._gone = ""
        """Why the tracker can't be used, empty while it can."""
        self._has_refused = False
        self._applying = False
        """Whether the tracker is being spoken to."""

    @cached_property
    def _client(self) -> Any:
        return connect(self._uri)

    def notify(self) -> None:
        """Something was spooled: bring it, in the background."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
                self._thread.start()
        self._news.set()

    def flush(self, patience: float) -> bool:
        """Wait until all is delivered, or nothing was for `patience` seconds; whether all is."""
        self.notify()
        self._hurry.set()
        try:
            positions, since = self._spool.positions(), time.monotonic()
            while not self._spool.is_delivered():
                if (now := self._spool.positions()) != positions:
                    positions, since = now, time.monotonic()
                # A slow upload moves nothing either, until it is through or fails.
                if time.monotonic() - since > patience and not self._applying:
                    return False
                time.sleep(0.02)
            return True
        finally:
            self._hurry.clear()

    @property
    def trouble(self) -> str:
        """Why the tracker can't be used, as far as is known."""
        return self._gone or "it takes too long"

    def deliver(self) -> int:
        """Deliver what waits and count it; raises what the tracker raises, and what is left waits on."""
        try:
            # Points first: they must not wait for a store of files that is away.
            return self._deliver(self._spool.records) + self._deliver(self._spool.uploads)
        except FileNotFoundError:
            if self._spool.folder.exists():
                raise
            return 0  # all was delivered, and who finished the run has removed the folder

    def _deliver(self, queue: Queue) -> int:
        count = 0
        with queue.delivering() as position:
            if queue is self._spool.records:
                # Another process has delivered meanwhile, or the tracker has not answered: it may have more.
                if position.byte != self._left_at:
                    self._known.clear()
                self._left_at = -1
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
                self._left_at = position.byte
        return count

    def _work(self) -> None:
        wait = FIRST_WAIT
        while True:
            self._news.wait()
            # Before delivering: what is spooled meanwhile sets it again.
            self._news.clear()
            try:
                self.deliver()
            except Exception as error:  # noqa: BLE001 - whatever stores raise, training goes on
                self._say_gone(error)
                self._news.set()
                if self._hurry.wait(wait):
                    time.sleep(HURRIED_WAIT)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                wait = FIRST_WAIT
                self._say_back()

    def _say_gone(self, error: Exception) -> None:
        if not self._gone:
            _log.warning(
                "the tracker at %s does not take what is logged (%s): the run goes on, %s keeps it meanwhile",
                *(shown(self._uri), reason(error), self._spool.folder),
            )
        self._gone = reason(error)

    def _say_back(self) -> None:
        if self._gone:
            _log.warning("the tracker at %s is back and has what was kept for it", shown(self._uri))
        self._gone = ""

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
                    "the tracker at %s refuses a record (%s): such are set aside in %s",
                    *(shown(self._uri), reason(error), self._spool.refused),
                )
            self._has_refused = True

    def _is_refusal(self, error: Any) -> bool:
        """Whether it is the record that is wrong, and not the tracker or the run, which may be right again."""
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
        for keys in _chunks(list(points), METRICS_AT_ONCE):
            self._client.log_batch(self._run_id, metrics=[points[key] for key in keys])
            for name, step in keys:
                self._known[name].add(step)

    def _steps_of(self, name: str) -> set[int]:
        """The steps of a curve: a restarted worker repeats some, and MLflow would keep both points."""
        if name not in self._known:
            history = self._client.get_metric_history(self._run_id, name)
            self._known[name] = {point.step for point in history}
        return self._known[name]

    def _add_params(self, batch: list[Record]) -> None:
        from mlflow.entities import Param

        for record in batch:
            params = [Param(name, value) for name, value in record["values"].items()]
            for some in _chunks(params, PARAMS_AT_ONCE):
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
                raise RefusedError(f"{file} is not there any more")
            self._client.log_artifact(self._run_id, str(file), record["folder"] or None)

    def _register(self, batch: list[Record]) -> None:
        for record in batch:
            register_version(self._client, self._run_id, record)


_ACTIONS: dict[str, Callable[[Courier, list[Record]], None]] = {
    "point": Courier._add_points,
    "params": Courier._add_params,
    "status": Courier._set_status,
    "file": Courier._add_file,
    "register": Courier._register,
}


def deliver(folder: Path, uri: str | None = None) -> int:
    """Bring to the tracker what runs have left in a spool; how many records that were.

    folder: the spool, or the folder of one run in it. uri: where the tracker is now; None for where it was, which
    was kept without user and password (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD give them). Raises
    `UserError` where the folder is no spool or the tracker can't be used; what is left then stays.
    """
    runs = sorted(file.parent for file in (*folder.glob(RUN_FILE), *folder.glob(f"*/{RUN_FILE}")))
    if not runs:
        raise UserError(f"{folder} holds nothing for a tracker: give the folder that a run has named")
    count = 0
    for run in runs:
        about = json.loads((run / RUN_FILE).read_text())
        spool, address = Spool(run), uri or about["uri"]
        try:
            count += Courier(address, about["run_id"], spool).deliver()
        except unusable() as error:
            kept = f"{spool.waiting()} of the run {about['run_id']} stay in {run}, deliver them later"
            raise cannot_be_used(address, error, kept) from None
        spool.remove_if_delivered()
    return count


def _batches(records: Iterator[tuple[Record, int]]) -> Iterator[tuple[list[Record], int]]:
    """Points that follow each other together, as many as a request takes; anything else by itself."""
    batch: list[Record] = []
    metrics = end = 0
    for record, after in records:
        more = len(record["values"]) if record["do"] == "point" else METRICS_AT_ONCE
        if batch and metrics + more > METRICS_AT_ONCE:
            yield batch, end
            batch, metrics = [], 0
        batch.append(record)
        metrics, end = metrics + more, after
    if batch:
        yield batch, end


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))
