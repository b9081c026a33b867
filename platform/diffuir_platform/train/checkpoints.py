"""Files of checkpoints: scratch folders on the way to the storage, and removal of incomplete ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow.fs
import ray.train

from diffuir_core import UserError

from .. import storage

WEIGHTS_FILE = "weights.safetensors"
"""Averaged weights, in a checkpoint and as the export of a run."""

SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"
"""Ray Train's list of the complete checkpoints that are kept."""
CHECKPOINT_PREFIX = "checkpoint_"
"""Prefix of the folders that Ray Train makes beside it, one for each checkpoint."""

_SCRATCH = "diffuir-checkpoint-"


def scratch_folder() -> Path:
    """Make a temporary folder on this machine with the id of this process in its name."""
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))


def remove_scratch_left_behind() -> None:
    """Remove the scratch folders of killed processes on this machine; each may hold a whole checkpoint."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        owner = re.match(rf"{_SCRATCH}(\d+)-", folder.name)
        if owner and not psutil.pid_exists(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def file_of(checkpoint: ray.train.Checkpoint, name: str) -> Iterator[Path]:
    """Local path of one file of a checkpoint inside the block; from a store, only this file is downloaded."""
    if isinstance(checkpoint.filesystem, pyarrow.fs.LocalFileSystem):
        yield Path(checkpoint.path) / name
        return
    folder = scratch_folder()
    try:
        pyarrow.fs.copy_files(
            f"{checkpoint.path}/{name}", str(folder / name), source_filesystem=checkpoint.filesystem
        )
        yield folder / name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_strays(folder: str) -> None:
    """Remove the checkpoints in a run's folder that are not in Ray Train's list, before a run is resumed.

    A killed worker leaves half uploaded ones, a killed driver those that it had not yet deleted. Raises
    `UserError` where a checkpoint of the list is missing.
    """
    found = {
        parts[0]
        for uri, _ in storage.list_files(folder)
        for parts in [uri.removeprefix(f"{folder}/").split("/")]
        if len(parts) > 1 and parts[0].startswith(CHECKPOINT_PREFIX)
    }
    kept = _listed_checkpoints(folder)
    gone = sorted(kept - found)
    if gone:
        raise UserError(
            f"{storage.join(folder, gone[0])} is gone, and the run resumes from it: bring it back, take another "
            "name, or --overwrite to begin anew"
        )
    for name in sorted(found - kept):
        storage.remove_folder(storage.join(folder, name))


def _listed_checkpoints(folder: str) -> set[str]:
    file = storage.join(folder, SNAPSHOT_FILE)
    if not storage.exists(file):
        return set()
    try:
        results = json.loads(storage.read_bytes(file))["checkpoint_results"]
    except ValueError as error:
        raise UserError(
            f"{file} was cut off, so the list of checkpoints is lost: take another name, or --overwrite to begin "
            "anew"
        ) from error
    return {result["checkpoint_dir_name"] for result in results}
