"""A bar where there is a terminal, a plain line now and then where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

import rich.console
import rich.progress

from .summary import Summary

SECONDS_BETWEEN_LINES = 10.0
SECONDS_OF_START = 0.5
"""The first photos come all at once, when the machinery stands; they are no part of the rate."""


class Progress:
    """Shows a summary as it grows, on stderr; a context manager."""

    def __init__(self, summary: Summary, total: int) -> None:
        self._summary = summary
        self._total = total
        self._first = 0.0
        self._at_start = 0
        self._last_line = time.monotonic()
        self._bar = _bar(total) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self) -> None:
        """Show where the summary stands now; call it after each photo."""
        now = time.monotonic()
        finished = self._summary.done + self._summary.failures
        self._first = self._first or now
        if now - self._first < SECONDS_OF_START:
            self._at_start = finished
        rate = (finished - self._at_start) / (now - self._first) if finished > self._at_start else 0.0
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=finished, failed=self._summary.failures, rate=rate
            )
        elif now - self._last_line >= SECONDS_BETWEEN_LINES and finished < self._total:
            self._last_line = now
            left = f", about {(self._total - finished) / rate:.0f} s left" if rate else ""
            print(
                f"{finished} of {self._total} photos, {self._summary.failures} failed, {rate:.2f} images/s{left}",
                file=sys.stderr,
                flush=True,
            )


def _bar(total: int) -> rich.progress.Progress:
    columns = rich.progress
    bar = columns.Progress(
        columns.TextColumn("restoring"),
        columns.BarColumn(),
        columns.MofNCompleteColumn(),
        columns.TextColumn("{task.fields[failed]} failed"),
        columns.TextColumn("{task.fields[rate]:.2f} images/s"),
        columns.TimeRemainingColumn(),
        console=rich.console.Console(stderr=True),
        transient=True,
    )
    bar.add_task("restoring", total=total, failed=0, rate=0.0)
    return bar
