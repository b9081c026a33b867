"""A training on one task, from a packed index alone: records of the run and of its weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from diffuir_core import UserError, open_weights
from diffuir_platform.data import open_index
from diffuir_platform.data.building import build_index
from diffuir_platform.data.index import IndexRow
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.train import TrainConfig, train
from diffuir_platform.train.checkpoints import SNAPSHOT_FILE
from diffuir_platform.train.run import tracking_location


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Six pairs of low light whose dark side is to be equalised, in a packed file; of two that side is damaged."""
    for side, brightness in (("degraded", 90), ("clean", 180)):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for seed in range(6):
            pixels = np.random.default_rng(seed).integers(0, brightness, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pairs" / side / f"{seed}.png")
    options = IndexOptions(layout="pairs", task="low_light", equalise=True, pack=str(tmp_path / "packed"))
    build_index(str(tmp_path / "pairs"), str(tmp_path / "dark.parquet"), options)
    for row in list(open_index(str(tmp_path / "dark.parquet")).rows())[2:4]:
        damage(row)
    return tmp_path / "dark.parquet"


def damage(row: IndexRow) -> None:
    assert row.degraded_uri is not None
    assert row.degraded_offset is not None
    with open(row.degraded_uri, "r+b") as packed:
        packed.seek(row.degraded_offset)
        packed.write(bytes(40))


@pytest.mark.slow
def test_a_run_on_one_task_records_its_data(
    index: Path, runs: Path, ray: object, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig.model_validate(
        {
            "storage": str(runs),
            "data": {"index": [str(index)]},
            "mixture": {"low_light": 1.0, "rain": 0.0},
            # Every pair is met twice.
            "stages": [{"steps": 3, "crop": 16, "batch": 4}],
            "accumulate": 1,
            "threads": 1,
            "log_every": 1,
            "panels_every": 3,
        }
    )
    weights = open_weights(train(config))
    assert weights.preprocessing == {"low_light": "equalise"}
    assert weights.recipe["data"] == {"low_light": {"photos": 0, "pairs": 6, "equalised": 6}}
    prints = weights.recipe["fingerprints"]
    assert prints["index"] == [open_index(str(index)).fingerprint]

    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("diffuir").experiment_id])
    assert run.data.tags["diffuir.index"] == prints["index"][0]
    assert run.data.tags["diffuir.data"] == prints["data"] != prints["index"][0]
    assert run.data.metrics["replaced"] == 2
    assert [a.path for a in client.list_artifacts(run.info.run_id, "panels")] == ["panels/step-0000003.png"]
    snapshot = json.loads((runs / "diffuir" / SNAPSHOT_FILE).read_text())
    for result in snapshot["checkpoint_results"]:
        assert {type(value) for value in result["metrics"].values()} <= {int, float}, "texts go another way"
    said = [line for line in capsys.readouterr().out.splitlines() if "can't be used" in line]
    assert [line.partition("can't be used: ")[2][:3] for line in sorted(said)] == ["2: ", "3: "]


@pytest.mark.parametrize("written", ["{folder}", "file://{folder}", "file://localhost{folder}"])
def test_the_tracker_s_file_lies_in_the_storage_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    odd = "what? 100%25" if written == "{folder}" else "runs"
    storage = written.format(folder=tmp_path / odd)
    uri, artifacts = tracking_location(TrainConfig(storage=storage))
    MlflowClient(uri).search_experiments()
    assert (tmp_path / odd / "mlflow.db").stat().st_size
    assert artifacts == tmp_path / odd / "mlartifacts"
    tracking_location(TrainConfig(storage="s3://bucket/runs"))
    assert Path("runs").is_dir()
    with pytest.raises(UserError, match="is a file of the machine elsewhere"):
        tracking_location(TrainConfig(storage="file://elsewhere/runs"))
