"""The record of a training run: `run.json` in its folder, with the settings and data that it was begun with.

It is written before anything else; a later start of the run compares with it and refuses to resume with other
settings or data (guarantee 7). A restore has a record of its own in the `_diffuir/` of its output:
`restore/record.py`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from diffuir_core import UserError

from .. import storage
from ..data import FileVersions, open_index
from .checkpoints import SNAPSHOT_FILE, found_checkpoints
from .settings import OPERATIONAL, TrainConfig

RUN_FILE = "run.json"
DATA = "data_fingerprint"
FILES = "files"
"""Sizes and versions of the photos' files."""
INITIAL = "init_from"
"""Recipe of the weights that the run was begun with, which are not needed again once there is a checkpoint."""
INDEXES = "index_fingerprints"
"""Fingerprints of whole indexes: an index given under another path must have the same
fingerprint."""


def result_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the weights depend on, without the operational ones."""
    return {key: value for key, value in settings.items() if key not in OPERATIONAL}


def open_record(config: TrainConfig, folder: str, data: str, files: FileVersions) -> dict[str, Any]:
    """Return the record of the run in `folder`, or write a new one.

    data: fingerprint of the training data; files: sizes and versions of its files. A start that made no checkpoint
    leaves the name free, for other settings too. Raises `UserError`, naming the difference, where the run was
    begun with other settings or data, and where the record is missing beside checkpoints or damaged.
    """
    settings = result_settings(config.model_dump(mode="json"))
    indexes = [open_index(uri).fingerprint for uri in config.data.index]
    file = storage.join(folder, RUN_FILE)
    has_checkpoints = bool(found_checkpoints(folder)) or storage.exists(storage.join(folder, SNAPSHOT_FILE))
    if not storage.exists(file) and has_checkpoints:
        raise UserError(
            f"{folder} holds checkpoints and no {RUN_FILE} with their settings: bring it back, or take another "
            "name"
        )
    record = _read(file)
    if not has_checkpoints and (record is None or difference(record["settings"], settings)):
        begun = {"settings": settings, DATA: data, INDEXES: indexes, FILES: asdict(files)}
        write_record(folder, begun)
        return begun
    if record is None:
        raise UserError(
            f"{file} was cut off, so the run's settings are lost: take another name, or --overwrite to begin anew"
        )
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
    known = record.get(FILES)
    if known is not None and known["sizes"] != files.sizes:
        raise UserError(
            f"photos of the run {config.name!r} in {folder} were changed under their names since it was begun: "
            "bring the earlier ones back, take another name, or --overwrite to begin anew"
        )
    if known is not None and known["versions"] != files.versions:
        print(
            "the photos lie elsewhere, or have other times, than when the run was begun, and the same sizes: the "
            "run takes them for copies of the same"
        )
    return {**record, INDEXES: indexes}


def _read(file: str) -> dict[str, Any] | None:
    """Return a record; None for one that is missing or was cut off."""
    if not storage.exists(file):
        return None
    try:
        found = json.loads(storage.read_bytes(file))
    except ValueError:
        return None
    return found if isinstance(found, dict) and "settings" in found else None


def difference(begun: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """Return the first setting that differs, as "name = old value, not new value"; None where all are the same."""
    begun = _with_defaults(begun)
    for key, value in settings.items():
        was = begun[key]
        if was != value and not (key == "data" and _same_data(was) == _same_data(value)):
            return f"{key} = {json.dumps(was)}, not {json.dumps(value)}"
    return None


def _with_defaults(begun: dict[str, Any]) -> dict[str, Any]:
    """Return recorded settings with all that did not exist yet, which acted as its default does."""
    known = {key: value for key, value in begun.items() if key in TrainConfig.model_fields}
    try:
        return result_settings(TrainConfig.model_validate(known).model_dump(mode="json"))
    except ValidationError:  # a nested setting that does not exist any more, or a value that is refused now
        return {**result_settings(TrainConfig().model_dump(mode="json")), **begun}


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
