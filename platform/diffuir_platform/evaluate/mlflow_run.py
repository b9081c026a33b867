"""An evaluation as a run in MLflow: its settings, its means, and its files."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .. import storage
from ..storage import OWN_FOLDER
from ..tracking import Tracker, open_run
from .means import mean_of_images
from .report import Report
from .rows import FILE
from .tables import by_set, columns

RECORD = "mlflow.json"
"""File below `_diffuir` with the id of the run, so that an evaluation that goes on has one."""


def log_run(report: Report, folder: Path, uri: str, experiment: str) -> Tracker:
    """Log a finished evaluation in `folder` to the tracker at `uri`, and return its run.

    Raises `UserError` where the tracker can't be reached.
    """
    file = folder / OWN_FOLDER / RECORD
    known = json.loads(file.read_bytes()).get(uri) if file.is_file() else None
    run = open_run(uri, experiment, folder.name, known, folder / OWN_FOLDER / "mlartifacts")
    storage.write_bytes(str(file), json.dumps({uri: run.run_id}).encode())
    run.log_params(
        {name: value for name, value in vars(report.settings).items() if value not in (None, "", {})}
    )
    metrics = {"failed": float(len(report.failed)), "images": float(len(report.measured))}
    for name, measure, images in by_set(report.measured):
        before, after = columns(images, measure)
        for when, values in (("before", before), ("after", after)):
            if values:
                title = f"{name} {measure.metric} {measure.protocol} {when}"
                metrics[re.sub(r"[^\w\-. :/]", "_", title)] = mean_of_images(values).value
    run.log(metrics, step=0)
    for path in sorted([*(folder / "tables").iterdir(), folder / FILE, folder / "results.json"]):
        run.log_file(path, "evaluation")
    run.finish("FINISHED")
    return run
