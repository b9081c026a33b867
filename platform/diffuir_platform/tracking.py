"""MLflow: SQLite beside the run unless a server is named."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from diffuir_core import UserError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

LONGEST_PARAM = 6000
"""MLflow's limit on the length of a parameter, in characters."""


@dataclass(frozen=True)
class Tracker:
    """One MLflow run, made by the driver and written to by the first worker; travels between them by pickling."""

    uri: str
    run_id: str

    @cached_property
    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    @cached_property
    def _resumed_at(self) -> int:
        """The last step that has points already: a restarted worker repeats steps, MLflow would keep both."""
        return max((m.step for m in self._client.get_metric_history(self.run_id, "loss")), default=-1)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add one point to each curve, unless the run has points of this step."""
        from mlflow.entities import Metric

        if step > self._resumed_at:
            now = int(time.time() * 1000)
            points = [Metric(name, value, now, step) for name, value in metrics.items() if name != "step"]
            self._client.log_batch(self.run_id, metrics=points)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Add the run's settings."""
        for name, value in params.items():
            self._client.log_param(self.run_id, name, str(value)[:LONGEST_PARAM])

    def log_image(self, image: Image.Image, artifact: str) -> None:
        """Keep a picture as the artifact of that path."""
        self._client.log_image(self.run_id, image, artifact_file=artifact)

    def log_file(self, file: Path, folder: str) -> None:
        """Keep a file in that folder of the run's artifacts."""
        self._client.log_artifact(self.run_id, str(file), folder)

    def finish(self, *, failed: bool) -> None:
        """Close the run."""
        self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


def open_run(uri: str, experiment: str, name: str, run_id: str | None, artifacts: Path) -> Tracker:
    """The run `run_id`, or a new one called `name`; `artifacts` is where a database's files go.

    Raises `UserError` where the tracker can't be reached.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    client = MlflowClient(uri)
    try:
        if run_id is not None:
            client.update_run(run_id, status="RUNNING")
            return Tracker(uri, run_id)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            location = None if uri.startswith(("http://", "https://")) else artifacts.resolve().as_uri()
            experiment_id = client.create_experiment(experiment, artifact_location=location)
        else:
            experiment_id = found.experiment_id
        return Tracker(uri, client.create_run(experiment_id, run_name=name).info.run_id)
    except (MlflowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the tracker at {uri} can't be used ({reason}): set tracking_uri") from error
