"""Tables 2 and 3, and the plot of the batch size (Appendix D), from what finished sweeps have left."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from diffuir_core.conditions import CONDITIONS
from diffuir_core.errors import UserError

from .. import storage
from ..sweep.report import TABLE_2_NAMES, delta_bar_end
from ..text import markdown_table
from .plots import curves

PAPER = Path(__file__).parent / "paper.yaml"
TASKS = {
    "rain": "Deraining",
    "low_light": "Enhancement",
    "snow": "Desnowing",
    "haze": "Dehazing",
    "blur": "Deblurring",
}
"""Task -> its heading in the paper, in the paper's order."""
KEYS = {"table-2": "condition", "table-3": "delta_end"}
RESULTS_FILE = "results.json"
TOLERANCE = 0.006
"""Difference of two values of delta_bar_T that stand in one row of Table 3: 1.8e-3 gives 0.9005."""

Figures = Mapping[str, float]


def runs_of(folder: str) -> tuple[str, list[dict[str, Any]]]:
    """The name of a sweep and its finished runs, each with `values` and `figures`; raises `UserError`."""
    file = storage.join(folder, RESULTS_FILE)
    try:
        document = json.loads(storage.read_bytes(file))
        runs = [
            {**run, "figures": {name: float(value) for name, value in run["figures"].items()}}
            for run in document["runs"]
            if run["figures"]
        ]
    except storage.NotThere as error:
        raise UserError(f"{folder} holds no {RESULTS_FILE}: name the folder of a finished sweep") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not what a sweep writes: name the folder of a finished sweep") from error
    if not runs:
        raise UserError(f"no run of {folder} has figures: let `diffuir sweep` finish first")
    return str(document["sweep"]), runs


def table(kind: str, folder: str) -> str:
    """Table 2 or 3 of a sweep in Markdown, each row above the paper's; raises `UserError` for another sweep."""
    name, runs = runs_of(folder)
    key, paper = KEYS[kind], yaml.safe_load(PAPER.read_text(encoding="utf-8"))[kind]
    if any(list(run["values"]) != [key] for run in runs):
        swept = ", ".join(runs[0]["values"])
        raise UserError(f"{folder} is a sweep of {swept}: {kind} is made of one of {key} alone")
    rows = []
    for run in runs:
        value = run["values"][key]
        label = value if kind == "table-2" else f"{delta_bar_end(value):.4g}"
        ours = [run["figures"].get(f"{metric}_{task}") for task in TASKS for metric in ("psnr", "ssim")]
        rows.append([*_titles(kind, label), "this sweep", *map(_cell, ours, _METRICS)])
        published = next((figures for at, figures in paper.items() if _is_same(kind, at, label)), None)
        if published is not None:
            rows.append([*_titles(kind, label), "the paper", *map(_cell, published, _METRICS)])
    first = ["Method", "Condition level", "Shared level"] if kind == "table-2" else ["Uni ratio"]
    headings = [*first, "of", *(f"{title} {metric.upper()}" for title in TASKS.values() for metric in _PAIR)]
    return (
        f"# {name}: {kind.replace('-', ' ').capitalize()}\n\n"
        "PSNR (dB) and SSIM of this sweep on its own held-out pairs, and of the paper on its test sets: only the "
        f"order within each can be compared.\n\n{markdown_table(headings, rows, left=len(first) + 1)}\n"
    )


_PAIR = ("psnr", "ssim")
_METRICS = _PAIR * len(TASKS)


def _titles(kind: str, label: str) -> list[str]:
    if kind == "table-3":
        return [label]
    parts = CONDITIONS[label]
    is_strong = parts.explicit and parts.implicit
    # Without EC the process ends in pure noise, which all tasks share.
    shared = "Strong" if parts.shared or not parts.explicit else "Weak"
    return [TABLE_2_NAMES[label], "Strong" if is_strong else "Weak", shared]


def _is_same(kind: str, of_paper: str, label: str) -> bool:
    return of_paper == label if kind == "table-2" else abs(float(of_paper) - float(label)) < TOLERANCE


def _cell(value: float | None, metric: str) -> str:
    return "" if value is None else f"{value:.{2 if metric == 'psnr' else 3}f}"


def batch_size_plot(folder: str) -> tuple[bytes, dict[str, str]]:
    """PSNR and SSIM of each task over the batches per optimiser step, as PNG, and the figures as text."""
    name, runs = runs_of(folder)
    if any(list(run["values"]) != ["accumulate"] for run in runs):
        raise UserError(f"{folder} is no sweep of accumulate alone: jobs/sweep-batch.yaml is one")
    points = sorted((int(run["values"]["accumulate"]), run["figures"]) for run in runs)
    tasks = [task for task in TASKS if any(f"psnr_{task}" in figures for _, figures in points)]
    series = {TASKS[task]: _series(points, task) for task in tasks}
    picture = curves(f"{name}: impact of the batch size", "accumulated batches per optimiser step", series)
    return picture, {f"{at} accumulated": f"{figures['psnr']:.2f} dB" for at, figures in points}


def _series(points: Sequence[tuple[int, Figures]], task: str) -> dict[float, tuple[float, float]]:
    return {
        at: (figures.get(f"psnr_{task}", math.nan), figures.get(f"ssim_{task}", math.nan))
        for at, figures in points
    }
