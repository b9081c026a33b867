"""Progress of a restore of one photo, on stderr: what is being done at once, then the passes of the network."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..text import one_line
from .messages import Passes
from .progress import SECONDS_BETWEEN_LINES

if TYPE_CHECKING:
    import rich.progress

SECONDS_OF_SILENCE = 0.2
"""Time after which it is said what is being done, also where the photo is not read yet, seconds."""


class PhotoProgress:
    """Says what is being done with a photo; a context manager. A photo that is refused at once gets no word.

    name: name of the photo.
    """

    def __init__(self, name: str) -> None:
        self._doing = f"restoring {one_line(name)}"
        self._began = time.monotonic()
        self._next_line = 0.0
        self._passes = Passes(0, 0)
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, report: Passes | None) -> None:
        """Take a report, or note that there is none; to be called often."""
        now = time.monotonic()
        if report is None and not self._next_line and now - self._began < SECONDS_OF_SILENCE:
            return
        self._passes = report or self._passes
        if sys.stderr.isatty():
            self._next_line = now
            self._draw()
        elif now >= self._next_line:
            self._print()
            self._next_line = now + SECONDS_BETWEEN_LINES

    def _print(self) -> None:
        done, total = self._passes.done, self._passes.total
        so_far = f": {done} of {total} passes of the network" if total else " ..."
        print(f"{self._doing}{so_far}", file=sys.stderr, flush=True)

    def _draw(self) -> None:
        if self._bar is None:
            self._bar = _bar()
            self._bar.add_task(self._doing, total=None, of="loading the model")
            self._bar.start()
        done, total = self._passes.done, self._passes.total
        if total:
            of = f"{done} of {total} passes"
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, of=of)


def _bar() -> rich.progress.Progress:
    import rich.console
    import rich.progress

    columns = rich.progress
    return columns.Progress(
        columns.TextColumn("{task.description}", markup=False),
        columns.BarColumn(),
        columns.TextColumn("{task.fields[of]}", markup=False),
        columns.TimeRemainingColumn(),
        console=rich.console.Console(stderr=True),
        transient=True,
    )
