"""What a person sees of a run: a line for each point, on the driver's terminal.

Ray Train calls its callbacks in the controller's process, on the driver's machine; a file hands the points over.
"""

from __future__ import annotations

import json
import math
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.train import UserCallback

from diffuir_core import UserError

from ..storage import LockClaim

SECONDS_BETWEEN_LOOKS = 0.5


class WritePoints(UserCallback):  # type: ignore[misc]
    """Appends every point of the first worker to a file, and what else it says.

    At each it is seen whether the run's folder is still the driver's, by its `claim`.
    """

    def __init__(self, file: Path, claim: LockClaim) -> None:
        self.file = file
        self.claim = claim

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Ray Train calls this with every worker's report; what is raised here ends the run."""
        self.claim.check()
        if metrics[0].keys() & {"loss", "says"}:
            with self.file.open("a") as out:
                out.write(json.dumps(metrics[0]) + "\n")
        if is_lost(metrics[0]):
            raise UserError(
                f"loss or gradient were no finite numbers at step {metrics[0]['step']:,}: take another name and "
                "a lower learning_rate or clip_norm; the checkpoints from before are kept"
            )


def is_lost(metrics: Mapping[str, Any]) -> bool:
    """Whether a point says that the weights hold no numbers any more."""
    return not all(math.isfinite(metrics.get(name, 0.0)) for name in ("loss", "gradient_norm"))


@contextmanager
def printed_points(steps: int) -> Iterator[Path]:
    """A file whose points are printed as they are added to it, for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="diffuir-") as folder:
        file = Path(folder) / "points.jsonl"
        file.touch()
        done = threading.Event()
        thread = threading.Thread(target=_follow, args=(file, steps, done), daemon=True)
        thread.start()
        try:
            yield file
        finally:
            done.set()
            thread.join()


def _follow(file: Path, steps: int, done: threading.Event) -> None:
    first: tuple[float, int] | None = None
    with file.open() as points:
        while True:
            last_look = done.is_set()
            for text in points:
                point = json.loads(text)
                if "says" in point:
                    print(point["says"], flush=True)
                    continue
                for line in point.get("replaced", ()):
                    print(f"another image is taken in place of one that can't be used: {line}", flush=True)
                first = first or (time.monotonic(), point["step"])
                print(progress_line(point, steps, *first), flush=True)
            if last_look:
                return
            done.wait(SECONDS_BETWEEN_LOOKS)


def progress_line(point: dict[str, Any], steps: int, began: float, first_step: int) -> str:
    """One point as a line, with the time left by the pace since `first_step` was reached at `began`."""
    step = point["step"]
    pace = (time.monotonic() - began) / (step - first_step) if step > first_step else 0.0
    left = f"  {pace * (steps - step) / 60:.0f} min left" if pace else ""
    return (
        f"step {step:,}/{steps:,}  loss {point['loss']:.4f}  {point['images_per_second']:.1f} images/s  "
        f"{point['data_wait_share']:.0%} waiting for data{left}"
    )
