"""Checkpoints on their way into the storage and out of it, without a trace of those that did not arrive."""

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
"""The averaged weights in a checkpoint, and what is exported."""

SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"
"""Ray Train's list of the checkpoints that are whole and kept."""
CHECKPOINT_PREFIX = "checkpoint_"
"""Of the folders that Ray Train makes beside it."""

_SCRATCH = "diffuir-checkpoint-"


def scratch_folder() -> Path:
    """A new folder on this machine that says which process it belongs to."""
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))


def remove_scratch_left_behind() -> None:
    """Remove those of killed processes of this machine: each is as large as a checkpoint."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        owner = re.match(rf"{_SCRATCH}(\d+)-", folder.name)
        if owner and not psutil.pid_exists(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def file_of(checkpoint: ray.train.Checkpoint, name: str) -> Iterator[Path]:
    """The local path of one file of a checkpoint: whoever validates has no use for the optimiser's state."""
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
    """Remove the checkpoints in a run's folder that Ray Train does not know of, before it goes on with the run.

    They are what a killed worker had half uploaded, and what a killed driver had not yet deleted. Raises
    `UserError` where a checkpoint that it does know of is gone.
    """
    found = {
        parts[0]
        for uri, _ in storage.list_files(folder)
        for parts in [uri.removeprefix(f"{folder}/").split("/")]
        if len(parts) > 1 and parts[0].startswith(CHECKPOINT_PREFIX)
    }
    kept = _known(folder)
    gone = sorted(kept - found)
    if gone:
        raise UserError(
            f"{storage.join(folder, gone[0])} is gone, which the run goes on from: bring it back, take another "
            "name, or --overwrite to begin anew"
        )
    for name in sorted(found - kept):
        storage.remove_folder(storage.join(folder, name))


def _known(folder: str) -> set[str]:
    file = storage.join(folder, SNAPSHOT_FILE)
    if not storage.exists(file):
        return set()
    try:
        results = json.loads(storage.read_bytes(file))["checkpoint_results"]
    except ValueError as error:
        raise UserError(
            f"{file} was cut off, the list of checkpoints: take another name, or --overwrite to begin anew"
        ) from error
    return {result["checkpoint_dir_name"] for result in results}
