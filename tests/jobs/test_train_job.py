"""A training as a job: what is refused before it is sent, and what is sent with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from diffuir_core import UserError
from diffuir_platform.runtime import cluster_address
from diffuir_platform.sweep import SweepConfig
from diffuir_platform.sweep.job import sweep_job
from diffuir_platform.train import TrainConfig
from diffuir_platform.train.job import training_job

SERVER = "http://127.0.0.1:8265"
IN_THE_CLOUD = {"storage": "s3://bucket/runs", "tracking_uri": "http://mlflow:5000"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"storage": "runs"}, "storage = runs is a path of this folder"),
        ({"storage": "s3:/bucket/runs"}, "storage = s3:/bucket/runs is a path of this folder"),
        ({**IN_THE_CLOUD, "data": {"clean": ["photos"]}}, "data.clean = photos"),
        ({**IN_THE_CLOUD, "data": {"pairs": {"rain": [{"path": "photos"}]}}}, "data.pairs.rain = photos"),
        ({**IN_THE_CLOUD, "init_from": "t.pt"}, "init_from = t.pt"),
        ({"storage": "s3://bucket/runs"}, "MLFLOW_TRACKING_URI"),
        ({**IN_THE_CLOUD, "tracking_uri": "https://me:word@mlflow"}, "tracking_uri holds a password"),
        ({**IN_THE_CLOUD, "tracking_uri": "http://localhost:5000"}, "is this machine's own"),
    ],
)
def test_settings_that_mean_this_machine_only_are_refused(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], reason: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=reason) as raised:
        training_job(TrainConfig.model_validate(settings), False, "http://head:8265")
    assert "word" not in str(raised.value).replace("password", "")


def test_the_job_gets_where_things_are_and_never_who_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    config = TrainConfig.model_validate({"storage": "s3://bucket/runs", "address": SERVER})
    job = training_job(config, True, "http://head:8265")
    assert job.arguments == ("train", "train.yaml", "--overwrite")
    assert job.environment["AWS_ENDPOINT_URL"] == "http://store:9000"
    assert "hush" not in json.dumps([dict(job.environment), dict(job.files), job.metadata])
    sent = yaml.safe_load(job.files["train.yaml"])
    assert sent["tracking_uri"] == "http://mlflow:5000"
    assert sent["address"] is None
    assert TrainConfig.model_validate(sent).storage == "s3://bucket/runs"

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    assert "AWS_ENDPOINT_URL" not in training_job(config, False, "http://head:8265").environment
    assert "AWS_ENDPOINT_URL = http://localhost:9000 is this machine's own" in capsys.readouterr().err
    assert "AWS_ENDPOINT_URL" in training_job(config, False, SERVER).environment


def test_weights_of_the_registry_are_at_hand_everywhere() -> None:
    config = TrainConfig.model_validate({**IN_THE_CLOUD, "init_from": "models:/diffuir-t@best"})
    sent = yaml.safe_load(training_job(config, False, "http://head:8265").files["train.yaml"])
    assert sent["init_from"] == "models:/diffuir-t@best"


def test_a_sweep_is_sent_as_it_is_but_for_the_address_of_the_cluster() -> None:
    pairs = {"validation": {"index": ["s3://bucket/pairs.parquet"]}}
    train = {**IN_THE_CLOUD, **pairs, "address": SERVER, "data": {"index": ["s3://bucket/pairs.parquet"]}}
    sweep = SweepConfig.model_validate({"name": "s", "grid": {"ema.decay": [0.5, 0.9]}, "train": train})
    job = sweep_job(sweep, SERVER)
    assert (job.name, job.arguments) == ("sweep-s", ("sweep", "sweep.yaml"))
    sent = SweepConfig.model_validate(yaml.safe_load(job.files["sweep.yaml"]))
    assert sent.train.address is None
    assert [point.config.ema.decay for point in sent.points()] == [0.5, 0.9]
    here = sweep.model_copy(update={"train": sweep.train.model_copy(update={"storage": "runs"})})
    with pytest.raises(UserError, match="storage = runs is a path of this folder"):
        sweep_job(here, SERVER)


def test_the_job_is_told_what_code_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own folder on the cluster is no repository."""
    monkeypatch.setenv("DIFFUIR_GIT", '{"commit": "c0ffee", "branch": "main", "dirty": true}')
    job = training_job(TrainConfig.model_validate(IN_THE_CLOUD), False, SERVER)
    assert json.loads(job.environment["DIFFUIR_GIT"])["commit"] == "c0ffee"


def test_a_job_joins_the_cluster_that_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster_address() is None
    assert cluster_address("head:6379") == "head:6379"
    monkeypatch.setenv("RAY_ADDRESS", "other:6379")
    assert cluster_address() == "other:6379"
    assert cluster_address(SERVER) == SERVER
    monkeypatch.setenv("RAY_ADDRESS", SERVER)
    assert cluster_address() is None, "for Ray's own job command"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert cluster_address() == cluster_address(SERVER) == "auto"
