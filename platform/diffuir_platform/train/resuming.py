"""The checkpoints that a run can go on from, made ready before Ray Train starts.

Ray Train resumes from the newest checkpoint of its list, a snapshot in the run's folder. A list that is lost, or
that names a checkpoint which is gone or damaged, would end the run for good, although the folders beside it hold
all that is needed: here such a list is written anew.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from diffuir_core import UserError

from .. import storage
from .checkpoints import SNAPSHOT_FILE, WEIGHTS_FILE, found_checkpoints
from .state import STATE_FILE


@dataclass(frozen=True)
class Listed:
    """An entry of Ray Train's list."""

    name: str
    """Name of the checkpoint's folder."""
    age: int
    """Number of its report; the newest has the largest."""
    metrics: dict[str, Any]


def prepare_checkpoints(folder: str) -> list[str]:
    """Make Ray Train's list in a run's folder name only checkpoints that are there, the newest one undamaged.

    Half uploaded checkpoints, and those that a killed driver had not deleted yet, are removed; nothing else is.
    Returns what was wrong, a phrase each. Raises `UserError` where the run has checkpoints and none can be loaded.
    """
    found = found_checkpoints(folder)
    listed, wrong = _listed(folder)
    if not listed and found and not wrong:
        wrong.append(f"{SNAPSHOT_FILE} names no checkpoint")
    wrong += [f"{entry.name} is gone" for entry in listed if entry.name not in found]
    left = _without_damaged(folder, [entry for entry in listed if entry.name in found], found, wrong)
    damaged = {entry.name for entry in listed if entry not in left}
    if not left:
        # What the list does not name is as good: a list was lost, or somebody has brought a checkpoint back.
        others = sorted(found.keys() - damaged)
        left = _without_damaged(
            folder, [Listed(name, age, {}) for age, name in enumerate(others)], found, wrong
        )
        damaged |= set(others) - {entry.name for entry in left}
    if listed and not left:
        raise UserError(
            f"no checkpoint in {folder} can be loaded ({'; '.join(wrong)}): bring one back, take another name, or "
            "--overwrite to begin anew"
        )
    if left != listed:
        _write_list(folder, left)
    if listed:
        for name in sorted(found.keys() - {entry.name for entry in left} - damaged):
            storage.remove_folder(storage.join(folder, name))
    return wrong


def _without_damaged(
    folder: str, entries: Sequence[Listed], found: Mapping[str, Mapping[str, int]], wrong: list[str]
) -> list[Listed]:
    """Return `entries` in their order without the newest ones, up to the first that can be loaded.

    found: the files of each checkpoint. wrong: what is wrong with those left out is added.
    """
    left = list(entries)
    while left:
        newest = max(left, key=lambda entry: entry.age)
        reason = _damage(storage.join(folder, newest.name), found[newest.name])
        if reason is None:
            break
        wrong.append(f"{newest.name} {reason}")
        left.remove(newest)
    return left


def _listed(folder: str) -> tuple[list[Listed], list[str]]:
    """Return Ray Train's list in its order, by score where there is one, and what is wrong with it."""
    file = storage.join(folder, SNAPSHOT_FILE)
    if not storage.exists(file):
        return [], []
    try:
        snapshot = json.loads(storage.read_bytes(file))
        ages, results = snapshot["checkpoint_report_indices"], snapshot["checkpoint_results"]
        entries = [
            Listed(str(result["checkpoint_dir_name"]), int(age), dict(result["metrics"]))
            for age, result in zip(ages, results, strict=True)
        ]
        return entries, []
    except (ValueError, KeyError, TypeError):
        return [], [f"{SNAPSHOT_FILE} was cut off or is of another form"]


def _damage(checkpoint: str, files: Mapping[str, int]) -> str | None:
    """Say what is wrong with a checkpoint's folder; None where it can be loaded."""
    if not files:
        return "is gone"
    for name in (STATE_FILE, WEIGHTS_FILE):
        if name not in files:
            return f"has no {name}"
    state = storage.join(checkpoint, STATE_FILE)
    try:
        # torch.save writes a zip, with a checksum for every tensor.
        with storage.open_file(state) as file, zipfile.ZipFile(file) as opened:
            return None if opened.testzip() is None else f"has a damaged {STATE_FILE}"
    except (
        zipfile.BadZipFile,
        ValueError,
    ):  # ValueError: a file in a store that is shorter than a zip can be
        return f"has a damaged {STATE_FILE}"


def _write_list(folder: str, entries: Sequence[Listed]) -> None:
    """Write Ray Train's list; without any entry, remove it."""
    file = storage.join(folder, SNAPSHOT_FILE)
    if not entries:
        storage.remove_file(file)
        return
    results = [{"checkpoint_dir_name": entry.name, "metrics": entry.metrics} for entry in entries]
    newest = max(range(len(entries)), key=lambda place: entries[place].age)
    snapshot = {
        "ray_version": ray.__version__,
        "checkpoint_results": results,
        "checkpoint_report_indices": [entry.age for entry in entries],
        "latest_checkpoint_result": results[newest],
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": entries[newest].age + 1,
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
    storage.write_bytes(file, json.dumps(snapshot).encode())
