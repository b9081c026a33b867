"""The command `diffuir evaluate`: its sets, the evaluation, and what is printed, written and logged."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from diffuir_core.errors import UserError
from diffuir_core.metrics import DEFAULT_PROTOCOL

from ..data.index import EQUALISE
from ..inference import FetchedWeights, RestorerName, fetch_model
from ..restore.inputs import check_output
from .benchmarks import Benchmark, find_benchmarks
from .evaluation import RestoreFolder, evaluate_sets
from .folder_restorer import folder_restorer
from .measures import Measure, Meter, blind, fidelity
from .report import Report, Settings, terminal_table, write_report
from .sets import Condition, ImageSet, benchmark_sets, pair_sets, photo_sets
from .settings import EvaluateSettings

if TYPE_CHECKING:
    from diffuir_core import Weights

LINE = 200
"""Width of a table whose lines must not be wrapped, columns."""
NAMED_AT_MOST = 100
"""Most failures that are printed."""
FOLDER_STEPS = 3
"""Sampling steps of folders, where none are given."""


def run(settings: EvaluateSettings) -> int:
    """Evaluate, print the report, write and log it where that is asked for, and return the exit code."""
    check(settings)
    if settings.out is not None:
        check_output(settings.out)
    weights = fetch_model(settings.restorer, settings.weights, check=False)
    opened = cache(weights.open)
    meter = Meter(
        niqe=settings.niqe,
        il_niqe=settings.il_niqe,
        lpips_backbone=settings.lpips_backbone,
        lpips_linear=settings.lpips_linear,
    )
    options = settings.restore_options()

    def restore_under(condition: Condition) -> RestoreFolder:
        changes = {"steps": condition.steps, "equalise": condition.equalise}
        return folder_restorer(options.model_copy(update=changes), settings.restart)

    report = evaluate_sets(
        sets_of(settings, opened),
        restore_under,
        _recorded(settings, weights, meter),
        meter,
        out=settings.out,
        source=str((settings.pairs or Path(str(settings.data))).absolute()),
        restart=settings.restart,
    )
    console = Console(soft_wrap=True)
    _print(report, console)
    if settings.out is not None:
        _write(report, settings, opened, console)
    return 1 if report.failed else 0


def check(settings: EvaluateSettings) -> None:
    """Raise `UserError` for settings that contradict each other or lack something."""
    for name, folder in (("PAIRS", settings.pairs), ("--out", settings.out)):
        if str(folder).startswith("s3:"):
            raise UserError(
                f"{name} is a folder of this machine, or one that all nodes share: name one that is"
            )
    if settings.pairs is None and settings.benchmark is None:
        raise UserError("there is nothing to evaluate: give PAIRS, or --benchmark with --data")
    if settings.pairs is not None and (settings.benchmark is not None or settings.data is not None):
        raise UserError(
            "PAIRS is a folder of your own, and --benchmark is looked for in --data: give one of them"
        )
    if settings.benchmark is not None and settings.data is None:
        raise UserError(
            "--benchmark needs --data: name the folder that holds the data sets, or an index of them"
        )
    if settings.benchmark is not None and not settings.truth:
        raise UserError("a benchmark is measured as it is defined: leave out --no-truth")
    if settings.tracking_uri is not None and settings.out is None:
        raise UserError("--tracking-uri logs the files that --out keeps: give --out too")


def sets_of(settings: EvaluateSettings, opened: Callable[[], Weights]) -> list[ImageSet]:
    """Return the sets that the settings name. opened: loads the weights, whose header may have to be read."""
    if settings.benchmark is not None:
        return _benchmarks(settings, find_benchmarks(settings.benchmark), opened)
    assert settings.pairs is not None
    condition = Condition(steps=settings.steps or FOLDER_STEPS, equalise=bool(settings.equalise))
    if not settings.truth:
        return photo_sets(settings.pairs, _without_truth(settings), condition)
    measures = (*fidelity(settings.protocol or DEFAULT_PROTOCOL), *_named(settings))
    return pair_sets(settings.pairs, measures, condition)


def _named(settings: EvaluateSettings) -> tuple[Measure, ...]:
    """Return the measures whose files the settings name."""
    lpips = (Measure("lpips", "vgg"),) if settings.lpips_backbone and settings.lpips_linear else ()
    return (*lpips, *_blind(settings))


def _blind(settings: EvaluateSettings) -> tuple[Measure, ...]:
    niqe = (Measure("niqe", "niqe-matlab"),) if settings.niqe else ()
    il_niqe = (Measure("il-niqe", "il-niqe"),) if settings.il_niqe else ()
    return (*niqe, *il_niqe)


def _without_truth(settings: EvaluateSettings) -> tuple[Measure, ...]:
    return (*_blind(settings), *blind("loe"))


def _benchmarks(
    settings: EvaluateSettings, benchmarks: Sequence[Benchmark], opened: Callable[[], Weights]
) -> list[ImageSet]:
    def condition_of(benchmark: Benchmark) -> Condition:
        equalise = settings.equalise
        if equalise is None and settings.restorer is not None:
            equalise = False
        if equalise is None:
            equalise = benchmark.equalise and expects_equalised(opened(), benchmark.task)
        return Condition.named(settings.steps or benchmark.steps, equalise)

    found = benchmark_sets(benchmarks, str(settings.data), condition_of)
    if settings.protocol is None:
        return found
    return [_by_protocol(one, settings.protocol) for one in found]


def _by_protocol(image_set: ImageSet, protocol: str) -> ImageSet:
    """Return the set with PSNR and SSIM by another protocol, where it has them."""
    others = tuple(m for m in image_set.measures if m.metric not in ("psnr", "ssim"))
    has_fidelity = len(others) < len(image_set.measures)
    return replace(image_set, measures=(*(fidelity(protocol) if has_fidelity else ()), *others))


def expects_equalised(weights: Weights, task: str) -> bool:
    """Whether the network expects photos of a benchmark of low light equalised, which published weights do.

    Weights of ours say in their header which tasks they saw, and which of these equalised; a release says neither.
    """
    if weights.recipe or weights.preprocessing:
        return weights.preprocessing.get(task) == EQUALISE
    return True


def _recorded(settings: EvaluateSettings, weights: FetchedWeights, meter: Meter) -> Settings:
    is_folder_of_pairs = settings.benchmark is None and settings.truth
    return Settings(
        restorer=settings.restorer,
        weights=settings.weights or ("shipped" if settings.restorer is None else "none"),
        steps=settings.steps or (FOLDER_STEPS if settings.benchmark is None else None),
        seed=settings.seed,
        precision=settings.precision,
        guard=settings.guard,
        protocol=settings.protocol or (DEFAULT_PROTOCOL if is_folder_of_pairs else None),
        benchmarks=settings.benchmark,
        weights_sha256=weights.sha256,
        files=meter.hashes(),
        restore={
            **settings.restore_options().result_settings(weights.sha256),
            "steps": settings.steps,
            "equalise": settings.equalise,
        },
    )


def _print(report: Report, console: Console) -> None:
    if report.images:
        console.print(terminal_table(report.sets(), title=report.caption()))
    if (others := report.others()) is not None:
        # A file or a pipe has no width: one line for each row.
        wide = console if sys.stdout.isatty() else Console(width=LINE)
        wide.print(others.terminal())
        if not report.images:
            console.print(report.caption(), markup=False, highlight=False)
    if report.failed:
        console.print(f"not measured: {len(report.failed)}")
        for name, reason in islice(report.failed.items(), NAMED_AT_MOST):
            console.print(f"  {name}: {reason}", markup=False, highlight=False)
        if len(report.failed) > NAMED_AT_MOST:
            console.print(
                f"  and {len(report.failed) - NAMED_AT_MOST} more, which results.json of --out names"
            )
    for line in report.note_lines():
        console.print(line, markup=False, highlight=False)


def _write(
    report: Report, settings: EvaluateSettings, opened: Callable[[], Weights], console: Console
) -> None:
    from .mlflow_run import log_run
    from .overview import write_page
    from .paper_tables import paper_tables, takes_cost

    assert settings.out is not None
    cost, method = None, "this evaluation"
    if settings.restorer is not None:
        method = f"{RestorerName.parse(settings.restorer).title}, this evaluation"
    elif takes_cost(report.measured):
        from diffuir_core.metrics.cost import cost as cost_of

        cost = cost_of(opened().model.variant.name)
        method = f"DiffUIR-{cost.variant}, this evaluation"
    tables = dict(paper_tables(report.measured, method, cost))
    write_report(report, settings.out, tables)
    write_page(report, settings.out, tables.values())
    made = [settings.out / name for name in ("table.md", "results.json", "report.html")]
    console.print(f"written: {', '.join(map(str, made))}", markup=False, highlight=False)
    if settings.tracking_uri is not None:
        tracker = log_run(report, settings.out, settings.tracking_uri, settings.experiment)
        console.print(f"MLflow: {tracker.address} run {tracker.run_id}", markup=False, highlight=False)
