"""Files of checkpoints, and their scratch folders on the way to the storage."""

from __future__ import annotations

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

from .. import storage

WEIGHTS_FILE = "weights.safetensors"
"""Averaged weights, in a checkpoint and as the export of a run."""

SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"
"""Ray Train's list of the complete checkpoints that are kept."""

MEASURED_FILE = "measured.json"
"""Metrics of a sweep's run on the sweep's validation pairs, beside the exported weights."""

OF_RAY_TRAIN = re.compile(r"checkpoint_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.\d{6}")
"""Names of the folders that Ray Train makes, in the order of time; others are not a run's own."""

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


def remove_run(folder: str, record: str) -> None:
    """Remove what a run has left in its folder, its checkpoints first and the file named `record` last.

    Of what somebody else put there, nothing is removed.
    """
    for name in found_checkpoints(folder):
        storage.remove_folder(storage.join(folder, name))
    for name in (SNAPSHOT_FILE, WEIGHTS_FILE, MEASURED_FILE, record):
        storage.remove_file(storage.join(folder, name))


def found_checkpoints(folder: str) -> dict[str, dict[str, int]]:
    """Return Ray Train's folders below a run's: name -> the size of each file in it, bytes."""
    found: dict[str, dict[str, int]] = {}
    # Listing a local folder that does not exist would be an error.
    if not storage.exists(folder):
        return found
    for uri, size in storage.list_files(folder):
        name, _, file = uri.removeprefix(f"{folder}/").partition("/")
        if file and OF_RAY_TRAIN.fullmatch(name):
            found.setdefault(name, {})[file] = size
    return found
