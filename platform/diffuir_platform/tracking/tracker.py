"""A run in MLflow as training sees it: what is logged is safe at once, and delivered when that is possible."""

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
from typing import Any

from PIL import Image

from diffuir_core import UserError

from .connection import absolute, cannot_be_used, connect, shown, unusable
from .courier import Courier
from .params import flattened, shortened
from .provenance import code_state, provenance_tags
from .registry import CARD_FILE, LONGEST_DESCRIPTION, check_name, checksum_of
from .spool import Queue, Record, Spool

PATIENCE = 30.0
"""Seconds that the end of a run waits for a tracker that takes nothing."""
SPOOL_FOLDER = "mlspool"
"""The spool's folder beside the artifacts, where none is named."""
PARAMS_FILE = "params.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracker:
    """One MLflow run, made by the driver and written to by the first worker; travels between them by pickling.

    Nothing here but `flush` and `finish` waits for MLflow, and nothing raises where it can't be reached: what is
    logged goes into a folder of `spool`, and a thread delivers it in order. A process that goes on with the run
    delivers what an earlier one left there, with the first thing that it logs.
    """

    uri: str = field(repr=False)
    """May hold a password: `address` is what can be shown."""
    run_id: str
    spool: Path
    """Folder of what is not delivered yet, a folder for each run in it. Best on the local disk."""

    def __reduce__(self) -> tuple[type[Tracker], tuple[str, str, Path]]:
        # The thread stays where it is.
        return Tracker, (self.uri, self.run_id, self.spool)

    @property
    def address(self) -> str:
        """The tracker's address without user and password."""
        return shown(self.uri)

    @cached_property
    def _spool(self) -> Spool:
        spool = Spool(self.spool / self.run_id)
        try:
            spool.open(self.address, self.run_id)
        except OSError as error:
            raise UserError(
                f"can't write to {spool.folder} ({error.strerror}), where what is logged waits for the tracker: "
                "name another folder for it"
            ) from error
        return spool

    @cached_property
    def _courier(self) -> Courier:
        return Courier(self.uri, self.run_id, self._spool)

    @cached_property
    def _lost(self) -> list[str]:
        """Why things could not be kept, one for each."""
        return []

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add one point to each curve, unless it has one of this step; takes a fraction of a millisecond."""
        values = {name: float(value) for name, value in metrics.items() if name != "step"}
        if values:
            record = {"do": "point", "step": int(step), "time": _now(), "values": values}
            self._add(self._spool.records, record)

    def undelivered(self) -> list[Record]:
        """The points that the tracker does not have yet, for whoever goes on with the run without this disk."""
        return [record for record in self._spool.records.waiting() if record["do"] == "point"]

    def log_again(self, points: Iterable[Record]) -> None:
        """Add points of `undelivered`, unless they have arrived since."""
        for record in points:
            self._add(self._spool.records, record)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Add the run's settings, nested ones under dotted names; one that is too long for MLflow is cut, and all
        are then kept whole in a file."""
        flat = flattened(params)
        short, cut = shortened(flat, PARAMS_FILE)
        self._add(self._spool.records, {"do": "params", "values": short})
        if cut:
            self._add_text(json.dumps(flat, indent=1), "", PARAMS_FILE)

    def log_image(self, image: Image.Image, artifact: str) -> None:
        """Keep a picture as the artifact of that path."""
        path = PurePosixPath(artifact)
        with self._sparing():
            file, within = self._spool.new_file(path.name)
            image.save(file)
            self._add_file(within, str(path.parent))

    def log_text(self, text: str, artifact: str) -> None:
        """Keep a text as the artifact of that path."""
        path = PurePosixPath(artifact)
        self._add_text(text, str(path.parent), path.name)

    def log_file(self, file: Path, folder: str) -> None:
        """Keep a file in that folder of the run's artifacts, as it is now."""
        with file.open("rb") as source, self._sparing():
            copy, within = self._spool.new_file(file.name)
            with copy.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
            self._add_file(within, folder)

    def register(self, file: Path, card: str, name: str, alias: str | None = None) -> None:
        """Keep a weights file with its card (Markdown), and make them a version of the registered model `name`.

        alias: a name for this version, which it takes from an older one. "latest" needs none: MLflow calls the
        newest version so by itself. Raises `UserError` where MLflow would not take the names.
        """
        check_name(name, alias)
        checksum = checksum_of(file)
        folder = f"registered/{checksum}"
        self.log_file(file, folder)
        self._add_text(card, folder, CARD_FILE)
        version = {"name": name, "alias": alias, "folder": folder, "checksum": checksum}
        version["description"] = card[:LONGEST_DESCRIPTION]
        self._add(self._spool.uploads, {"do": "register", **version})

    def flush(self, patience: float = PATIENCE) -> bool:
        """Wait until all is delivered, or nothing was for `patience` seconds; whether all is.

        For a worker whose spool nobody else can reach, as the last thing it does.
        """
        return self._courier.flush(patience)

    def finish(self, *, failed: bool, patience: float = PATIENCE) -> None:
        """Close the run; what can't be delivered stays on the disk, and is said."""
        status = "FAILED" if failed else "FINISHED"
        self._add(self._spool.records, {"do": "status", "status": status, "time": _now()})
        delivered = self.flush(patience)
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
                *(self.address, self.run_id, self._courier.trouble, self._spool.waiting(), folder, folder),
            )

    def _go_on(self) -> None:
        """Make the spool; the run goes on after what an earlier process may have left in it."""
        if not self._spool.is_delivered():
            self._add(self._spool.records, {"do": "status", "status": "RUNNING", "time": _now()})

    def _add_text(self, text: str, folder: str, name: str) -> None:
        with self._sparing():
            file, within = self._spool.new_file(name)
            file.write_text(text, encoding="utf-8")
            self._add_file(within, folder)

    def _add_file(self, within: str, folder: str) -> None:
        folder = "" if folder == "." else folder
        self._add(self._spool.uploads, {"do": "file", "file": within, "folder": folder})

    def _add(self, queue: Queue, record: Record) -> None:
        with self._sparing():
            # An earlier run of the same id may have removed its folder at its end.
            self._spool.open(self.address, self.run_id)
            queue.append(record)
        self._courier.notify()

    @contextmanager
    def _sparing(self) -> Iterator[None]:
        """A full disk loses what is logged meanwhile, and is said; it does not stop the training."""
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
    """The run `run_id`, or a new one called `name`.

    artifacts: where a database's files go. spool: the folder of what is not delivered yet; None for one beside
    `artifacts`. parent: the id of the run that a new one belongs to. index: the fingerprints of its data's
    indexes, data: the one of all that it is trained on. Raises `UserError` where the tracker can't be reached.
    """
    uri = absolute(uri)
    spool = (spool or artifacts.parent / SPOOL_FOLDER).absolute()
    try:
        client = connect(uri)
        if run_id is not None:
            client.update_run(run_id, status="RUNNING")
        else:
            tags = provenance_tags(code_state(), parent, index, data)
            location = None if uri.startswith(("http://", "https://")) else artifacts.resolve().as_uri()
            run_id = client.create_run(
                _experiment(client, experiment, location), run_name=name, tags=tags
            ).info.run_id
    except unusable() as error:
        # Without its cause, whose text is not ours to vouch for.
        raise cannot_be_used(uri, error, "set tracking_uri") from None
    tracker = Tracker(uri, run_id, spool)
    tracker._go_on()
    return tracker


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    """The id of the experiment, made where it is missing."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            # Another run of a sweep may have made it meanwhile.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _now() -> int:
    return int(time.time() * 1000)
