"""What came of a run."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

NAMED_AT_MOST = 1000
"""Failures and notes kept by name, so that a summary does not grow with the number of photos."""


@dataclass(frozen=True)
class Status:
    """What came of one photo."""

    key: str
    failed: bool
    reason: str
    """Why it failed, one sentence; empty where it did not."""
    notes: str
    """What could not be kept of what the photo carried, and whether it was restored in tiles; empty where there is
    nothing to say."""
    precision: str | None
    """Of the model's arithmetic; None where the photo did not get that far."""
    seconds: float
    """Time spent on it: reading, its share of its batch in the model, and writing."""


@dataclass
class Summary:
    """Counts and reasons of one run, built up from its statuses."""

    target: str
    ignored: int = 0
    done: int = 0
    failures: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Key to reason, the first NAMED_AT_MOST of them."""
    noted: dict[str, str] = field(default_factory=dict)
    """Key to note, the first NAMED_AT_MOST of them."""
    precisions: set[str] = field(default_factory=set)
    """What the models ran in, one and the same unless machines differ."""
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def add(self, status: Status) -> None:
        """Count one photo."""
        if status.failed:
            self.fail(status.key, status.reason)
        else:
            self.done += 1
        if status.precision is not None:
            self.precisions.add(status.precision)
        if status.notes and len(self.noted) < NAMED_AT_MOST:
            self.noted[status.key] = status.notes

    def fail(self, key: str, reason: str) -> None:
        """Count one failure."""
        self.failures += 1
        if len(self.failed) < NAMED_AT_MOST:
            self.failed[key] = reason

    def finish(self) -> None:
        """Stop the clock."""
        self.seconds = time.monotonic() - self.started

    @property
    def exit_code(self) -> int:
        """0: all done; 1: some failed."""
        return 1 if self.failures else 0

    def lines(self) -> list[str]:
        """The summary as a person reads it, a line each."""
        total = self.done + self.failures
        rate = f", {self.done / self.seconds:.2f} images/s" if self.done and self.seconds else ""
        how = f", {' and '.join(sorted(self.precisions))}" if self.precisions else ""
        lines = [
            f"restored {self.done} of {_photos(total)} into {self.target} ({self.seconds:.1f} s{rate}{how})"
        ]
        if self.ignored:
            lines.append(
                f"ignored {self.ignored} other files (other endings, hidden, or links out of the folder)"
            )
        lines += [f"note: {printable(key)}: {note}" for key, note in self.noted.items()]
        if self.failures:
            lines.append(f"failed: {self.failures}")
            lines += [f"  {printable(key)}: {reason}" for key, reason in self.failed.items()]
            if self.failures > len(self.failed):
                lines.append(f"  and {self.failures - len(self.failed)} more")
        return lines


def printable(key: str) -> str:
    """A key as one line of valid text: names on disk may hold line breaks and bytes that are no text."""
    text = os.fsencode(key).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _photos(count: int) -> str:
    return f"{count:,} photo" if count == 1 else f"{count:,} photos"
