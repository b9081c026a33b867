"""The restore that an evaluation and the demo measure, which is that of `diffuir restore`."""

from __future__ import annotations

from pathlib import Path

from ..restore import RestoreOptions, restore
from .evaluation import RestoreFolder


def folder_restorer(options: RestoreOptions, restart: bool = True) -> RestoreFolder:
    """Return `diffuir restore` with `options` as a function from one folder into another.

    restart: whether it begins anew each time, so that results of an earlier run are not measured.
    """

    def run(source: Path, target: Path) -> dict[str, str]:
        return restore(source, target, options, restart=restart).failed

    return run
