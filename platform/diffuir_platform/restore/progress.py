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
SECONDS_BETWEEN_BARS = 0.1
SECONDS_OF_START = 0.5
"""The first photos come all at once, when the machinery stands; they are no part of the rate."""


class Progress:
    """Shows a summary as it grows, on stderr; a context manager."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._first = 0.0
        self._at_start = (0, 0)
        self._next = 0.0
        self._bar = _bar() if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, listed: int | None, is_all: bool) -> None:
        """Show where the summary stands now; call it after each photo.

        listed: how many inputs are known, None where that is not counted; is_all: whether there are no more.
        """
        now = time.monotonic()
        worked = self._summary.finished - self._summary.skipped - self._summary.failed_before
        self._first = self._first or now
        if now - self._first < SECONDS_OF_START:
            self._at_start = (worked, self._summary.pixels)
        if now < self._next:
            return
        span = now - self._first
        rate, pixel_rate = (
            (value - start) / span if span and value > start else 0.0
            for value, start in zip((worked, self._summary.pixels), self._at_start, strict=True)
        )
        total = max(listed or 0, self._summary.finished)
        if self._bar is not None:
            self._next = now + SECONDS_BETWEEN_BARS
            self._bar.update(
                self._bar.task_ids[0],
                completed=self._summary.finished,
                total=total if is_all else None,
                of=f"of {total:,}" + ("" if is_all else "+"),
                failed=f"{self._summary.failures:,} failed",
                skipped=f"{self._summary.skipped:,} skipped",
                rate=f"{rate:.2f} images/s, {pixel_rate / 1e6:.2f} Mpx/s",
            )
        elif not self._next:
            self._next = now + SECONDS_BETWEEN_LINES
        elif not is_all or self._summary.finished < total:
            self._next = now + SECONDS_BETWEEN_LINES
            left = f", about {(total - self._summary.finished) / rate:.0f} s left" if rate and is_all else ""
            print(
                f"{self._summary.finished:,} of {total:,}{'' if is_all else '+'} photos, "
                f"{self._summary.failures:,} failed, {self._summary.skipped:,} skipped, "
                f"{rate:.2f} images/s, {pixel_rate / 1e6:.2f} Mpx/s{left}",
                file=sys.stderr,
                flush=True,
            )


def _bar() -> rich.progress.Progress:
    columns = rich.progress
    bar = columns.Progress(
        columns.TextColumn("restoring"),
        columns.BarColumn(),
        columns.TextColumn(
            "{task.completed:,.0f} {task.fields[of]}, {task.fields[failed]}, {task.fields[skipped]},"
        ),
        columns.TextColumn("{task.fields[rate]}"),
        columns.TimeRemainingColumn(),
        console=rich.console.Console(stderr=True),
        transient=True,
    )
    bar.add_task("restoring", total=None, of="", failed="0 failed", skipped="0 skipped", rate="")
    return bar
