"""A sweep: a training run for every point of a grid, as many at once as there is room for, and their table."""

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
from ..runtime import ray_session
from ..storage import Lock
from ..tracking import Tracker, open_run
from ..train.checkpoints import WEIGHTS_FILE
from ..train.run import cpus_of, tracking_place, train, user_error_within
from ..train.settings import TrainConfig
from ..train.validation import held_out, measure
from . import report as sweep_report
from .report import Outcome
from .settings import SweepConfig, SweepPoint

SWEEP_FILE = "sweep.json"
"""In the sweep's folder: the id of its run in MLflow."""
MEASURED_FILE = "measured.json"
"""In the folder of each run: what its final weights reach."""
TABLE_FILE, RESULTS_FILE, PLOT_FILE = "table.md", "results.json", "plot.png"
SECONDS_BETWEEN_LOOKS = 30.0
"""At what a cluster has room for: it may have grown."""


def run_sweep(config: SweepConfig) -> int:
    """Train what is not trained yet, write the table and the plot, print the table, and return the exit code.

    0: all runs are there; 1: some failed and are named. Raises `UserError` where nothing can begin: no data, no
    storage, no tracker, finished runs of these names that had other settings, or another process at this sweep.
    """
    points = config.points()
    if not any(key.partition(".")[0] == "data" for key in config.grid):
        list_sources(config.train.data, {task for point in points for task in point.config.tasks})
    held_out(config.train.validation)
    folder = storage.join(storage.absolute(config.train.storage), config.name)
    with Lock(folder, f"runs the sweep {config.name}", "take another name", "train.storage") as lock:
        outcomes = _outcomes(config, folder, points, lock)
    print(f"\n{sweep_report.markdown(config.name, outcomes)}\nwritten: {storage.join(folder, TABLE_FILE)}")
    return 1 if any(outcome.figures is None for outcome in outcomes) else 0


def _outcomes(config: SweepConfig, folder: str, points: Sequence[SweepPoint], lock: Lock) -> list[Outcome]:
    """What comes of all points, with the table and the plot written, once nobody else is at it."""
    done = {point.config.name: _finished_outcome(point) for point in points if _is_measured(point.config)}
    waiting = [point for point in points if point.config.name not in done]
    if waiting or not _is_reported(config, folder, [done[p.config.name] for p in points]):
        tracker = _open_parent(config, folder)
        print(
            f"sweep {config.name}: {len(waiting)} of {len(points)} runs to train, their table goes to {folder}; "
            f"MLflow: {tracker.address} run {tracker.run_id}",
            flush=True,
        )
        with _closing(tracker) as failed:
            for outcome in _train_all(config, waiting, tracker.run_id):
                lock.check()
                done[outcome.name] = outcome
                print(f"{len(done)}/{len(points)} {_line(outcome)}", flush=True)
            outcomes = [done[point.config.name] for point in points]
            _write_report(config, folder, outcomes, tracker)
            failed += [outcome for outcome in outcomes if outcome.figures is None]
    return [done[point.config.name] for point in points]


def _open_parent(config: SweepConfig, folder: str) -> Tracker:
    """The run that all the others belong to; the same one each time."""
    file = storage.join(folder, SWEEP_FILE)
    known = json.loads(storage.read_bytes(file))["mlflow_run"] if storage.exists(file) else None
    uri, artifacts = tracking_place(config.train)
    tracker = open_run(uri, config.train.experiment, config.name, known, artifacts)
    if known is None:
        storage.write_bytes(file, json.dumps({"mlflow_run": tracker.run_id}).encode())
        tracker.log_params(config.model_dump(mode="json", exclude={"train": {"name", "address"}}))
    return tracker


@contextmanager
def _closing(tracker: Tracker) -> Iterator[list[Outcome]]:
    """The end of the parent run: failed where the block raises or leaves outcomes in the list."""
    failed: list[Outcome] = []
    try:
        yield failed
    except BaseException:
        tracker.finish(failed=True)
        raise
    tracker.finish(failed=bool(failed))


def _train_all(config: SweepConfig, points: Sequence[SweepPoint], parent: str) -> Iterator[Outcome]:
    """What comes of each point, as it comes."""
    if not points:
        return
    limit = min(len(points), config.at_once or _local_room(config.train) or len(points))
    with ray_session(config.train.address, least_cpus=limit * cpus_of(config.train), data=True):
        yield from _side_by_side(deque(points), limit, parent)


def _side_by_side(waiting: deque[SweepPoint], limit: int, parent: str) -> Iterator[Outcome]:
    """The same with at most `limit` runs at once; one that fails does not stop the others."""
    # No CPU for the process that only waits: the run's own workers and tasks are what `_room` counts.
    task = ray.remote(num_cpus=0)(_point_outcome_in)
    taken = _taken()
    running: dict[Any, SweepPoint] = {}
    while waiting or running:
        while waiting and len(running) < min(limit, _room(waiting[0].config, taken)):
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


