"""The command `diffuir restore`: restoring, and what it does instead with --verify, --plan and --explain."""

from __future__ import annotations

import sys

from pydantic import Field

from diffuir_core.errors import UserError

from ..command_line import SettingsCommand
from ..config import Config
from ..inference import SETTINGS_OF_DIFFUIR
from .settings import RestoreJob, RestoreOptions

LINE = 10_000
"""Width of a table whose lines must not be wrapped, columns."""
_OF_COLLECTIONS = (
    *("include", "exclude", "column", "restart", "retry_failed"),
    *("batch_size", "models", "gpu_share"),
)
"""Settings without effect on one photo, which is restored alone, in the process of the command, with no ledger."""


class RestoreModes(Config):
    """Things that `diffuir restore` does instead of restoring."""

    verify: bool = False
    """Compare the results in OUT with its ledger, and do nothing else."""
    plan: bool = False
    """Restore a sample, write nothing, and estimate time and cost of the whole."""
    nodes: int = Field(default=1, ge=1)
    """Nodes that --plan reckons with."""
    price: float = Field(default=0.0, ge=0)
    """Price of a node that --plan reckons with, for one hour."""
    explain: bool = False
    """Say what would be done to each photo, and do nothing."""


def _restore(job: RestoreJob, modes: RestoreModes) -> int:
    """Restore a photo, or all photos of a collection, under the same relative paths.

    The same command again restores what is missing: OUT/_diffuir holds a ledger with a row for each photo.
    """
    from .refusals import check_places

    check_places(job.source, job.target)
    check_options(job, modes)
    if modes.plan:
        return run_plan(job.source, job.target, job, modes.nodes, modes.price)
    if modes.verify:
        return run_verify(job.target)
    if modes.explain:
        return run_explain(job.source, job.target, job)
    from ..runtime import cluster_address, takes_jobs

    address = cluster_address(job.address)
    if address is not None and takes_jobs(address):
        from .job import submit_restore

        return submit_restore(job, address)
    return run_restore(job)


restore_command = SettingsCommand(
    _restore, RestoreJob, arguments={"source": "IN", "target": "OUT"}, modes=RestoreModes
)


def check_options(job: RestoreJob, modes: RestoreModes) -> None:
    """Raise `UserError` for options of the command that contradict each other or would have no effect."""
    from .refusals import TABLE_SUFFIX, is_single_photo

    chosen = [name for name in ("verify", "plan", "explain") if getattr(modes, name)]
    if len(chosen) > 1:
        raise UserError(f"--{chosen[0]} and --{chosen[1]} are two different things to do: give one of them")
    for name in ("nodes", "price"):
        if name in modes.model_fields_set and not modes.plan:
            raise UserError(f"--{name} belongs to --plan: add --plan, or leave it out")
    if job.restart and job.retry_failed:
        raise UserError(
            "--restart forgets what failed before, which --retry-failed asks for: give one of them"
        )
    for name in ("restart", "retry_failed", "overwrite"):
        if chosen and getattr(job, name):
            raise UserError(
                f"--{chosen[0]} restores nothing, so --{_dashed(name)} has no effect: leave it out"
            )
    if _is_set(job, "column") and not job.source.lower().endswith(TABLE_SUFFIX):
        raise UserError(f"--column names a column of a {TABLE_SUFFIX} list, which IN is not: leave it out")
    for name in SETTINGS_OF_DIFFUIR:
        if job.restorer is not None and _is_set(job, name):
            raise UserError(f"--{name} has no effect on the restorer {job.restorer}: leave it out")
    without_effect = [name for name in _OF_COLLECTIONS if _is_set(job, name)]
    if without_effect and is_single_photo(job.source):
        name = without_effect[0]
        raise UserError(f"IN is one photo, on which --{_dashed(name)} has no effect: leave it out")


def _is_set(job: RestoreJob, name: str) -> bool:
    return getattr(job, name) != type(job).model_fields[name].default


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def run_restore(job: RestoreJob) -> int:
    """Restore, print the summary, and return the exit code."""
    from .run import restore

    summary = restore(
        job.source,
        job.target,
        job,
        restart=job.restart,
        retry_failed=job.retry_failed,
        progress_file=job.progress_file,
    )
    print("\n".join(summary.lines()))
    return summary.exit_code


def run_plan(source: str, target: str, options: RestoreOptions, nodes: int, price: float) -> int:
    """Print an estimate for the collection, and return the exit code."""
    from .estimate import estimate

    print("\n".join(estimate(source, target, options, nodes, price).lines()))
    return 0


def run_verify(target: str) -> int:
    """Compare an output with its ledger, print the differences, and return the exit code: 1 if there are any."""
    from .verify import verify

    found = verify(target)
    print("\n".join(found.lines()))
    return 1 if found.bad else 0


def run_explain(source: str, target: str, options: RestoreOptions) -> int:
    """Print what would be done, and return the exit code that a restore is expected to have, from the headers."""
    from rich.console import Console

    from .explain import SHOWN_AT_MOST, explain, explanation_table

    restorer, photos, is_more = explain(source, target, options)
    explanations = list(photos)
    print(
        f"DiffUIR-{restorer.variant.name}, {restorer.steps} steps, {restorer.precision} on {restorer.device}; "
        "nothing is written"
    )
    # A file or a pipe has no width: one line for each photo.
    console = Console() if sys.stdout.isatty() else Console(width=LINE)
    console.print(explanation_table(explanations))
    if is_more:
        print(f"and more: these are the first {SHOWN_AT_MOST}")
    return 1 if any(explanation.reason for explanation in explanations) else 0
