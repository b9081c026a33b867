"""The commands `diffuir evaluate`, `diffuir demo` and `diffuir fit-niqe`."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from diffuir_core.errors import UserError
from diffuir_core.metrics import DEFAULT_PROTOCOL

from ..command_line import SettingsCommand
from ..config import Config
from ..text import counted
from .demo import demo
from .folder_restorer import folder_restorer
from .pristine import fit_pristine
from .report import terminal_table
from .settings import DemoSettings, EvaluateSettings, FitNiqeSettings


class EvaluateModes(Config):
    """Things that `diffuir evaluate` does instead of evaluating."""

    compare: Path | None = None
    """Compare two finished evaluations, A and B, as --compare A B: paired differences, a sign test, and a page
    with the images that differ most, in the folder of --out, or here."""


def run_evaluate(settings: EvaluateSettings, modes: EvaluateModes) -> int:
    """Restore test pairs or benchmarks, and measure them before and after; or compare two evaluations.

    Exit code 1: some images could not be measured and are named.
    """
    if modes.compare is not None:
        return run_compare(modes.compare, settings)
    from ..runtime import cluster_address, takes_jobs

    address = cluster_address(settings.address)
    if address is not None and takes_jobs(address):
        from .job import submit_evaluation

        return submit_evaluation(settings, address)
    from .run import run

    return run(settings)


def run_compare(a: Path, settings: EvaluateSettings) -> int:
    """Print and write the comparison of the evaluations in `a` and in `settings.pairs`."""
    from .compare import compare, write_comparison
    from .run import LINE

    if settings.pairs is None:
        raise UserError("--compare takes the folders of two evaluations: write --compare A B")
    found = compare(a, settings.pairs)
    # A file or a pipe has no width: one line for each row.
    console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=LINE)
    console.print(found.table().terminal())
    for name, reason in found.left_out.items():
        console.print(f"left out: {name}: {reason}", markup=False, highlight=False)
    written = write_comparison(found, settings.out or Path())
    console.print(f"written: {written}", markup=False, highlight=False)
    return 0


def run_demo(settings: DemoSettings) -> int:
    """Degrade bundled photos in five ways, restore them, and write a contact sheet.

    PSNR and SSIM per task are printed.
    """
    made = demo(settings.out, folder_restorer(settings.restore_options()))
    console = Console(soft_wrap=True)
    console.print(terminal_table(made.tasks, first="task", title=f"PSNR (dB) and SSIM by {DEFAULT_PROTOCOL}"))
    console.print(f"contact sheet: {made.sheet}", markup=False, highlight=False)
    return 0


def run_fit_niqe(settings: FitNiqeSettings) -> int:
    """Fit the statistics that NIQE or IL-NIQE compares with to pristine photos.

    The published ones may not be passed on. Exit code 1: some photos could not be used and are named.
    """
    console = Console(soft_wrap=True)
    console.print(
        f"fitting {settings.metric} to the photos of {settings.photos} ...", markup=False, highlight=False
    )
    fitted = fit_pristine(settings.photos, settings.out, settings.metric)
    for path, reason in fitted.failed.items():
        console.print(f"not used: {path}: {reason}", markup=False, highlight=False)
    console.print(
        f"written: {settings.out}, {settings.metric} of {fitted.blocks} sharp blocks of "
        f"{counted(fitted.photos, 'photo')}",
        markup=False,
        highlight=False,
    )
    return 1 if fitted.failed else 0


def _benchmarks() -> str:
    from .benchmarks import BENCHMARKS, GROUPS

    sets = (f"  {one.name}: {one.describe()}" for one in BENCHMARKS)
    groups = (f"  {name}: {', '.join(names)}" for name, names in GROUPS.items() if name != "all")
    return "\n".join(["Benchmarks:\n", *sets, *groups])


evaluate_command = SettingsCommand(
    run_evaluate, EvaluateSettings, arguments={"pairs": "PAIRS"}, modes=EvaluateModes, epilog=_benchmarks
)
demo_command = SettingsCommand(run_demo, DemoSettings)
fit_niqe_command = SettingsCommand(
    run_fit_niqe, FitNiqeSettings, arguments={"photos": "FOLDER", "out": "OUT"}
)
