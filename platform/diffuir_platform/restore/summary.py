"""The summary of a run: counts, failures and notes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..text import counted, one_line
from .names import from_text
from .stages import Photo

if TYPE_CHECKING:
    from .ledger import LedgerRow

NAMED_AT_MOST = 1000
"""Most failures, and most notes, that are kept by name, so that a summary stays small."""
KINDS_SHOWN = 8
"""Most kinds of ignored files that are shown, the most frequent ones."""


@dataclass
class Summary:
    """Counts, failures and notes of one run, updated as its photos finish."""

    target: str
    """OUT, as the user named it."""
    ignored_kinds: Counter[str] = field(default_factory=Counter)
    """Other files of IN that are not inputs, by kind."""
    done: int = 0
    """Photos restored by this run."""
    skipped: int = 0
    """Photos that an earlier run had done."""
    failures: int = 0
    """Photos that failed in this run or in an earlier one."""
    failed_before: int = 0
    """Photos among `failures` that failed in an earlier run and were not retried."""
    failed: dict[str, str] = field(default_factory=dict)
    """Key -> reason, of the first NAMED_AT_MOST failures."""
    noted: dict[str, str] = field(default_factory=dict)
    """Key -> notes, of the first NAMED_AT_MOST photos that have any."""
    remarks: list[str] = field(default_factory=list)
    """Remarks on the run as a whole, for a person."""
    precisions: set[str] = field(default_factory=set)
    """Precisions that the models ran in: one, unless machines differ."""
    pixels: int = 0
    """Pixels restored."""
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def add(self, row: LedgerRow) -> None:
        """Count a photo that this run finished."""
        pixels = (row.width or 0) * (row.height or 0)
        self._count(from_text(row.key), row.reason, row.notes, row.precision, pixels)

    def add_photo(self, photo: Photo) -> None:
        """Count a photo that has no row of a ledger."""
        pixels = (photo.width or 0) * (photo.height or 0)
        self._count(photo.item.key, photo.reason, photo.notes, photo.precision, pixels)

    def skip(self, row: LedgerRow) -> None:
        """Count a photo that an earlier run finished."""
        if row.status == "done":
            self.skipped += 1
        else:
            self.failed_before += 1
            self._fail(from_text(row.key), str(row.reason))

    def note(self, key: str, text: str) -> None:
        """Keep a note, unless there are too many."""
        if len(self.noted) < NAMED_AT_MOST:
            self.noted[key] = text

    def finish(self) -> None:
        """Stop the clock."""
        self.seconds = time.monotonic() - self.started

    @property
    def ignored(self) -> int:
        """Other files of IN that are not inputs."""
        return self.ignored_kinds.total()

    @property
    def finished(self) -> int:
        """Photos that are done, skipped or failed."""
        return self.done + self.skipped + self.failures

    @property
    def exit_code(self) -> int:
        """0 where all photos are done, 1 where some failed."""
        return 1 if self.failures else 0

    def lines(self) -> list[str]:
        """Return the summary as lines for a person."""
        rate = f", {self.done / self.seconds:.2f} images/s" if self.done and self.seconds else ""
        how = f", {' and '.join(sorted(self.precisions))}" if self.precisions else ""
        total = counted(self.finished - self.skipped, "photo")
        lines = [f"restored {self.done} of {total} into {self.target} ({self.seconds:.1f} s{rate}{how})"]
        if self.skipped:
            lines.append(f"skipped {counted(self.skipped, 'photo')} that an earlier run had done")
        if self.ignored:
            lines.append(f"ignored {counted(self.ignored, 'other file')}: {self._kinds()}")
        lines += [f"note: {remark}" for remark in self.remarks]
        lines += [f"note: {one_line(key)}: {note}" for key, note in self.noted.items()]
        if self.failures:
            before = f", {self.failed_before} of them in an earlier run" if self.failed_before else ""
            lines.append(f"failed: {self.failures}{before}")
            lines += [f"  {one_line(key)}: {reason}" for key, reason in self.failed.items()]
            if self.failures > len(self.failed):
                lines.append(f"  and {self.failures - len(self.failed)} more")
            if self.failed_before:
                lines.append("--retry-failed tries them again")
        return lines

    def _kinds(self) -> str:
        """The kinds of ignored files, the most frequent first."""
        shown = sorted(self.ignored_kinds.items(), key=lambda kind: (-kind[1], kind[0]))[:KINDS_SHOWN]
        rest = self.ignored - sum(number for _, number in shown)
        if rest:
            shown.append(("more", rest))
        return ", ".join(f"{number:,} {one_line(kind)}" for kind, number in shown)

    def _count(
        self, key: str, reason: str | None, notes: str | None, precision: str | None, pixels: int
    ) -> None:
        if reason is not None:
            self._fail(key, reason)
        else:
            self.done += 1
            self.pixels += pixels
        if precision is not None:
            self.precisions.add(precision)
        if notes:
            self.note(key, notes)

    def _fail(self, key: str, reason: str) -> None:
        self.failures += 1
        if len(self.failed) < NAMED_AT_MOST:
            self.failed[key] = reason
