"""`diffuir sweep` on a real local Ray, with runs of a few steps on photos drawn here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from diffuir_core import UserError, open_weights
from diffuir_platform.config import load_config
from diffuir_platform.storage.lock import Lock
from diffuir_platform.sweep import SweepConfig
from diffuir_platform.sweep.job import sweep_job
from diffuir_platform.sweep.report import RunResult, as_json, markdown, plot
from diffuir_platform.sweep.run import run_sweep

# Three real runs, on machines that run other tests too.
pytestmark = pytest.mark.timeout(600)

DELTAS = [1.99e-4, 9.99e-4, 1.799e-3]
NAMES = [f"test-delta_end-{delta}" for delta in ("0.000199", "0.000999", "0.001799")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of pairs, whose clean photos also serve as training data."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(4):
        small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        clean = Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)
        for side, picture in (("clean", clean), ("degraded", clean.point(lambda level: level // 2))):
            file = folder / side / f"{seed}.png"
            file.parent.mkdir(exist_ok=True)
            picture.save(file)
    return folder


def settings(photos: Path, storage: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "test",
        "grid": {"delta_end": DELTAS},
        "train": {
            "storage": str(storage),
            "data": {"clean": [str(photos / "clean")]},
            "validation": {"pairs": {"low_light": [str(photos)], "haze": [str(photos)]}, "images": 2},
            "stages": [{"steps": 2, "crop": 16, "batch": 10}],
            "accumulate": 1,
            "mixture": {"haze": 0.5, "low_light": 0.5},
            "ema": {"decay": 0.5, "every": 1},
            "log_every": 1,
            "checkpoint_every": 2,
            "threads": 1,
            "data_tasks": 1,
        },
        **changes,
    }


def config(photos: Path, storage: Path, **changes: Any) -> SweepConfig:
    return SweepConfig.model_validate(settings(photos, storage, **changes))


def tracked(storage: Path) -> list[Any]:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("diffuir").experiment_id])


@pytest.fixture(scope="module")
def swept(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Storage of a sweep of three runs, two at once, and the finished command.

    The second run fails: its folder holds a run with other settings.
    """
    storage = tmp_path_factory.mktemp("runs")
    (storage / NAMES[1]).mkdir()
    (storage / NAMES[1] / "run.json").write_text(json.dumps({"settings": {"learning_rate": 0.5}}))
    state = storage / NAMES[1] / "checkpoint_2026-01-01_10-00-00.000000" / "state.pt"
    state.parent.mkdir()
    state.write_bytes(b"state")
    file = storage / "sweep.yaml"
    file.write_text(yaml.safe_dump(settings(photos, storage, at_once=2)))
    command = [sys.executable, "-m", "diffuir_platform.cli", "sweep", str(file)]
    return storage, subprocess.run(command, capture_output=True, text=True, timeout=550, check=False)


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_finish(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    storage, done = swept
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"failed: {NAMES[1]}" in done.stdout
    table = (storage / "test" / "table.md").read_text()
    assert table in done.stdout
    assert "delta_bar_T" in table
    assert f"- {NAMES[1]}: the run '{NAMES[1]}'" in table
    results = json.loads((storage / "test" / "results.json").read_text())
    found = {run["name"]: run for run in results["runs"]}
    assert list(found) == NAMES
    for name, delta_end, delta_bar in zip(NAMES, DELTAS, (0.1, 0.5, 0.9), strict=True):
        run = found[name]
        assert run["values"] == {"delta_end": delta_end}
        assert run["delta_bar_T"] == pytest.approx(delta_bar, abs=1e-4)
        if name != NAMES[1]:
            measured = {f"{m}_{t}" for m in ("psnr", "ssim") for t in ("haze", "low_light")}
            assert set(run["figures"]) == {*measured, "psnr", "ssim"}
            weights = open_weights(storage / name / "weights.safetensors")
            assert weights.schedule.delta_end == delta_end
    assert Image.open(storage / "test" / "plot.png").width > 800


@pytest.mark.slow
def test_mlflow_holds_one_run_for_the_sweep_and_those_it_trained_below_it(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    storage, _ = swept
    runs = {run.info.run_name: run for run in tracked(storage)}
    assert set(runs) == {"test", NAMES[0], NAMES[2]}
    parent = runs.pop("test")
    assert parent.info.status == "FAILED"
    assert parent.data.params["train.threads"] == "1"
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    kept = [artifact.path for artifact in client.list_artifacts(parent.info.run_id, "sweep")]
    assert kept == ["sweep/plot.png", "sweep/results.json", "sweep/table.md"]
    for run in runs.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_the_same_sweep_again_trains_what_is_missing_and_then_nothing(
    photos: Path,
    swept: tuple[Path, subprocess.CompletedProcess[str]],
    ray: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    storage, _ = swept
    shutil.rmtree(storage / NAMES[1])
    trained = {
        name: (storage / name / "weights.safetensors").stat().st_mtime_ns for name in (NAMES[0], NAMES[2])
    }
    assert run_sweep(config(photos, storage)) == 0
    assert f"1 of {len(DELTAS)} runs to train" in capsys.readouterr().out
    for name, at in trained.items():
        assert (storage / name / "weights.safetensors").stat().st_mtime_ns == at
    rows = [
        line for line in (storage / "test" / "table.md").read_text().splitlines() if line.startswith("| 0.")
    ]
    assert len(rows) == len(DELTAS)
    before = {run.info.run_name: run.info for run in tracked(storage)}
    assert before["test"].status == "FINISHED"
    assert len(before) == 1 + len(DELTAS)

    written = {file: file.stat().st_mtime_ns for file in storage.rglob("*") if file.is_file()}
    assert run_sweep(config(photos, storage)) == 0
    out = capsys.readouterr().out
    assert "to train" not in out
    assert rows[-1] in out
    assert {file: file.stat().st_mtime_ns for file in storage.rglob("*") if file.is_file()} == written

    other = settings(photos, storage)
    other["train"]["learning_rate"] = 1e-3
    with pytest.raises(UserError, match="learning_rate"):
        run_sweep(SweepConfig.model_validate(other))


def test_a_sweep_that_cannot_begin_says_why(photos: Path, tmp_path: Path) -> None:
    absent = settings(photos, tmp_path)
    absent["train"]["data"] = {"clean": ["nowhere"]}
    with pytest.raises(UserError, match="nowhere"):
        run_sweep(SweepConfig.model_validate(absent))
    assert not any(tmp_path.iterdir())


def test_every_combination_is_a_run_with_a_name_of_its_own(photos: Path, tmp_path: Path) -> None:
    grid = {"delta_end": DELTAS, "ema": {"decay": [0.5, 0.9]}, "init_from": [None, "s3://bucket/x.pt"]}
    points = config(photos, tmp_path, grid=grid).points()
    assert len({point.config.name for point in points}) == 12
    assert points[0].config.name == "test-delta_end-0.000199-ema.decay-0.5-init_from-null"
    assert re.fullmatch(
        r"test-delta_end-0.000199-ema.decay-0.5-init_from-s3-bucket-x.pt-[0-9a-f]{8}", points[1].config.name
    )
    assert points[1].values == {"delta_end": 1.99e-4, "ema.decay": 0.5, "init_from": "s3://bucket/x.pt"}
    assert points[-1].config.ema.decay == 0.9
    assert points[-1].config.ema.every == 1


def test_values_are_those_of_the_runs_however_they_are_written(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(settings(photos, tmp_path)))
    points = load_config(SweepConfig, file, ["grid={delta_end: [2e-4, 1e-3], seed: ['1', 2]}"]).points()
    assert [point.values for point in points] == [
        {"delta_end": delta_end, "seed": seed} for delta_end in (0.0002, 0.001) for seed in (1, 2)
    ]
    assert points[0].config.name == "test-delta_end-0.0002-seed-1"
    found = [
        RunResult(name="run", values=point.values, figures={"psnr_rain": 30.0, "ssim_rain": 0.9})
        for point in points
    ]
    assert "| 0.1005 | 1 | 30.00 | 0.9000 |" in markdown("test", found)


def test_a_grid_reaches_into_lists(photos: Path, tmp_path: Path) -> None:
    points = config(photos, tmp_path, grid={"stages.0.crop": [32, 48]}).points()
    assert [point.values for point in points] == [{"stages.0.crop": 32}, {"stages.0.crop": 48}]
    assert [point.config.stages[0].crop for point in points] == [32, 48]
    assert points[0].config.name == "test-stages.0.crop-32"


def test_names_of_letters_that_a_folder_can_not_have_are_told_apart(photos: Path, tmp_path: Path) -> None:
    grid = {"data.split": ["测试", "训练", "a b", "a-b"]}
    names = [point.config.name for point in config(photos, tmp_path, grid=grid).points()]
    assert len(set(names)) == 4
    assert names[3] == "test-data.split-a-b"
    assert all(re.fullmatch("[A-Za-z0-9._-]+", name) for name in names)


def test_a_sweep_that_another_process_runs_is_refused(photos: Path, tmp_path: Path) -> None:
    with (
        Lock(str(tmp_path / "test"), "runs the sweep test", "take another name"),
        pytest.raises(UserError, match=r"another job runs the sweep test .*: wait until it is done"),
    ):
        run_sweep(config(photos, tmp_path))
    assert not any(tmp_path.glob("test-*"))


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("grid.delta_ende=[1]", "nearest known one is 'delta_end'"),
        ("grid.delta_end=[0.1, 2]", "delta_end = 2"),
        ("grid.delta_end=[]", "no values"),
        ("grid.delta_end=[0.1, 0.1]", "two runs"),
        ("grid.learning_rate=[1e-4, 0.0001]", "two runs would be called .*-learning_rate-0.0001"),
        ("grid={stages.1.crop: [32, 48]}", "grid: stages.1.crop: '1' is not a position in a list of 1"),
        ("grid={accumulate.x: [1, 2]}", "grid: accumulate.x: accumulate holds a value"),
        ("grid.seed=[2024-01-01]", "seed=.2024-01-01.: seed = datetime"),
        ("grid={}", "grid is empty"),
        ("grid.workers=[1, 2]", "train.workers"),
        ("train.name=mine", "train.name"),
        ("train.validation={}", "train.validation"),
        ("train.lerning_rate=1", "train.learning_rate"),
    ],
)
def test_a_grid_that_cannot_be_trained_is_one_sentence(
    photos: Path, tmp_path: Path, override: str, reason: str
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(settings(photos, tmp_path)))
    with pytest.raises(UserError, match=reason) as raised:
        load_config(SweepConfig, file, [override])
    assert "\n" not in str(raised.value)


def test_a_cluster_gets_the_sweep_as_one_job(photos: Path, tmp_path: Path) -> None:
    job = sweep_job(config(photos, tmp_path, at_once=3), "http://head:8265")
    assert job.name == "sweep-test"
    (name,) = job.files
    file = tmp_path / name
    file.write_text(job.files[name])
    there = load_config(SweepConfig, file)
    assert [point.config.name for point in there.points()] == NAMES
    assert (there.at_once, there.train.threads) == (3, 1)
    with pytest.raises(UserError, match="s3://"):
        sweep_job(config(photos, Path("runs")), "http://head:8265")


def results_of(key: str, values: list[Any]) -> list[RunResult]:
    figures = {"psnr_rain": 30.0, "ssim_rain": 0.9, "psnr_blur": float("inf"), "ssim_blur": 1.0}
    means = {"psnr": float("inf"), "ssim": 0.95}
    done = [RunResult(name=f"run-{v}", values={key: v}, figures={**figures, **means}) for v in values]
    return [*done, RunResult(name="lost", values={key: values[0]}, error="it | broke")]


def test_the_table_of_the_ablation_has_the_names_of_table_2() -> None:
    found = results_of("condition", ["full", "no-ec-sdt"])
    table = markdown("ablation", found)
    assert "| method | rain PSNR | rain SSIM | blur PSNR | blur SSIM | mean PSNR | mean SSIM |" in table
    assert "| -EC & SDT | 30.00 | 0.9000 | inf | 1.0000 | inf | 0.9500 |" in table
    assert "- lost: it | broke" in table
    assert json.loads(as_json("ablation", found))["runs"][0]["figures"]["psnr"] == "inf"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("delta_end", DELTAS),
        ("condition", ["full", "no-sdt"]),
        ("seed", [1, 2]),
        ("clip_norm", [1.0, float("inf")]),
    ],
)
def test_a_plot_of_numbers_or_of_names(key: str, values: list[Any]) -> None:
    found = results_of(key, values)
    assert plot("sweep", found).startswith(b"\x89PNG")
    assert len(json.loads(as_json("sweep", found))["runs"]) == len(found)
