"""Metrics of a restore for Prometheus, exported through Ray's metrics endpoint on each node.

ray_diffuir_restore_photos{status="done" | "failed"}             photos finished
ray_diffuir_restore_pixels                                       pixels restored
ray_diffuir_restore_seconds{stage="read" | "restore" | "write"}  time spent on done photos in each stage, seconds
"""

from __future__ import annotations

import time
from collections import Counter as Tally

from .ledger import LedgerRow

SECONDS_BETWEEN_RECORDS = 1.0
"""Time between two updates of Ray's counters, seconds: one update takes Ray ten microseconds, too long to make for
each tiny photo."""


class Metrics:
    """Counters of one run, in its driver; Ray must be running."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        self._counters = {
            "photos": Counter("diffuir_restore_photos", "Photos finished.", ("status",)),
            "pixels": Counter("diffuir_restore_pixels", "Pixels restored."),
            "seconds": Counter("diffuir_restore_seconds", "Seconds spent on photos, by stage.", ("stage",)),
        }
        self._pending: Tally[tuple[str, str, str]] = Tally()
        self._recorded = time.monotonic()

    def count(self, row: LedgerRow) -> None:
        """Count a finished photo."""
        self._pending["photos", "status", row.status] += 1
        if row.status == "done":
            self._pending["pixels", "", ""] += (row.width or 0) * (row.height or 0)
            for stage in ("read", "restore", "write"):
                self._pending["seconds", "stage", stage] += getattr(row, f"seconds_{stage}")
        if time.monotonic() - self._recorded > SECONDS_BETWEEN_RECORDS:
            self.record()

    def record(self) -> None:
        """Add the counts since the last call to Ray's counters; to be called at the end too."""
        for (name, tag, value), amount in self._pending.items():
            if amount:
                self._counters[name].inc(amount, {tag: value} if tag else {})
        self._pending.clear()
        self._recorded = time.monotonic()
