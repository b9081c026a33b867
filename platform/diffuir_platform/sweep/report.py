"""Results of a sweep: a table like the paper's Table 3 (section 4.4) as Markdown and JSON, and a plot."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffuir_core import Schedule
from diffuir_core.degradations import TASKS
from diffuir_core.metrics import DEFAULT_PROTOCOL

from ..text import json_values, markdown_table

METRICS = {"psnr": "PSNR (dB)", "ssim": "SSIM"}
MEASURED_ON = (
    f"Averaged weights at the end of each run, PSNR (dB) and SSIM by {DEFAULT_PROTOCOL}, "
    "means over the held-out pairs"
)
DELTA = "delta_bar_T"
TABLE_2_NAMES = {"full": "DiffUIR", "no-sdt": "-SDT", "no-ec-sdt": "-EC & SDT", "no-ic-sdt": "-IC & SDT"}
"""Names of the values of `condition` in the paper's Table 2."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of one run of a sweep: its metrics, or the reason why it has none."""

    name: str
    """Name of the run."""
    values: dict[str, Any]
    """Value of each swept setting."""
    weights: str = ""
    """URI of the exported weights; empty for a run that failed."""
    figures: dict[str, float] | None = None
    """Metrics of the weights, as `train.validation.measure` returns them; None for a run that failed."""
    error: str = ""
    """Reason of the failure in one sentence; empty for a finished run."""


def measured_tasks(results: Sequence[RunResult]) -> list[str]:
    """Return the tasks that were measured, and "" for the mean over them where there are several."""
    found = [r.figures for r in results if r.figures is not None]
    tasks = [task for task in TASKS if any(f"psnr_{task}" in figures for figures in found)]
    return [*tasks, ""] if len(tasks) > 1 else tasks


def column_title(key: str) -> str:
    """Return the title of a swept setting: delta_bar_T for delta_end, method for condition, else its own name."""
    return DELTA if key == "delta_end" else "method" if key == "condition" else key


def format_value(key: str, value: Any) -> str:
    """Return the text of a swept value under `column_title`."""
    if key == "delta_end":
        return f"{delta_bar_end(value):.4g}"
    if key == "condition":
        return TABLE_2_NAMES[value]
    return value if isinstance(value, str) else json.dumps(value)


def delta_bar_end(delta_end: float) -> float:
    """Return delta_bar at the last time of the schedule with this `delta_end`."""
    return float(Schedule.release(delta_end).delta_bar[-1])


def markdown(name: str, results: Sequence[RunResult]) -> str:
    """Return the table, a row for each run and two columns for each task, and below it the runs that failed."""
    keys = list(results[0].values)
    columns = [(metric, task) for task in measured_tasks(results) for metric in METRICS]
    rows = [
        [*(format_value(key, r.values[key]) for key in keys), *(_number(r.figures, *c) for c in columns)]
        for r in results
        if r.figures is not None
    ]
    titles = [*map(column_title, keys), *(f"{_title(task)} {metric.upper()}" for metric, task in columns)]
    parts = [f"# {name}", f"{MEASURED_ON}.", markdown_table(titles, rows, left=len(keys))]
    failed = [result for result in results if result.figures is None]
    if failed:
        parts += ["Not trained:", "\n".join(f"- {result.name}: {result.error}" for result in failed)]
    return "\n\n".join(parts) + "\n"


def as_json(name: str, results: Sequence[RunResult]) -> str:
    """Return all results with every digit as JSON, which has no infinity: that is the string "inf"."""
    runs = []
    for result in results:
        figures = json_values(result.figures or {})
        run = {**asdict(result), "values": json_values(result.values), "figures": figures}
        if "delta_end" in result.values:
            run[DELTA] = delta_bar_end(result.values["delta_end"])
        runs.append(run)
    return json.dumps({"sweep": name, "runs": runs}, indent=1, allow_nan=False) + "\n"


def plot(name: str, results: Sequence[RunResult]) -> bytes:
    """Draw PSNR and SSIM of each task against the swept value, side by side; return the PNG file."""
    done = [result for result in results if result.figures is not None]
    keys = list(results[0].values)
    places, ticks = _axis(keys, done)
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (metric, title) in zip(figure.subplots(1, 2), METRICS.items(), strict=True):
        for task in measured_tasks(done):
            values = [(result.figures or {}).get(_key(metric, task), math.nan) for result in done]
            # The mean must not look like one more task; names have no values between them, so no lines either.
            style = (
                {"marker": "o", "linestyle": "-"}
                if task
                else {"marker": "D", "linestyle": "--", "color": "black"}
            )
            if ticks is not None:
                style["linestyle"] = ""
            axes.plot(places, values, label=_title(task), **style)
        if ticks is not None:
            axes.set_xticks(places, ticks, rotation=0 if max(map(len, ticks)) < 14 else 20)
        axes.set_xlabel(", ".join(map(column_title, keys)))
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.suptitle(f"{name}: {MEASURED_ON[0].lower()}{MEASURED_ON[1:]}", fontsize="medium")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _axis(keys: Sequence[str], done: Sequence[RunResult]) -> tuple[list[float], list[str] | None]:
    """Return the place of each run on the x axis, and the labels there; None for an axis of numbers."""
    if len(keys) == 1:
        (key,) = keys
        values = [result.values[key] for result in done]
        if all(_is_number(value) for value in values):
            return [delta_bar_end(v) if key == "delta_end" else float(v) for v in values], None
    texts = [", ".join(format_value(key, result.values[key]) for key in keys) for result in done]
    return [float(i) for i in range(len(done))], texts


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _key(metric: str, task: str) -> str:
    return f"{metric}_{task}" if task else metric


def _title(task: str) -> str:
    return task.replace("_", " ") or "mean"


def _number(figures: Mapping[str, float], metric: str, task: str) -> str:
    return f"{figures[_key(metric, task)]:.{2 if metric == 'psnr' else 4}f}"