def _local_room(config: TrainConfig) -> int | None:
    """Runs that this machine's cores and GPUs have work for at once; None where a Ray is there to be joined.

    A run without `threads` takes all cores.
    """
    if config.address is not None or ray.is_initialized():
        return None
    gpus = torch.cuda.device_count()
    if gpus and config.gpus is not False:
        return max(1, int(gpus // _gpus_of(config)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (config.most_workers * (config.threads or cores)))


def _taken() -> dict[str, float]:
    """What others had of the cluster when the sweep began."""
    there, free = ray.cluster_resources(), ray.available_resources()
    return {name: there.get(name, 0.0) - free.get(name, 0.0) for name in ("CPU", "GPU")}


def _room(config: TrainConfig, taken: Mapping[str, float]) -> int:
    """Runs that the cluster has room for now, those that are running among them; one may always try."""
    there = ray.cluster_resources()
    room = int((there.get("CPU", 0) - taken["CPU"]) // cpus_of(config))
    if there.get("GPU") and config.gpus is not False:
        room = min(room, int((there["GPU"] - taken["GPU"]) // _gpus_of(config)))
    return max(1, room)


def _gpus_of(config: TrainConfig) -> float:
    return config.most_workers + config.validation.gpus


def _point_outcome_in(folder: str, point: SweepPoint, parent: str) -> Outcome:
    """`point_outcome` in a process of Ray's, whose relative paths are of the folder the command was started in."""
    if os.path.isdir(folder):
        os.chdir(folder)
    return point_outcome(point, parent)


def _finished_outcome(point: SweepPoint) -> Outcome:
    """Of a run whose weights are there and measured; raises `UserError` where they came of other settings."""
    exported = train(point.config)
    return Outcome(
        name=point.config.name, values=point.values, weights=exported, figures=_measured(point.config)
    )


def point_outcome(point: SweepPoint, parent: str) -> Outcome:
    """Train the run, or go on with it, and measure its weights.

    Raises nothing: a run that failed is an outcome with the reason.
    """
    try:
        exported = train(point.config, parent=parent)
        figures = _measure(point.config, exported)
        return Outcome(name=point.config.name, values=point.values, weights=exported, figures=figures)
    except Exception as error:  # noqa: BLE001 - the other runs go on, whatever this one ended with
        return _failed(point, error)


def _failed(point: SweepPoint, error: Exception) -> Outcome:
    sentence = str(error) if isinstance(error, UserError) else user_error_within(error)
    reason = sentence or f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return Outcome(name=point.config.name, values=point.values, error=reason)


def _is_measured(config: TrainConfig) -> bool:
    return storage.exists(_file(config, WEIGHTS_FILE)) and _measured(config) is not None


def _measured(config: TrainConfig) -> dict[str, float] | None:
    """What the run's weights were found to reach, None where nobody has measured them on these pairs."""
    if not storage.exists(_file(config, MEASURED_FILE)):
        return None
    found = json.loads(storage.read_bytes(_file(config, MEASURED_FILE)))
    if found["validation"] != config.validation.model_dump(mode="json"):
        return None
    return {key: float(value) for key, value in found["figures"].items()}


def _measure(config: TrainConfig, exported: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="diffuir-") as folder:
        local = Path(folder) / WEIGHTS_FILE
        local.write_bytes(storage.read_bytes(exported))
        restorer = Restorer(local, precision="float32")
    figures = measure(restorer, held_out(config.validation))
    found = {"validation": config.validation.model_dump(mode="json"), "figures": sweep_report.finite(figures)}
    storage.write_bytes(_file(config, MEASURED_FILE), json.dumps(found, indent=1).encode())
    return figures


def _file(config: TrainConfig, name: str) -> str:
    return storage.join(storage.absolute(config.storage), f"{config.name}/{name}")


def _files(config: SweepConfig, outcomes: Sequence[Outcome]) -> dict[str, bytes]:
    """What a sweep leaves in its folder."""
    files = {
        TABLE_FILE: sweep_report.markdown(config.name, outcomes).encode(),
        RESULTS_FILE: sweep_report.as_json(config.name, outcomes).encode(),
    }
    if any(outcome.figures for outcome in outcomes):
        files[PLOT_FILE] = sweep_report.plot(config.name, outcomes)
    return files


def _is_reported(config: SweepConfig, folder: str, outcomes: Sequence[Outcome]) -> bool:
    file = storage.join(folder, RESULTS_FILE)
    results = sweep_report.as_json(config.name, outcomes).encode()
    return storage.exists(file) and storage.read_bytes(file) == results


def _write_report(config: SweepConfig, folder: str, outcomes: Sequence[Outcome], tracker: Tracker) -> None:
    """Table, figures and plot, in the parent run and in the sweep's folder; the figures last, as they say that all
    is there."""
    files = _files(config, outcomes)
    with tempfile.TemporaryDirectory(prefix="diffuir-") as temporary:
        for name in sorted(files, key=lambda name: name == RESULTS_FILE):
            local = Path(temporary) / name
            local.write_bytes(files[name])
            tracker.log_file(local, "sweep")
            storage.write_bytes(storage.join(folder, name), files[name])


def _line(outcome: Outcome) -> str:
    if outcome.figures is None:
        return f"failed: {outcome.name}: {outcome.error}"
    return f"{outcome.name}: {outcome.figures['psnr']:.2f} dB, SSIM {outcome.figures['ssim']:.4f}"
