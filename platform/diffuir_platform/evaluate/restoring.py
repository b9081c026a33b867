"""The restore that a benchmark and the demo measure: the one behind `diffuir restore`."""

from __future__ import annotations

from pathlib import Path

from ..restore import RestoreOptions, restore
from .benchmark import RestoreFolder


def restorer(options: RestoreOptions) -> RestoreFolder:
    """`diffuir restore` with `options`, as a function of two folders that returns {relative path: reason}."""

    def run(source: Path, target: Path) -> dict[str, str]:
        # What is measured is what is restored now, with these settings.
        return restore(source, target, options, restart=True).failed

    return run
