"""A run that is asked to stop saves a checkpoint, says so, and goes on from there."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml

from diffuir_platform.train import train
from diffuir_platform.train.stopping import StoppedEarly, StopSign, StopWatcher, stop_request
from support.small_run import config, settings, weights_of


def test_a_worker_sees_the_sign_without_waiting(ray: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffuir_platform.train.stopping.SECONDS_BETWEEN_LOOKS", 0.05)
    sign = StopSign()
    watcher = StopWatcher(sign)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        assert not watcher.is_asked()
    sign.set()
    deadline = time.monotonic() + 10
    while not watcher.is_asked():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_and_the_clock_set_the_sign(ray: object, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for minutes in (None, 0.001):
        sign = StopSign()
        watcher = StopWatcher(sign)
        with stop_request(sign, minutes) as request:
            if minutes is None:
                signal.raise_signal(signal.SIGTERM)
            deadline = time.monotonic() + 10
            while not watcher.is_asked():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert signal.getsignal(signal.SIGTERM) == before
        assert request.exit_code == (143 if minutes is None else 0)
    printed = capsys.readouterr().out
    assert "stopping by SIGTERM: one more checkpoint is saved first" in printed
    assert "stopping after 0.001 minutes" in printed


def test_a_run_that_ends_first_leaves_no_request(ray: object) -> None:
    threads = threading.active_count()
    with stop_request(StopSign(), None) as request:
        pass
    assert request.reason is None
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_and_gives_the_same_weights(
    photos: Path, tmp_path: Path, ray: object, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [{"steps": 90, "crop": 16, "batch": 10}]
    changes = {"stages": stages, "checkpoint_every": 10_000, "log_every": 50}
    train(config(photos, tmp_path / "whole", **changes))
    with pytest.raises(
        StoppedEarly, match=r"stopped after 0\.02 minutes at step \d+ of 90: the same command"
    ) as stopped:
        train(config(photos, tmp_path / "parts", stop_after=0.02, **changes))
    assert stopped.value.exit_code == 0
    assert not (tmp_path / "parts" / "test" / "weights.safetensors").exists()
    capsys.readouterr()
    train(config(photos, tmp_path / "parts", **changes))
    assert "going on from step" in capsys.readouterr().out
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_saves_a_checkpoint(photos: Path, tmp_path: Path, number: int, name: str) -> None:
    job = tmp_path / "job.yaml"
    changes = {"stages": [{"steps": 5000, "crop": 16, "batch": 10}], "checkpoint_every": 10_000}
    job.write_text(yaml.safe_dump(settings(photos, tmp_path / "runs", **changes)))
    command = [sys.executable, "-m", "diffuir_platform.cli", "train", str(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines, is_sent = [], False
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step ") and not is_sent:
                is_sent = True
                process.send_signal(number)
        assert process.wait(120) == 128 + number, "".join(lines)
    assert f"stopping by {name}" in "".join(lines)
    assert "the same command goes on from there" in lines[-1]
    assert list((tmp_path / "runs" / "test").glob("checkpoint_*/state.pt"))
