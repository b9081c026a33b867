"""Progress of a run: on stderr for a person, and in a JSON file for programs."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import TracebackType
from typing import Protocol, Self

import rich.console
import rich.progress

from diffuir_core.errors import UserError

from .. import storage
from ..text import one_line
from .summary import Summary

SECONDS_BETWEEN_LINES = 10.0
"""Interval of the lines where stderr is no terminal."""
SECONDS_BETWEEN_BARS = 0.1
"""Interval at which the bar is drawn where it is one."""
SECONDS_OF_START = 0.5
"""Time after the first finished photo that does not count for the rate: at the start several come at once."""
SECONDS_BETWEEN_WRITES = 2.0
"""Shortest interval between two versions of the progress file."""
SECONDS_FOR_THE_LAST_WRITE = 30.0
"""Longest that a run waits at its end for the last version of the progress file."""
MAX_ERROR = 500
"""Longest error in the progress file, characters."""

logger = logging.getLogger(__name__)


class Listing(Protocol):
    """A listing of inputs that is under way."""

    count: int
    """Inputs found so far."""
    ended: bool
    """Whether there are no more."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of a run at one moment: the content of a progress file."""

    done: int = 0
    """Photos restored by this run."""
    failed: int = 0
    """Photos that failed, in this run or in an earlier one."""
    skipped: int = 0
    """Photos that an earlier run had done."""
    listed: int | None = None
    """Inputs found so far; None where they are not counted."""
    listing_ended: bool = False
    """Whether all inputs are found."""
    images_per_second: float = 0.0
    """Throughput since the first photo was finished."""
    error: str | None = None
    """Why the run could not start or ended early, or why its only photo failed; None otherwise."""


class Progress:
    """Shows a summary on stderr as it grows; a context manager.

    listing: the listing of the run's inputs; None for a run that tries `to_retry` failed ones again. at_work:
    returns what is at work; empty for nothing to be said.
    """

    def __init__(
        self,
        summary: Summary,
        listing: Listing | None,
        to_retry: int = 0,
        at_work: Callable[[], str] = str,
    ) -> None:
        self._at_work = at_work
        self._summary = summary
        self._to_retry = to_retry
        self._listing = listing
        self._first = 0.0
        self._at_start = (0, 0)
        self._rates = (0.0, 0.0)
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

    def announce(self) -> None:
        """Say what is being done, before the first photo is finished."""
        if self._bar is None:
            print(f"restoring into {one_line(self._summary.target)} ...", file=sys.stderr, flush=True)

    def left(self) -> int:
        """Photos that are found and not finished."""
        found = self._to_retry if self._listing is None else self._listing.count
        return found - self._summary.finished

    def counts(self) -> Counts:
        """The counts at this moment; may be called from another thread."""
        return Counts(
            done=self._summary.done,
            failed=self._summary.failures,
            skipped=self._summary.skipped,
            listed=None if self._listing is None else self._listing.count,
            listing_ended=self._listing is None or self._listing.ended,
            images_per_second=round(self._rates[0] or _average_rate(self._summary), 3),
        )

    def update(self) -> None:
        """Show the summary as it is now; called after each photo."""
        now = time.monotonic()
        worked = self._summary.finished - self._summary.skipped - self._summary.failed_before
        self._first = self._first or now
        if now - self._first < SECONDS_OF_START:
            self._at_start = (worked, self._summary.pixels)
        span = now - self._first
        rate, pixel_rate = (
            (value - start) / span if span and value > start else 0.0
            for value, start in zip((worked, self._summary.pixels), self._at_start, strict=True)
        )
        self._rates = (rate, pixel_rate)
        if now < self._next:
            return
        is_all = self._listing is None or self._listing.ended
        at_work = f", {words}" if (words := self._at_work()) else ""
        total = max(0 if self._listing is None else self._listing.count, self._summary.finished)
        if self._bar is not None:
            self._next = now + SECONDS_BETWEEN_BARS
            self._bar.update(
                self._bar.task_ids[0],
                completed=self._summary.finished,
                total=total if is_all else None,
                of=f"of {total:,}" + ("" if is_all else "+"),
                failed=f"{self._summary.failures:,} failed",
                skipped=f"{self._summary.skipped:,} skipped",
                rate=f"{rate:.2f} images/s, {pixel_rate / 1e6:.2f} Mpx/s{at_work}",
            )
        elif not self._next:
            self._next = now + SECONDS_BETWEEN_LINES
        elif not is_all or self._summary.finished < total:
            self._next = now + SECONDS_BETWEEN_LINES
            left = f", about {(total - self._summary.finished) / rate:.0f} s left" if rate and is_all else ""
            print(
                f"{self._summary.finished:,} of {total:,}{'' if is_all else '+'} photos, "
                f"{self._summary.failures:,} failed, {self._summary.skipped:,} skipped, "
                f"{rate:.2f} images/s, {pixel_rate / 1e6:.2f} Mpx/s{at_work}{left}",
                file=sys.stderr,
                flush=True,
            )


