"""The restore that a benchmark and the demo measure, which is that of `diffuir restore`."""

from __future__ import annotations

from pathlib import Path

from ..restore import RestoreOptions, restore
from .benchmark import RestoreFolder


def folder_restorer(options: RestoreOptions) -> RestoreFolder:
    """Return `diffuir restore` with `options` as a function from one folder into another."""

    def run(source: Path, target: Path) -> dict[str, str]:
        # Anew each time: results of an earlier run must not be measured.
        return restore(source, target, options, restart=True).failed

    return run
