"""What is known of a run of some name: `run.json` in its folder.

It is written before anything else and refuses to go on with other settings or other data (guarantee 7).
"""

from __future__ import annotations

import json
from typing import Any

from diffuir_core import UserError

from .. import storage
from .settings import OPERATIONAL, TrainConfig

RUN_FILE = "run.json"
DATA = "data_fingerprint"


def computed_from(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the weights depend on."""
    return {key: value for key, value in settings.items() if key not in OPERATIONAL}


def open_record(config: TrainConfig, folder: str, data: str) -> dict[str, Any]:
    """The record of the run in `folder`; begun where there is none. data: the fingerprint of what it trains on.

    Raises `UserError`, naming the difference, where the run was begun with other settings or data.
    """
    settings = computed_from(config.model_dump(mode="json"))
    file = storage.join(folder, RUN_FILE)
    if not storage.exists(file):
        write_record(folder, {"settings": settings, DATA: data})
        return {"settings": settings, DATA: data}
    record: dict[str, Any] = json.loads(storage.read_bytes(file))
    # A setting that did not exist when the run was begun had its default's effect.
    begun = {**computed_from(TrainConfig().model_dump(mode="json")), **record["settings"]}
    for key, value in settings.items():
        was = begun[key]
        if was != value:
            raise UserError(
                f"the run {config.name!r} in {folder} was begun with {key} = {json.dumps(was)}, not "
                f"{json.dumps(value)}: take another name, or --overwrite to begin anew"
            )
    if record.get(DATA, data) != data:
        raise UserError(
            f"the run {config.name!r} in {folder} was begun with other images than there are now: bring those "
            "back, take another name, or --overwrite to begin anew"
        )
    return record


def write_record(folder: str, record: dict[str, Any]) -> None:
    """Replace the record, all at once."""
    storage.write_bytes(storage.join(folder, RUN_FILE), json.dumps(record, indent=1).encode())
