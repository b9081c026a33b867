"""What Prometheus can read of a restore, through Ray's own metrics on each node.

ray_diffuir_restore_photos{status="done" | "failed"}    photos finished
ray_diffuir_restore_pixels                              pixels restored
ray_diffuir_restore_seconds{stage="read" | "restore" | "write"}   a histogram, of one photo
"""

from __future__ import annotations

from ray.util.metrics import Counter, Histogram

from .ledger import Row

_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


class Metrics:
    """Of one run, in the process that drives it; Ray must run."""

    def __init__(self) -> None:
        self._photos = Counter("diffuir_restore_photos", "Photos finished.", ("status",))
        self._pixels = Counter("diffuir_restore_pixels", "Pixels restored.")
        self._seconds = Histogram("diffuir_restore_seconds", "Of one photo in a stage.", _SECONDS, ("stage",))

    def count(self, row: Row) -> None:
        """Count a finished photo."""
        self._photos.inc(1, {"status": row.status})
        if row.status == "done" and row.width and row.height:
            self._pixels.inc(row.width * row.height)
            self._seconds.observe(row.seconds_read, {"stage": "read"})
            self._seconds.observe(row.seconds_restore, {"stage": "restore"})
            self._seconds.observe(row.seconds_write, {"stage": "write"})
