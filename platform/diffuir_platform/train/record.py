"""What is known of a run of some name: `run.json` in its folder.

It is written before anything else and refuses to go on with other settings or other data (guarantee 7).
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
"""Of the whole indexes: where one is found under another name, it must be the same."""


def computed_from(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the weights depend on."""
    return {key: value for key, value in settings.items() if key not in OPERATIONAL}


def open_record(config: TrainConfig, folder: str, data: str) -> dict[str, Any]:
    """The record of the run in `folder`; begun where there is none. data: the fingerprint of what it trains on.

    Raises `UserError`, naming the difference, where the run was begun with other settings or data.
    """
    settings = computed_from(config.model_dump(mode="json"))
    indexes = [open_index(uri).fingerprint for uri in config.data.index]
    file = storage.join(folder, RUN_FILE)
    if not storage.exists(file):
        if storage.exists(storage.join(folder, SNAPSHOT_FILE)):
            raise UserError(
                f"{folder} holds checkpoints and no {RUN_FILE}, which says what they are of: bring it back, or "
                "take another name"
            )
        begun = {"settings": settings, DATA: data, INDEXES: indexes}
        write_record(folder, begun)
        return begun
    try:
        record: dict[str, Any] = json.loads(storage.read_bytes(file))
    except ValueError as error:
        raise UserError(
            f"{file} was cut off, which says what the run is of: take another name, or --overwrite to begin anew"
        ) from error
    other = difference(record["settings"], settings)
    if other is not None:
        raise UserError(
            f"the run {config.name!r} in {folder} was begun with {other}: take another name, or --overwrite to "
            "begin anew"
        )
    # An index of other rows may give the same items: the rows say what data set they are of, items do not.
    moved = record["settings"].get("data", {}).get("index") != settings["data"]["index"]
    if record.get(DATA, data) != data or (moved and record.get(INDEXES) != indexes):
        raise UserError(
            f"the run {config.name!r} in {folder} was begun with other images than there are now: bring those "
            "back, take another name, or --overwrite to begin anew"
        )
    return {**record, INDEXES: indexes}


def difference(begun: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """The first setting that a run was not begun with: its name, what it was, and what it is."""
    # A setting that did not exist when the run was begun had its default's effect.
    begun = {**computed_from(TrainConfig().model_dump(mode="json")), **begun}
    for key, value in settings.items():
        was = begun[key]
        if was != value and not (key == "data" and _same_data(was) == _same_data(value)):
            return f"{key} = {json.dumps(was)}, not {json.dumps(value)}"
    return None


def _same_data(data: dict[str, Any]) -> dict[str, Any]:
    """The settings of the data, folders however they are spelled, and wherever the indexes lie.

    An index has a fingerprint of what it holds; of a folder only the names are known.
    """
    clean = [storage.absolute(folder) for folder in data.get("clean", ())]
    pairs = {
        task: [{**pair, "path": storage.absolute(pair["path"])} for pair in folders]
        for task, folders in data.get("pairs", {}).items()
    }
    return {**data, "index": None, "clean": clean, "pairs": pairs}


def write_record(folder: str, record: dict[str, Any]) -> None:
    """Replace the record, all at once."""
    storage.write_bytes(storage.join(folder, RUN_FILE), json.dumps(record, indent=1).encode())
