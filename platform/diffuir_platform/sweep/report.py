"""What a sweep found: Table 3 (section 4.4) as Markdown and JSON, and its plot."""

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

METRICS = {"psnr": "PSNR (dB)", "ssim": "SSIM"}
MEASURED_ON = (
    "Averaged weights at the end of each run, PSNR (dB) and SSIM on Y, means over the held-out pairs"
)
DELTA = "delta_bar_T"
OF_TABLE_2 = {"full": "DiffUIR", "no-sdt": "-SDT", "no-ec-sdt": "-EC & SDT", "no-ic-sdt": "-IC & SDT"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one run: its figures as `measure` gives them, or why there are none."""

    name: str
    values: dict[str, Any]
    weights: str = ""
    figures: dict[str, float] | None = None
    error: str = ""


def columns(outcomes: Sequence[Outcome]) -> list[str]:
    """The tasks that were measured, and "" for the mean over them where there are several."""
    found = [o.figures for o in outcomes if o.figures is not None]
    tasks = [task for task in TASKS if any(f"psnr_{task}" in figures for figures in found)]
    return [*tasks, ""] if len(tasks) > 1 else tasks


def heading(key: str) -> str:
    """What the column of a swept key is called: delta_end by what it comes to."""
    return DELTA if key == "delta_end" else "method" if key == "condition" else key


def shown(key: str, value: Any) -> str:
    """A swept value as the table has it."""
    if key == "delta_end":
        return f"{delta_bar_end(value):.4g}"
    if key == "condition":
        return OF_TABLE_2[value]
    return value if isinstance(value, str) else json.dumps(value)


def delta_bar_end(delta_end: float) -> float:
    """The delta_bar_T that `delta_end` leads to."""
    return float(Schedule.release(delta_end).delta_bar[-1])


def markdown(name: str, outcomes: Sequence[Outcome]) -> str:
    """The table, a row for each run and two columns for each task, and what was not trained below it."""
    keys = list(outcomes[0].values)
    tasks = columns(outcomes)
    titles = [f"{_title(task)} {metric.upper()}" for task in tasks for metric in METRICS]
    rows = [[*map(heading, keys), *titles], [*["---"] * len(keys), *["---:"] * len(titles)]]
    for outcome in outcomes:
        figures = outcome.figures
        if figures is not None:
            cells = [shown(key, outcome.values[key]) for key in keys]
            rows.append([*cells, *(_cell(figures, m, task) for task in tasks for m in METRICS)])
    lines = [f"# {name}", "", f"{MEASURED_ON}.", ""]
    lines += ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]
    failed = [outcome for outcome in outcomes if outcome.figures is None]
    if failed:
        lines += ["", "Not trained:", "", *(f"- {outcome.name}: {outcome.error}" for outcome in failed)]
    return "\n".join(lines) + "\n"


def as_json(name: str, outcomes: Sequence[Outcome]) -> str:
    """The same with every digit. JSON has no infinity: it is the string "inf"."""
    runs = []
    for outcome in outcomes:
        figures = finite(outcome.figures or {})
        run = {**asdict(outcome), "values": finite(outcome.values), "figures": figures}
        if "delta_end" in outcome.values:
            run[DELTA] = delta_bar_end(outcome.values["delta_end"])
        runs.append(run)
    return json.dumps({"sweep": name, "runs": runs}, indent=1, allow_nan=False) + "\n"


def plot(name: str, outcomes: Sequence[Outcome]) -> bytes:
    """PSNR and SSIM of each task against the swept value, side by side, as a PNG."""
    done = [outcome for outcome in outcomes if outcome.figures is not None]
    keys = list(outcomes[0].values)
    places, ticks = _axis(keys, done)
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (metric, title) in zip(figure.subplots(1, 2), METRICS.items(), strict=True):
        for task in columns(done):
            values = [(outcome.figures or {}).get(_key(metric, task), math.nan) for outcome in done]
            # The mean is not one more task, and there is nothing between two names.
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
        axes.set_xlabel(", ".join(map(heading, keys)))
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.suptitle(f"{name}: {MEASURED_ON[0].lower()}{MEASURED_ON[1:]}", fontsize="medium")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _axis(keys: Sequence[str], done: Sequence[Outcome]) -> tuple[list[float], list[str] | None]:
    """Where each run stands on the x axis, and what is written there: None for numbers."""
    if len(keys) == 1:
        (key,) = keys
        values = [outcome.values[key] for outcome in done]
        if all(_is_number(value) for value in values):
            return [delta_bar_end(v) if key == "delta_end" else float(v) for v in values], None
    texts = [", ".join(shown(key, outcome.values[key]) for key in keys) for outcome in done]
    return [float(i) for i in range(len(done))], texts


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _key(metric: str, task: str) -> str:
    return f"{metric}_{task}" if task else metric


def _title(task: str) -> str:
    return task.replace("_", " ") or "mean"


def _cell(figures: Mapping[str, float], metric: str, task: str) -> str:
    return f"{figures[_key(metric, task)]:.{2 if metric == 'psnr' else 4}f}"


def _plain(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Figures or settings as JSON can hold them: it has no infinity."""

    def infinite(value: Any) -> bool:
        return isinstance(value, float) and not math.isfinite(value)

    return {key: str(value) if infinite(value) else value for key, value in values.items()}
