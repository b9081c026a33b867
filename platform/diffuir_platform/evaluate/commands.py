"""What `diffuir evaluate` and `diffuir demo` print."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from rich.console import Console

from diffuir_core.errors import UserError
from diffuir_core.metrics import Channel

from ..restore import RestoreOptions
from ..restore.inputs import prepare_output
from .benchmark import evaluate
from .demo import demo
from .report import Settings, terminal_table, write_report
from .restoring import restorer


def run_evaluate(pairs: Path, options: RestoreOptions, channel: str, out: Path | None) -> int:
    """Measures and prints; returns the exit code: 0, or 1 where pictures could not be measured.

    Raises UserError for an unknown channel, an `out` that can't be written, and as `evaluate` does.
    """
    if channel not in get_args(Channel):
        raise UserError(f"channel is {channel!r}: choose {' or '.join(get_args(Channel))}")
    if out is not None:
        prepare_output(out)
    settings = Settings(
        weights=options.weights or "shipped",
        steps=options.steps,
        seed=options.seed,
        precision=options.precision,
        channel=cast(Channel, channel),
    )
    report = evaluate(pairs, restorer(options), settings, out)
    console = Console(soft_wrap=True)
    if report.images:
        console.print(terminal_table(report.sets(), title=report.caption()))
    if report.failed:
        console.print(f"not measured: {len(report.failed)}")
        for name, reason in report.failed.items():
            console.print(f"  {name}: {reason}", markup=False, highlight=False)
    if out is not None:
        write_report(report, out)
        console.print(
            f"written: {out / 'table.md'} and {out / 'results.json'}", markup=False, highlight=False
        )
    return 1 if report.failed else 0


def run_demo(out: Path, options: RestoreOptions) -> None:
    """Runs the demo and prints PSNR per task, then the path of the contact sheet. Raises as `demo` does."""
    made = demo(out, restorer(options))
    console = Console(soft_wrap=True)
    console.print(terminal_table(made.tasks, first="task", title="PSNR (dB) and SSIM on Y"))
    console.print(f"contact sheet: {made.sheet}", markup=False, highlight=False)
