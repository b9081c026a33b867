"""What `diffuir restore` prints, with and without `--explain`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from diffuir_core.errors import UserError

from ..config import load_config
from .job import RestoreJob
from .run import restore
from .settings import RestoreOptions

LINE = 10_000
"""Columns of a line that nothing limits."""


def run_restore(
    source: str, target: str, options: RestoreOptions, restart: bool = False, retry_failed: bool = False
) -> int:
    """Restore, print the summary, and return the exit code."""
    summary = restore(source, target, options, restart=restart, retry_failed=retry_failed)
    print("\n".join(summary.lines()))
    return summary.exit_code


def run_job(arguments: Sequence[str]) -> int:
    """Restore as a YAML file and `key=value` say, as `jobs/restore.py` takes them; returns the exit code."""
    if not arguments:
        raise UserError("no settings are named: give a YAML file such as jobs/restore.yaml, and key=value")
    job = load_config(RestoreJob, arguments[0], arguments[1:])
    return run_restore(job.source, job.target, job, job.restart, job.retry_failed)


def run_plan(source: str, target: str, options: RestoreOptions, nodes: int, price: float) -> int:
    """Print what the collection would take, and return the exit code."""
    from .estimate import estimate

    print("\n".join(estimate(source, target, options, nodes, price).lines()))
    return 0


def run_verify(target: str) -> int:
    """Compare an output with its ledger, print what was found, and return the exit code: 1 where they differ."""
    from .verify import verify

    found = verify(target)
    print("\n".join(found.lines()))
    return 1 if found.bad else 0


def run_explain(source: str, target: str, options: RestoreOptions) -> int:
    """Print what would be done, and return the exit code that the headers let expect."""
    from .explain import SHOWN_AT_MOST, explain, explanation_table

    restorer, photos, is_more = explain(source, target, options)
    explanations = list(photos)
    print(
        f"DiffUIR-{restorer.variant.name}, {restorer.steps} steps, {restorer.precision} on {restorer.device}; "
        "nothing is written"
    )
    # A file or a pipe has no width to fit into: one line for each photo.
    console = Console() if sys.stdout.isatty() else Console(width=LINE)
    console.print(explanation_table(explanations))
    if is_more:
        print(f"and more: these are the first {SHOWN_AT_MOST}")
    return 1 if any(explanation.reason for explanation in explanations) else 0
