"""The command `diffuir index`."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..command_line import SettingsCommand
from ..text import one_line
from .building import IndexSummary, build_index
from .layouts import describe_layouts
from .settings import IndexJob, IndexOptions

SECONDS_BETWEEN_LINES = 10.0
"""Pause between two lines of progress, seconds."""


def _index(job: IndexJob) -> int:
    """List a data set, match its pairs, and write an index to train and evaluate with.

    Exit code 1: some files have no match and are named.
    """
    return run_index(job.root, job.out, job)


def _layouts() -> str:
    return f"Layouts, with the paths below ROOT (what pairs have in common is in braces):\n\n{describe_layouts()}"


index_command = SettingsCommand(_index, IndexJob, arguments={"root": "ROOT", "out": "OUT"}, epilog=_layouts)


def run_index(root: str, out: str, options: IndexOptions) -> int:
    """Make the index, print its summary, and return the exit code: 1 where files have no match."""
    summary = build_index(root, out, options, _Progress())
    console = Console(soft_wrap=True)
    console.print(index_table(summary))
    if summary.ignored:
        _print(console, f"{summary.ignored:,} other pictures are none of what the layout looks for")
    for path, reason in summary.mismatches:
        _print(console, f"  {path}: {reason}")
    mismatched = sum(counts.mismatched for counts in summary.splits.values())
    if mismatched:
        _print(console, f"all {mismatched:,} that do not match: {summary.mismatches_uri}")
    _print(console, f"written: {summary.uri}, fingerprint {summary.fingerprint}")
    return 1 if mismatched else 0


def index_table(summary: IndexSummary) -> Table:
    """A table with a row for each split, by task."""
    table = Table()
    for heading in ("task", "data set", "split"):
        table.add_column(heading)
    for heading in ("pairs", "unpaired", "mismatched"):
        table.add_column(heading, justify="right")
    for names, counts in sorted(summary.splits.items()):
        numbers = (counts.pairs, counts.unpaired, counts.mismatched)
        table.add_row(*map(Text, names), *(f"{number:,}" for number in numbers))
    return table


class _Progress:
    """Prints the number of rows on stderr from time to time."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            print(f"{done:,} rows", file=sys.stderr, flush=True)


def _print(console: Console, text: str) -> None:
    console.print(one_line(text), markup=False, highlight=False)
