"""`diffuir train` on a real local Ray, with a DiffUIR-T on small crops of photos drawn here."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient

from diffuir_core import Restorer, UserError, open_weights, sample
from diffuir_core.degradations import TASKS
from diffuir_core.diffusion import start_release
from diffuir_platform.config import load_config
from diffuir_platform.storage.lock import Lock
from diffuir_platform.train import TrainConfig, train
from diffuir_platform.train.loop import sampling_input
from diffuir_platform.train.state import TrainState, compiles
from support.paths import JOBS
from support.small_run import STEPS, config, settings, weights_of


def test_the_exported_weights_restore(finished: Path) -> None:
    file = finished / "test" / "weights.safetensors"
    weights = open_weights(file)
    assert weights.recipe["steps_done"] == STEPS
    assert weights.recipe["data"]["haze"] == {"photos": 10, "pairs": 0}
    assert weights.recipe["settings"]["learning_rate"] == 1e-3
    image = np.full((20, 30, 3), 99, np.uint8)
    assert Restorer(file).restore([image])[0].shape == image.shape


def test_mlflow_holds_the_whole_run(finished: Path) -> None:
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "diffuir"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.001"
    curves = [
        "loss",
        "learning_rate",
        "gradient_norm",
        "images_per_second",
        *(f"loss_{task}" for task in TASKS),
    ]
    for curve in curves:
        assert [p.step for p in client.get_metric_history(run.info.run_id, curve)] == list(
            range(1, STEPS + 1)
        )
    assert [a.path for a in client.list_artifacts(run.info.run_id, "weights")] == [
        "weights/weights.safetensors"
    ]
    panels = [a.path for a in client.list_artifacts(run.info.run_id, "panels")]
    assert panels == ["panels/step-0000004.png", "panels/step-0000006.png"]


def test_a_finished_run_is_not_trained_again(
    photos: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config(photos, finished))
    assert "is finished" in capsys.readouterr().out


def test_a_sampled_batch_has_the_inputs_of_a_restore(photos: Path, tmp_path: Path) -> None:
    state = TrainState(config(photos, tmp_path), torch.device("cpu"))
    degraded, noise = torch.rand(2, 3, 16, 32) * 2 - 1, torch.randn(2, 3, 16, 32)
    images = sample(state.model, (degraded + 1) / 2, 3, noise, trajectory=True)
    for step, (t, image) in enumerate(
        [
            (999, start_release(state.schedule, degraded, noise)),
            (665, images[0] * 2 - 1),
            (332, images[1] * 2 - 1),
        ]
    ):
        times, image_t = sampling_input(state, degraded, noise, 3, step)
        assert times.tolist() == [t, t]
        torch.testing.assert_close(image_t, image, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_two_workers_train_what_one_does(photos: Path, finished: Path, runs: Path) -> None:
    train(config(photos, runs, workers=2))
    alone, together = weights_of(finished), weights_of(runs)
    worst = max(float((alone[key] - together[key]).abs().max()) for key in alone)
    assert worst < 1e-3, f"one and two workers differ by {worst}"


def test_resuming_with_other_settings_is_refused_with_the_difference(photos: Path, finished: Path) -> None:
    with pytest.raises(UserError, match=r"learning_rate = 0\.001, not 0\.002"):
        train(config(photos, finished, learning_rate=2e-3))


def test_a_run_begun_before_a_setting_existed_goes_on_with_its_default(
    photos: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished / "test", tmp_path / "test") / "run.json"
    record = json.loads(run.read_text())
    del record["settings"]["clip_norm"]
    run.write_text(json.dumps(record))
    train(config(photos, tmp_path))
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"clip_norm = 1\.0, not 2\.0"):
        train(config(photos, tmp_path, clip_norm=2.0))


def test_an_output_that_cannot_be_written_is_named(photos: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(UserError, match="set storage"):
        train(config(photos, blocked))


def test_overwriting_leaves_a_folder_alone_that_is_no_run(photos: Path, tmp_path: Path) -> None:
    kept = tmp_path / "test" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years of work")
    with pytest.raises(UserError, match="tracker"):
        train(config(photos, tmp_path, tracking_uri="http://127.0.0.1:9"), overwrite=True)
    assert kept.read_text() == "years of work"


def test_overwriting_a_run_leaves_what_somebody_else_put_into_its_folder(
    photos: Path, finished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished / "test", tmp_path / "test")
    for name in ("checkpoint_best_keep/weights.safetensors", "thesis.txt"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("mine")
    (run / "measured.json").write_text("{}")
    with pytest.raises(UserError, match="tracker"):
        train(config(photos, tmp_path, tracking_uri="http://127.0.0.1:9"), overwrite=True)
    left = {file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()}
    mine = {"checkpoint_best_keep/weights.safetensors", "thesis.txt"}
    assert left == {*mine, "run.json", ".validate_storage_marker"}


def test_a_run_that_another_process_trains_is_refused(photos: Path, tmp_path: Path) -> None:
    with (
        Lock(str(tmp_path / "test"), "trains test", "take another name"),
        pytest.raises(UserError, match=r"another job trains test .*: wait until it is done"),
    ):
        train(config(photos, tmp_path), overwrite=True)


@pytest.mark.slow
def test_a_run_that_another_took_over_ends(photos: Path, runs: Path, ray: object) -> None:
    lock, ended = runs / "test" / "lock.json", threading.Event()
    other = json.dumps({"id": "another", "host": "elsewhere", "pid": 1, "created": 1.0})

    def take_over() -> None:
        while not ended.wait(0.2):
            if any(runs.glob("test/checkpoint*")):
                lock.write_text(other)

    taker = threading.Thread(target=take_over)
    taker.start()
    try:
        with pytest.raises(
            UserError, match=r"another job \(process 1 on elsewhere\) took the lock after ours expired"
        ):
            train(config(photos, runs, stages=[{"steps": 2000, "crop": 16, "batch": 10}]))
    finally:
        ended.set()
        taker.join()
    assert lock.read_text() == other


@pytest.mark.slow
def test_killed_at_any_step_and_started_again_gives_the_same_weights(
    photos: Path, finished: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guarantee 3: resume is no interruption."""
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(settings(photos, runs)))
    command = [sys.executable, "-m", "diffuir_platform.cli", "train", str(job)]
    run = runs / "test"

    first = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 200
        while not (run / "checkpoint_manager_snapshot.json").exists():  # Ray Train's list of complete ones
            assert first.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "no checkpoint came"
            time.sleep(0.02)
    finally:
        # The whole process group at once: driver, controller, workers and Ray's own.
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert not (run / "weights.safetensors").exists()

    train(config(photos, runs))
    said = capsys.readouterr().out
    assert re.search(r"^going on from step [246]$", said, re.MULTILINE), said
    expected, resumed = weights_of(finished), weights_of(runs)
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    (run_info,) = client.search_runs([client.get_experiment_by_name("diffuir").experiment_id])
    steps = [p.step for p in client.get_metric_history(run_info.info.run_id, "loss")]
    assert steps == sorted(set(steps)), "a restart must not repeat points"
    assert steps[-1] == STEPS


