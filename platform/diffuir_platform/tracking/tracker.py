"""A run in MLflow that never makes training wait: records are safe on the disk at once, and delivered later."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from PIL import Image

from diffuir_core import UserError

from .connection import absolute, connect, connection_errors, unusable_tracker, without_password
from .params import flattened, shortened
from .provenance import code_state, provenance_tags
from .registry import CARD_FILE, LONGEST_DESCRIPTION, check_name, checksum_of
from .spool import Queue, Record, Spool
from .uploader import Uploader

STALL_TIMEOUT = 30.0
"""Longest time that the end of a run waits for a tracker that takes nothing, seconds."""
SPOOL_FOLDER = "mlspool"
"""Name of the spool beside the artifacts, where no other is given."""
CONTINUES = "diffuir.continues"
"""Tag with the id of the run that a run goes on from, where the tracker does not have that one any more."""
PARAMS_FILE = "params.json"
"""Artifact with the whole parameters, where MLflow's limits cut some."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracker:
    """One MLflow run, opened by the driver and written to by the first worker; it can be pickled.

    Only `flush` and `finish` wait for MLflow, and nothing raises where it can't be reached: records go into a
    folder of `spool`, and a thread delivers them in order. A process that resumes a run delivers what an earlier
    one left there with its own first record.
    """

    uri: str = field(repr=False)
    """Address of the tracker, which may hold a password; `address` has none."""
    run_id: str
    """MLflow's id of the run."""
    spool: Path
    """Folder for undelivered records, with a folder for each run; best on the local disk."""

    def __reduce__(self) -> tuple[type[Tracker], tuple[str, str, Path]]:
        # Without the uploader, whose thread stays in its process.
        return Tracker, (self.uri, self.run_id, self.spool)

    @property
    def address(self) -> str:
        """Address of the tracker without user and password."""
        return without_password(self.uri)

    @cached_property
    def _spool(self) -> Spool:
        spool = Spool(self.spool / self.run_id)
        try:
            spool.open(self.address, self.run_id)
        except OSError as error:
            raise UserError(
                f"can't write to {spool.folder} ({error.strerror}), which keeps what is logged until the tracker "
                "has it: name another folder for it"
            ) from error
        return spool

    @cached_property
    def _uploader(self) -> Uploader:
        return Uploader(self.uri, self.run_id, self._spool)

    @cached_property
    def _lost(self) -> list[str]:
        """Reasons of the records that could not be written to the disk."""
        return []

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a point to each curve, unless it has one of this step; takes a fraction of a millisecond."""
        values = {name: float(value) for name, value in metrics.items() if name != "step"}
        if values:
            record = {"do": "point", "step": int(step), "time": _now(), "values": values}
            self._add(self._spool.records, record)

    def undelivered(self) -> list[Record]:
        """Return the points that the tracker does not have yet, for a process that resumes the run elsewhere."""
        return [record for record in self._spool.records.undelivered() if record["do"] == "point"]

    def log_again(self, points: Iterable[Record]) -> None:
        """Add points from `undelivered`, unless the tracker has them by now."""
        for record in points:
            self._add(self._spool.records, record)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Add the run's settings, nested ones under dotted names. A value too long for MLflow is cut, and then the
        artifact `PARAMS_FILE` has all of them whole."""
        flat = flattened(params)
        short, cut = shortened(flat, PARAMS_FILE)
        self._add(self._spool.records, {"do": "params", "values": short})
        if cut:
            self._add_text(json.dumps(flat, indent=1), "", PARAMS_FILE)

    def log_image(self, image: Image.Image, artifact: str) -> None:
        """Log an image as the artifact of that path."""
        path = PurePosixPath(artifact)
        with self._despite_full_disk():
            file, within = self._spool.new_file(path.name)
            image.save(file)
            self._add_file(within, str(path.parent))

    def log_text(self, text: str, artifact: str) -> None:
        """Log a text as the artifact of that path."""
        path = PurePosixPath(artifact)
        self._add_text(text, str(path.parent), path.name)

    def log_file(self, file: Path, folder: str) -> None:
        """Log a copy of a file into that folder of the run's artifacts."""
        with file.open("rb") as source, self._despite_full_disk():
            copy, within = self._spool.new_file(file.name)
            with copy.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
            self._add_file(within, folder)

    def register(self, file: Path, card: str, name: str, alias: str | None = None) -> None:
        """Register a weights file with its model card (Markdown) as a version of the registered model `name`.

        alias: name for this version, taken from an older one that has it. MLflow calls the newest version "latest"
        by itself. Raises `UserError` where MLflow would not take the names.
        """
        check_name(name, alias)
        checksum = checksum_of(file)
        folder = f"registered/{checksum}"
        self.log_file(file, folder)
        self._add_text(card, folder, CARD_FILE)
        version = {"name": name, "alias": alias, "folder": folder, "checksum": checksum}
        version["description"] = card[:LONGEST_DESCRIPTION]
        self._add(self._spool.uploads, {"do": "register", **version})

    def flush(self, stall_timeout: float = STALL_TIMEOUT) -> bool:
        """Wait until all is delivered, and return whether it is; give up after `stall_timeout` seconds in which
        nothing was.

        A worker calls it last of all, as no other machine can deliver from its disk.
        """
        return self._uploader.flush(stall_timeout)

    def finish(
        self, status: Literal["FINISHED", "FAILED", "KILLED"], *, stall_timeout: float = STALL_TIMEOUT
    ) -> None:
        """Close the run with MLflow's `status`, of which KILLED is that of a run which is to be resumed.

        What can't be delivered stays on the disk, and a warning names the command for it.
        """
        self._add(self._spool.records, {"do": "status", "status": status, "time": _now()})
        delivered = self.flush(stall_timeout)
        if self._lost:
            _log.warning(
                "%d things that were logged could not be kept for the tracker (%s): they are lost",
                len(self._lost),
                self._lost[0],
            )
        if delivered:
            self._spool.remove_if_delivered()
        else:
            folder = self._spool.folder
            _log.warning(
                "the tracker at %s did not take all of the run %s (%s): %s are kept in %s, deliver them with: "
                "python -m diffuir_platform.tracking %s",
                *(self.address, self.run_id, self._uploader.failure),
                *(self._spool.undelivered_text(), folder, folder),
            )

    def _resume(self) -> None:
        """Make the spool; where an earlier process left records in it, set the run's status after them."""
        if not self._spool.is_delivered():
            self._add(self._spool.records, {"do": "status", "status": "RUNNING", "time": _now()})

    def _add_text(self, text: str, folder: str, name: str) -> None:
        with self._despite_full_disk():
            file, within = self._spool.new_file(name)
            file.write_text(text, encoding="utf-8")
            self._add_file(within, folder)

    def _add_file(self, within: str, folder: str) -> None:
        folder = "" if folder == "." else folder
        self._add(self._spool.uploads, {"do": "file", "file": within, "folder": folder})

    def _add(self, queue: Queue, record: Record) -> None:
        with self._despite_full_disk():
            # A process that closed this run before may have removed the folder.
            self._spool.open(self.address, self.run_id)
            queue.append(record)
        self._uploader.notify()

    @contextmanager
    def _despite_full_disk(self) -> Iterator[None]:
        """Keep errors of the disk from ending the training: what the block logs is lost, and a warning says so."""
        try:
            yield
        except OSError as error:
            if not self._lost:
                _log.warning(
                    "can't write to %s (%s): what is logged is lost until it can",
                    self._spool.folder,
                    error.strerror,
                )
            self._lost.append(error.strerror or str(error))


