"""The record of a training run: `run.json` in its folder, with the settings and data that it was begun with.

It is written before anything else; a later start of the run compares with it and refuses to resume with other
settings or data (guarantee 7). A restore has a record of its own in the `_diffuir/` of its output:
`restore/record.py`.
"""

from __future__ import annotations

import json
from typing import Any

from diffuir_core import UserError

from .. import storage
from ..data import open_index
from .checkpoints import SNAPSHOT_FILE
from .settings import OPERATIONAL, TrainConfig

RUN_FILE = "run.json"
DATA = "data_fingerprint"
INDEXES = "index_fingerprints"
"""Fingerprints of whole indexes: an index given under another path must have the same
fingerprint."""


def result_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the weights depend on, without the operational ones."""
    return {key: value for key, value in settings.items() if key not in OPERATIONAL}


def open_record(config: TrainConfig, folder: str, data: str) -> dict[str, Any]:
    """Return the record of the run in `folder`, or write a new one; data: fingerprint of the training data.

    Raises `UserError`, naming the difference, where the run was begun with other settings or data, and where the
    record is missing beside checkpoints or damaged.
    """
    settings = result_settings(config.model_dump(mode="json"))
    indexes = [open_index(uri).fingerprint for uri in config.data.index]
    file = storage.join(folder, RUN_FILE)
    if not storage.exists(file):
        if storage.exists(storage.join(folder, SNAPSHOT_FILE)):
            raise UserError(
                f"{folder} holds checkpoints and no {RUN_FILE} with their settings: bring it back, or take "
                "another name"
            )
        begun = {"settings": settings, DATA: data, INDEXES: indexes}
        write_record(folder, begun)
        return begun
    try:
        record: dict[str, Any] = json.loads(storage.read_bytes(file))
    except ValueError as error:
        raise UserError(
            f"{file} was cut off, so the run's settings are lost: take another name, or --overwrite to begin anew"
        ) from error
    other = difference(record["settings"], settings)
    if other is not None:
        raise UserError(
            f"the run {config.name!r} in {folder} was begun with {other}: take another name, or --overwrite to "
            "begin anew"
        )
    # Another index may list the same photos under other data sets, which the fingerprint of the data leaves out.
    moved = record["settings"].get("data", {}).get("index") != settings["data"]["index"]
    if record.get(DATA, data) != data or (moved and record.get(INDEXES) != indexes):
        raise UserError(
            f"the run {config.name!r} in {folder} was begun with other images than there are now: bring those "
            "back, take another name, or --overwrite to begin anew"
        )
    return {**record, INDEXES: indexes}


def difference(begun: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """Return the first setting that differs, as "name = old value, not new value"; None where all are the same."""
    # A setting that did not exist when the run was begun acted as its default does.
    begun = {**result_settings(TrainConfig().model_dump(mode="json")), **begun}
    for key, value in settings.items():
        was = begun[key]
        if was != value and not (key == "data" and _same_data(was) == _same_data(value)):
            return f"{key} = {json.dumps(was)}, not {json.dumps(value)}"
    return None


def _same_data(data: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the data with absolute folders and without the paths of indexes or what was compared.

    An index is compared by the fingerprint of its content; for a folder there are only the names of its files.
    """
    clean = [storage.absolute(folder) for folder in data.get("clean", ())]
    pairs = {
        task: [{**pair, "path": storage.absolute(pair["path"])} for pair in folders]
        for task, folders in data.get("pairs", {}).items()
    }
    return {**data, "index": None, "apart_from": None, "clean": clean, "pairs": pairs}


def write_record(folder: str, record: dict[str, Any]) -> None:
    """Replace the record atomically."""
    storage.write_bytes(storage.join(folder, RUN_FILE), json.dumps(record, indent=1).encode())
