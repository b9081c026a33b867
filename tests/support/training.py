"""`diffuir train` on a cluster for tests: the running command, and the results of its run."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import torch
from mlflow import MlflowClient
from safetensors.torch import load as load_weights

from diffuir_platform import storage

from .nodes import BUCKET, Nodes

SECONDS = 240
"""Longest wait for anything on a busy machine, seconds."""


class Driver:
    """A running `diffuir train`, and the lines that it prints."""

    def __init__(self, nodes: Nodes, job: Path, *overrides: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "diffuir_platform.cli", "train", str(job), *overrides],
            env={**os.environ, **nodes.environment},
            cwd=job.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output: list[str] = []
        self._lines: Queue[str | None] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip())
        self._lines.put(None)

    def lines(self) -> Iterator[str]:
        """Yield the lines that it prints from now on, to its end."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=1)
            except Empty:
                continue
            if line is None:
                return
            self.output.append(line)
            yield line
        raise AssertionError(f"nothing more came in {SECONDS} s: {self.output}")

    def wait_for_step(self, step: int) -> None:
        """Wait until that step, or a later one, is done."""
        for line in self.lines():
            found = re.match(r"step (\d+)/", line)
            if found and int(found[1]) >= step:
                return
        raise AssertionError(f"it ended before step {step}: {self.output}")

    def wait_until_it_goes_on(self) -> int:
        """Wait until it resumes, and return the step that it goes on from."""
        for line in self.lines():
            found = re.match(r"going on from step (\d+)", line)
            if found:
                return int(found[1])
        raise AssertionError(f"it did not go on: {self.output}")

    def finish(self) -> None:
        for _ in self.lines():
            pass
        assert self.process.wait(SECONDS) == 0, self.output

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Run:
    """Files of a run in the store, and its curves in MLflow."""

    def __init__(self, job: Path, name: str) -> None:
        self.folder = f"{BUCKET}/runs/{name}"
        self.name = name
        self.client = MlflowClient(f"sqlite:///{job.parent / 'mlflow.db'}")

    def weights(self) -> dict[str, torch.Tensor]:
        return load_weights(storage.read_bytes(f"{self.folder}/weights.safetensors"))

    def snapshot(self) -> dict[str, Any]:
        """Return Ray Train's list of checkpoints."""
        return json.loads(storage.read_bytes(f"{self.folder}/checkpoint_manager_snapshot.json"))

    def state(self) -> dict[str, Any]:
        """Return the state in the last checkpoint."""
        last = self.snapshot()["latest_checkpoint_result"]["checkpoint_dir_name"]
        saved = storage.read_bytes(f"{self.folder}/{last}/state.pt")
        state = torch.load(io.BytesIO(saved), weights_only=True)
        del state["points"]  # those that MLflow did not have yet at that moment
        del state["recipe"]["settings"]["name"]
        return state

    def curve(self, name: str) -> dict[int, float]:
        """Return the values of a curve by step; fails where a step has two."""
        experiment = self.client.get_experiment_by_name("diffuir")
        (run,) = self.client.search_runs([experiment.experiment_id], f"attributes.run_name = '{self.name}'")
        assert run.info.status == "FINISHED"
        points = self.client.get_metric_history(run.info.run_id, name)
        steps = sorted(point.step for point in points)
        assert steps == sorted(set(steps)), f"{name} has points twice: {steps}"
        return {point.step: point.value for point in points}


def assert_equal(expected: Any, found: Any, where: str = "state") -> None:
    """Compare bit for bit, through dicts and lists."""
    if isinstance(expected, dict):
        assert expected.keys() == found.keys(), where
        for key in expected:
            assert_equal(expected[key], found[key], f"{where}.{key}")
    elif isinstance(expected, list):
        for i, pair in enumerate(zip(expected, found, strict=True)):
            assert_equal(*pair, f"{where}.{i}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(expected, found), where
    else:
        assert expected == found, where


def assert_close(expected: Run, found: Run) -> None:
    """Compare weights up to the order in which floats are added up."""
    one, other = found.weights(), expected.weights()
    worst = max(float((one[key] - other[key]).abs().max()) for key in one)
    assert worst < 1e-3, f"{found.name} and {expected.name} differ by {worst}"