class ProgressFile:
    """Keeps a JSON file of a run's `Counts` up to date while the run goes on, and at its end; a context manager.

    uri: where the file goes; None for no file. A thread writes it, so that a store which is slow or away never
    stops or delays the run: what could not be written is a warning in the log. Raises `UserError` for a malformed
    URI.
    """

    def __init__(self, uri: str | None) -> None:
        self._uri = None if uri is None else storage.absolute(uri)
        self._counts: Callable[[], Counts] = Counts
        self._error: str | None = None
        self._written = b""
        self._warned: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_until_end, daemon=True, name="diffuir-progress")

    def follow(self, counts: Callable[[], Counts]) -> None:
        """Write what `counts` returns from now on; it is called from another thread."""
        self._counts = counts

    def fail(self, reason: str) -> None:
        """Write `reason` as the run's error."""
        self._error = one_line(reason)[:MAX_ERROR]

    def __enter__(self) -> Self:
        if self._uri is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, UserError):
            self.fail(str(error))
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self.fail("the run was interrupted: the same command goes on")
        elif error is not None:
            self.fail(f"the run failed with an internal error ({type(error).__name__}): see its log")
        self._ended.set()
        if self._uri is not None:
            self._thread.join(SECONDS_FOR_THE_LAST_WRITE)
            if self._thread.is_alive():
                self._warn(f"the store did not answer within {SECONDS_FOR_THE_LAST_WRITE:g} s")

    def _write_until_end(self) -> None:
        self._write()
        while not self._ended.wait(SECONDS_BETWEEN_WRITES):
            self._write()
        self._write(retries=True)

    def _write(self, retries: bool = False) -> None:
        """Write the file if its content has changed."""
        content = json.dumps(asdict(replace(self._counts(), error=self._error))).encode()
        if content == self._written:
            return
        write = partial(storage.write_bytes, str(self._uri), content)
        try:
            storage.retry(write) if retries else write()
        except Exception as error:  # noqa: BLE001 - whatever a store raises, the run goes on
            self._warn(str(error))
        else:
            self._written = content

    def _warn(self, reason: str) -> None:
        """Log why the file is not up to date, once for each reason in a row."""
        if reason != self._warned:
            self._warned = reason
            logger.warning("the progress file %s is not up to date: %s", self._uri, one_line(reason))


def single_photo_counts(summary: Summary) -> Counts:
    """The counts of a run of one photo, from its summary."""
    return Counts(
        done=summary.done,
        failed=summary.failures,
        listed=1,
        listing_ended=True,
        images_per_second=round(_average_rate(summary), 3),
    )


def _average_rate(summary: Summary) -> float:
    """Photos restored per second since the run began."""
    seconds = summary.seconds or time.monotonic() - summary.started
    return summary.done / seconds if seconds else 0.0


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
