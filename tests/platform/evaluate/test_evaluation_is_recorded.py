"""An evaluation in MLflow, and as a job of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from diffuir_core.errors import UserError
from diffuir_platform.command_table import app
from diffuir_platform.evaluate import evaluate, write_report
from diffuir_platform.evaluate.job import evaluation_job
from diffuir_platform.evaluate.mlflow_run import log_run
from diffuir_platform.evaluate.settings import EvaluateSettings
from support.evaluating import SETTINGS, brighten, make_pair

HEAD = "http://head:8265"


def test_settings_means_and_tables_are_logged_into_one_run(runs: Path, tmp_path: Path) -> None:
    for stem in ("1", "2"):
        make_pair(tmp_path / "pairs" / "dark", stem, seed=int(stem))
    out = tmp_path / "out"
    report = evaluate(tmp_path / "pairs", brighten, SETTINGS, out)
    write_report(report, out)
    uri = f"sqlite:///{runs / 'mlflow.db'}"
    first = log_run(report, out, uri, "mine")
    assert log_run(report, out, uri, "mine").run_id == first.run_id
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["protocol"] == "released-y"
    assert run.data.metrics["dark psnr released-y after"] == pytest.approx(report.sets()[0].psnr_after)
    assert run.data.metrics["failed"] == 0
    files = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation")}
    names = ("images.parquet", "results.json", "sets.csv", "sets.md", "sets.tex")
    assert files == {f"evaluation/{name}" for name in names}


def test_a_job_is_the_command_with_the_settings_that_were_asked_for() -> None:
    settings = EvaluateSettings(
        benchmark="LOL,table-4", data="s3://b/all.parquet", out=Path("/shared/out"), steps=2, address=HEAD
    )
    job = evaluation_job(settings, HEAD)
    assert job.name == "evaluate-shared-out"
    assert job.arguments == (
        *("evaluate", "steps=2", "benchmark=LOL,table-4", "data=s3://b/all.parquet", "out=/shared/out"),
    )
    assert app([*job.arguments, "--print-config"], standalone_mode=False) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": None}, "give --out"),
        ({"out": Path("out")}, "out = out is a path of this folder"),
        ({"data": "sets"}, "data = sets is a path of this folder"),
        ({"tracking_uri": "http://me:secret@mlflow"}, "tracking_uri holds a password"),
    ],
)
def test_a_job_that_the_cluster_could_not_do_is_refused(change: dict[str, object], message: str) -> None:
    settings = EvaluateSettings(benchmark="LOL", data="/shared/sets", out=Path("/shared/out"), address=HEAD)
    with pytest.raises(UserError, match=message):
        evaluation_job(settings.model_copy(update=change), HEAD)
