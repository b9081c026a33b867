"""The commands `diffuir evaluate`, `diffuir demo` and `diffuir fit-niqe`."""

from __future__ import annotations

from rich.console import Console

from diffuir_core.metrics import DEFAULT_PROTOCOL

from ..command_line import SettingsCommand
from ..restore.inputs import check_output
from ..text import counted
from .benchmark import evaluate
from .demo import demo
from .folder_restorer import folder_restorer
from .pristine import fit_pristine
from .report import Settings, by_note, terminal_table, write_report
from .settings import DemoSettings, EvaluateSettings, FitNiqeSettings


def run_evaluate(settings: EvaluateSettings) -> int:
    """Restore test pairs and print PSNR and SSIM before and after, per set.

    Exit code 1: some pairs could not be measured and are named.
    """
    out = settings.out
    if out is not None:
        check_output(out)
    recorded = Settings(
        restorer=settings.restorer,
        weights=settings.weights or ("shipped" if settings.restorer is None else "none"),
        steps=settings.steps,
        seed=settings.seed,
        precision=settings.precision,
        guard=settings.guard,
        protocol=settings.protocol,
    )
    report = evaluate(settings.pairs, folder_restorer(settings.restore_options()), recorded, out)
    console = Console(soft_wrap=True)
    if report.images:
        console.print(terminal_table(report.sets(), title=report.caption()))
    if report.failed:
        console.print(f"not measured: {len(report.failed)}")
        for name, reason in report.failed.items():
            console.print(f"  {name}: {reason}", markup=False, highlight=False)
    for note, names in by_note(report.notes).items():
        console.print(
            f"{counted(len(names), 'pair')}, first {names[0]}: {note}", markup=False, highlight=False
        )
    if out is not None:
        write_report(report, out)
        console.print(
            f"written: {out / 'table.md'} and {out / 'results.json'}", markup=False, highlight=False
        )
    return 1 if report.failed else 0


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


evaluate_command = SettingsCommand(run_evaluate, EvaluateSettings, arguments={"pairs": "PAIRS"})
demo_command = SettingsCommand(run_demo, DemoSettings)
fit_niqe_command = SettingsCommand(
    run_fit_niqe, FitNiqeSettings, arguments={"photos": "FOLDER", "out": "OUT"}
)
