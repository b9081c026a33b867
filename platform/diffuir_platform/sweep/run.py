"""The driver of a sweep: trains a run for every point of a grid, as many at once as fit, and writes a table."""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch

from diffuir_core import Restorer, UserError

from .. import storage
from ..data import list_sources
from ..inference import fetch_weights
from ..runtime import ray_session
from ..storage import Lock
from ..text import json_values
from ..tracking import Tracker, open_run
from ..train.checkpoints import MEASURED_FILE, WEIGHTS_FILE
from ..train.run import find_user_error, required_cpus, tracking_location, train
from ..train.settings import TrainConfig
from ..train.validation import held_out, measure
from . import report as sweep_report
from .report import RunResult
from .settings import SweepConfig, SweepPoint

SWEEP_FILE = "sweep.json"
"""File in the sweep's folder with the id of its run in MLflow."""
TABLE_FILE, RESULTS_FILE, PLOT_FILE = "table.md", "results.json", "plot.png"
SECONDS_BETWEEN_LOOKS = 30.0
"""Longest time until the sweep sees that a cluster has grown, seconds."""


def run_sweep(config: SweepConfig) -> int:
    """Train the runs that are missing, write and print the table, write the plot, and return the exit code.

    0: all runs are trained; 1: some failed and are named. Raises `UserError` where nothing can start: no data, no
    storage, no tracker, finished runs of these names with other settings, or another process at this sweep.
    """
    points = config.points()
    if not any(key.partition(".")[0] == "data" for key in config.grid):
        list_sources(config.train.data, {task for point in points for task in point.config.tasks})
    held_out(config.train.validation, config.train.data.max_pixels)
    folder = storage.join(storage.absolute(config.train.storage), config.name)
    with Lock(folder, f"runs the sweep {config.name}", "take another name", "train.storage") as lock:
        results = _complete(config, folder, points, lock)
    print(f"\n{sweep_report.markdown(config.name, results)}\nwritten: {storage.join(folder, TABLE_FILE)}")
    return 1 if any(result.figures is None for result in results) else 0


def _complete(config: SweepConfig, folder: str, points: Sequence[SweepPoint], lock: Lock) -> list[RunResult]:
    """Train what is missing and write the report, while this process holds the lock; return all results."""
    done = {point.config.name: _finished_result(point) for point in points if _is_measured(point.config)}
    missing = [point for point in points if point.config.name not in done]
    if missing or not _is_reported(config, folder, [done[p.config.name] for p in points]):
        tracker = _open_parent(config, folder)
        print(
            f"sweep {config.name}: {len(missing)} of {len(points)} runs to train, their table goes to {folder}; "
            f"MLflow: {tracker.address} run {tracker.run_id}",
            flush=True,
        )
        with _finished_in(tracker) as failed:
            for result in _train_all(config, missing, tracker.run_id):
                lock.check()
                done[result.name] = result
                print(f"{len(done)}/{len(points)} {_line(result)}", flush=True)
            results = [done[point.config.name] for point in points]
            _write_report(config, folder, results, tracker)
            failed += [result for result in results if result.figures is None]
    return [done[point.config.name] for point in points]


def _open_parent(config: SweepConfig, folder: str) -> Tracker:
    """Open the MLflow run that is the parent of the sweep's runs: a new one, or the one of an earlier start."""
    file = storage.join(folder, SWEEP_FILE)
    known = json.loads(storage.read_bytes(file))["mlflow_run"] if storage.exists(file) else None
    uri, artifacts = tracking_location(config.train)
    tracker = open_run(uri, config.train.experiment, config.name, known, artifacts)
    if known != tracker.run_id:
        storage.write_bytes(file, json.dumps({"mlflow_run": tracker.run_id}).encode())
        tracker.log_params(config.model_dump(mode="json", exclude={"train": {"name", "address"}}))
    return tracker


@contextmanager
def _finished_in(tracker: Tracker) -> Iterator[list[RunResult]]:
    """Close the parent run at the end of the block: failed where that raises or puts results into the list."""
    failed: list[RunResult] = []
    try:
        yield failed
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FAILED" if failed else "FINISHED")


def _train_all(config: SweepConfig, points: Sequence[SweepPoint], parent: str) -> Iterator[RunResult]:
    """Train the points and yield each result as soon as it is there; parent: id of the parent run in MLflow."""
    if not points:
        return
    limit = min(len(points), config.at_once or _local_limit(config.train) or len(points))
    with ray_session(config.train.address, least_cpus=limit * required_cpus(config.train), data=True):
        yield from _train_concurrently(deque(points), limit, parent)


