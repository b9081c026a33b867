"""What `diffuir restore` prints, with and without `--explain`."""

from __future__ import annotations

import sys

from rich.console import Console

from .job import restore
from .settings import RestoreOptions

LINE = 10_000
"""Columns of a line that nothing limits."""


def run_restore(source: str, target: str, options: RestoreOptions) -> int:
    """Restore, print the summary, and return the exit code."""
    summary = restore(source, target, options)
    print("\n".join(summary.lines()))
    return summary.exit_code


def run_explain(source: str, target: str, options: RestoreOptions) -> int:
    """Print what would be done, and return the exit code that the headers let expect."""
    from .explain import SHOWN_AT_MOST, explain, explanation_table

    restorer, photos, total = explain(source, target, options)
    explanations = list(photos)
    print(
        f"DiffUIR-{restorer.variant.name}, {restorer.steps} steps, {restorer.precision} on {restorer.device}; "
        "nothing is written"
    )
    # A file or a pipe has no width to fit into: one line for each photo.
    console = Console() if sys.stdout.isatty() else Console(width=LINE)
    console.print(explanation_table(explanations))
    if total > SHOWN_AT_MOST:
        print(f"and {total - SHOWN_AT_MOST:,} more")
    return 1 if any(explanation.reason for explanation in explanations) else 0