def open_run(
    uri: str,
    experiment: str,
    name: str,
    run_id: str | None,
    artifacts: Path,
    *,
    spool: Path | None = None,
    parent: str | None = None,
    index: str | None = None,
    data: str | None = None,
) -> Tracker:
    """Open the run `run_id`, or a new one called `name`.

    artifacts: folder for the artifacts of a tracker that is a database. spool: folder for undelivered records;
    None for one beside `artifacts`. parent: id of the parent of a new run. index: fingerprints of the indexes of
    its data, separated by commas; data: fingerprint of all its training data.

    A run that is to be resumed needs no tracker: where it can't be reached, records are kept until it can; where
    it has no such run (it was deleted, or the tracker is another one), a new run is made with the old one's id in
    the tag `CONTINUES`. A warning says so. Raises `UserError` where the tracker can't be reached for a new run.
    """
    uri = absolute(uri)
    spool = (spool or artifacts.parent / SPOOL_FOLDER).absolute()
    lost = None
    try:
        client = connect(uri)
        if run_id is not None and not _set_running(client, run_id):
            _log.warning("the tracker at %s has no run %s: a new one goes on", without_password(uri), run_id)
            lost, run_id = run_id, None
        if run_id is None:
            tags = provenance_tags(code_state(), parent, index, data) | ({CONTINUES: lost} if lost else {})
            location = None if uri.startswith(("http://", "https://")) else artifacts.resolve().as_uri()
            run_id = client.create_run(
                _experiment(client, experiment, location), run_name=name, tags=tags
            ).info.run_id
    except connection_errors() as error:
        if run_id is None:
            # Without its cause: the text may hold a password.
            raise unusable_tracker(uri, error, "set tracking_uri") from None
        _log.warning(
            "%s; what is logged is kept in %s until it can",
            unusable_tracker(uri, error, "the run goes on without it"),
            spool / run_id,
        )
    tracker = Tracker(uri, run_id, spool)
    tracker._resume()
    return tracker


def _set_running(client: Any, run_id: str) -> bool:
    """Set the status of a run; returns whether the tracker has a run of that id that is not deleted."""
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE"):
            return False
        raise
    return True


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    """Return the id of the experiment, and make it where it is missing."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            # Another run of a sweep may have made it since.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        raise UserError(
            f"MLflow's experiment {name} was deleted: restore it (mlflow experiments restore), or set experiment "
            "to another name"
        )
    return str(found.experiment_id)


def _now() -> int:
    return int(time.time() * 1000)