def _train_concurrently(waiting: deque[SweepPoint], limit: int, parent: str) -> Iterator[RunResult]:
    """Train at most `limit` points at once and yield their results; a run that fails does not stop the others."""
    # The driver of a run asks for no CPU: `_limit_on_cluster` counts those of its workers and tasks.
    task = ray.remote(num_cpus=0)(_run_point_in)
    used = _used_resources()
    running: dict[Any, SweepPoint] = {}
    while waiting or running:
        while waiting and len(running) < min(limit, _limit_on_cluster(waiting[0].config, used)):
            point = waiting.popleft()
            print(f"training {point.config.name}", flush=True)
            running[task.remote(os.getcwd(), point, parent)] = point
        finished, _ = ray.wait(list(running), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
        for reference in finished:
            point = running.pop(reference)
            try:
                yield ray.get(reference)
            except ray.exceptions.RayError as error:
                yield _failed(point, error)


def _local_limit(config: TrainConfig) -> int | None:
    """Most runs at once for the cores and GPUs of this machine; None where an existing Ray is used.

    A run without `threads` takes all cores.
    """
    if config.address is not None or ray.is_initialized():
        return None
    gpus = torch.cuda.device_count()
    if gpus and config.gpus is not False:
        return max(1, int(gpus // _required_gpus(config)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (config.most_workers * (config.threads or cores)))


def _used_resources() -> dict[str, float]:
    """CPUs and GPUs of the cluster that others use when the sweep starts."""
    total, free = ray.cluster_resources(), ray.available_resources()
    return {name: total.get(name, 0.0) - free.get(name, 0.0) for name in ("CPU", "GPU")}


def _limit_on_cluster(config: TrainConfig, used: Mapping[str, float]) -> int:
    """Most runs at once for the cluster's present size, and at least one; used: resources that others use."""
    total = ray.cluster_resources()
    limit = int((total.get("CPU", 0) - used["CPU"]) // required_cpus(config))
    if total.get("GPU") and config.gpus is not False:
        limit = min(limit, int((total["GPU"] - used["GPU"]) // _required_gpus(config)))
    return max(1, limit)


def _required_gpus(config: TrainConfig) -> float:
    return config.most_workers + config.validation.gpus


def _run_point_in(folder: str, point: SweepPoint, parent: str) -> RunResult:
    """`run_point` in a Ray task; folder: where the command was started, the base of relative paths."""
    if os.path.isdir(folder):
        os.chdir(folder)
    return run_point(point, parent)


def _finished_result(point: SweepPoint) -> RunResult:
    """Result of a run that is trained and measured; raises `UserError` where it had other settings."""
    exported = train(point.config)
    return RunResult(
        name=point.config.name, values=point.values, weights=exported, figures=_measured(point.config)
    )


def run_point(point: SweepPoint, parent: str) -> RunResult:
    """Train or resume the run of a point, and measure its weights; parent: id of the parent run in MLflow.

    Raises nothing: the result of a run that failed holds the reason.
    """
    try:
        exported = train(point.config, parent=parent)
        figures = _measure(point.config, exported)
        return RunResult(name=point.config.name, values=point.values, weights=exported, figures=figures)
    except Exception as error:  # noqa: BLE001 - the other runs go on, whatever ended this one
        return _failed(point, error)


def _failed(point: SweepPoint, error: Exception) -> RunResult:
    sentence = str(error) if isinstance(error, UserError) else find_user_error(error)
    reason = sentence or f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return RunResult(name=point.config.name, values=point.values, error=reason)


def _is_measured(config: TrainConfig) -> bool:
    return storage.exists(_file(config, WEIGHTS_FILE)) and _measured(config) is not None


def _measured(config: TrainConfig) -> dict[str, float] | None:
    """Metrics of the run's weights from `MEASURED_FILE`; None where they were not measured on these pairs."""
    if not storage.exists(_file(config, MEASURED_FILE)):
        return None
    found = json.loads(storage.read_bytes(_file(config, MEASURED_FILE)))
    if found["validation"] != config.validation.model_dump(mode="json"):
        return None
    return {key: float(value) for key, value in found["figures"].items()}


def _measure(config: TrainConfig, exported: str) -> dict[str, float]:
    """Measure the exported weights on the held-out pairs, and write the metrics into `MEASURED_FILE`."""
    with fetch_weights(exported).as_file() as file:
        restorer = Restorer(file, precision="float32", guard=False)
    figures = measure(restorer, held_out(config.validation, config.data.max_pixels))
    found = {"validation": config.validation.model_dump(mode="json"), "figures": json_values(figures)}
    storage.write_bytes(_file(config, MEASURED_FILE), json.dumps(found, indent=1).encode())
    return figures


def _file(config: TrainConfig, name: str) -> str:
    return storage.join(storage.absolute(config.storage), f"{config.name}/{name}")


def _files(config: SweepConfig, results: Sequence[RunResult]) -> dict[str, bytes]:
    """Files of the report by name; without a plot where no run has metrics."""
    files = {
        TABLE_FILE: sweep_report.markdown(config.name, results).encode(),
        RESULTS_FILE: sweep_report.as_json(config.name, results).encode(),
    }
    if any(result.figures for result in results):
        files[PLOT_FILE] = sweep_report.plot(config.name, results)
    return files


def _is_reported(config: SweepConfig, folder: str, results: Sequence[RunResult]) -> bool:
    file = storage.join(folder, RESULTS_FILE)
    expected = sweep_report.as_json(config.name, results).encode()
    return storage.exists(file) and storage.read_bytes(file) == expected


def _write_report(config: SweepConfig, folder: str, results: Sequence[RunResult], tracker: Tracker) -> None:
    """Write table, plot and results into the parent run and the sweep's folder; the results last, so that where
    they are, the others are too."""
    files = _files(config, results)
    with tempfile.TemporaryDirectory(prefix="diffuir-") as temporary:
        for name in sorted(files, key=lambda name: name == RESULTS_FILE):
            local = Path(temporary) / name
            local.write_bytes(files[name])
            tracker.log_file(local, "sweep")
            storage.write_bytes(storage.join(folder, name), files[name])


def _line(result: RunResult) -> str:
    if result.figures is None:
        return f"failed: {result.name}: {result.error}"
    return f"{result.name}: {result.figures['psnr']:.2f} dB, SSIM {result.figures['ssim']:.4f}"