@pytest.mark.parametrize(
    ("asked", "device", "compiler", "expected"),
    [
        (None, "cpu", "c++", False),
        (True, "cpu", "c++", True),
        (None, "cuda", "gcc", True),
        (None, "cuda", None, False),
        (False, "cuda", "gcc", False),
    ],
)
def test_the_network_is_compiled_where_it_pays_and_can_be(
    asked: bool | None,
    device: str,
    compiler: str | None,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if compiler:
        (tmp_path / compiler).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiles(TrainConfig(compile=asked), torch.device(device)) == expected


@pytest.mark.slow
def test_on_gpus_loading_takes_their_share_of_the_cpus() -> None:
    """Ray counts logical GPUs here, and nothing uses them."""
    asked = """
import ray
from diffuir_platform.train import TrainConfig
from diffuir_platform.train.run import required_cpus, loading_tasks
print(loading_tasks(TrainConfig()))
ray.init(num_cpus=32, num_gpus=4, logging_level="error", include_dashboard=False)
for values in ({}, {"gpus": False}, {"data_tasks": 3}):
    print(loading_tasks(TrainConfig(**values)))
print(required_cpus(TrainConfig(workers=4)))
"""
    said = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=120, check=True
    )
    assert said.stdout.split() == ["2", "5", "2", "3", "25"]


def test_without_a_compiler_compiling_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"there is no c\+\+ or g\+\+ or clang\+\+: install one"):
        compiles(TrainConfig(compile=True), torch.device("cpu"))


@pytest.mark.slow
def test_a_photo_that_cannot_be_read_stops_the_run_with_its_name(
    photos: Path, runs: Path, tmp_path: Path, ray: object
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "broken.png").write_bytes(next(photos.glob("*.png")).read_bytes()[:100])
    with pytest.raises(UserError, match=r"broken\.png"):
        train(config(folder, runs, max_failures=0))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["lerning_rate=1"], "learning_rate"),
        (["data.clean=[nowhere]"], "nowhere"),
        (["init_from=absent.pt"], "absent.pt"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_sentence(
    photos: Path, tmp_path: Path, overrides: list[str], reason: str
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(settings(photos, tmp_path / "runs")))
    command = [sys.executable, "-m", "diffuir_platform.cli", "train", str(job), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_loss_falls(photos: Path, runs: Path, ray: object) -> None:
    run = config(
        photos,
        runs,
        stages=[{"steps": 40, "crop": 16, "batch": 10}],
        log_every=10,
        checkpoint_every=40,
        accumulate=1,
    )
    train(run)
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("diffuir").experiment_id])
    losses = [p.value for p in client.get_metric_history(found.info.run_id, "loss")]
    assert losses[-1] < 0.8 * losses[0]


def test_help_lists_every_setting_with_its_default() -> None:
    command = [sys.executable, "-m", "diffuir_platform.cli", "train", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    settings = " ".join(text.split())
    assert re.search(r"--learning-rate NUMBER .{0,100}\[default: 8\.0e-05\]", settings)
    assert re.search(r" ema\.decay .{0,120}\[default: 0\.995\]", settings)


def test_settings_of_the_quick_start_hold_the_published_mixture() -> None:
    quick = load_config(TrainConfig, JOBS / "train-quick.yaml")
    assert quick.mixture == {"haze": 0.4, "rain": 0.2, "snow": 0.2, "low_light": 0.1, "blur": 0.1}
