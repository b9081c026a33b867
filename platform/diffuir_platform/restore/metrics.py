"""What Prometheus can read of a restore, through Ray's own metrics on each node.

ray_diffuir_restore_photos{status="done" | "failed"}            photos finished
ray_diffuir_restore_pixels                                      pixels restored
ray_diffuir_restore_seconds{stage="read" | "restore" | "write"} spent on them; by the photos done, their mean
"""

from __future__ import annotations

import time
from collections import Counter as Counted

from ray.util.metrics import Counter

from .ledger import Row

SECONDS_BETWEEN_RECORDS = 1.0
"""Ray takes ten microseconds for a value, which is as long as a tiny photo takes elsewhere in the driver."""


class Metrics:
    """Of one run, in the process that drives it; Ray must run."""

    def __init__(self) -> None:
        self._counters = {
            "photos": Counter("diffuir_restore_photos", "Photos finished.", ("status",)),
            "pixels": Counter("diffuir_restore_pixels", "Pixels restored."),
            "seconds": Counter("diffuir_restore_seconds", "Spent on photos, in a stage.", ("stage",)),
        }
        self._waiting: Counted[tuple[str, str, str]] = Counted()
        self._recorded = time.monotonic()

    def count(self, row: Row) -> None:
        """Count a finished photo."""
        self._waiting["photos", "status", row.status] += 1
        if row.status == "done":
            self._waiting["pixels", "", ""] += (row.width or 0) * (row.height or 0)
            for stage in ("read", "restore", "write"):
                self._waiting["seconds", "stage", stage] += getattr(row, f"seconds_{stage}")
        if time.monotonic() - self._recorded > SECONDS_BETWEEN_RECORDS:
            self.record()

    def record(self) -> None:
        """Hand on what was counted; call it at the end too."""
        for (name, tag, value), amount in self._waiting.items():
            if amount:
                self._counters[name].inc(amount, {tag: value} if tag else {})
        self._waiting.clear()
        self._recorded = time.monotonic()
