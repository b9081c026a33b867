"""Overhead of `diffuir train`: a run beside a bare DDP loop over the same batches.

python tests/benchmarks/training_loop.py [--turns 3] [--seconds 40] [--crop 64] [--batch 10]
    [--variant T] [--device cpu] [--data-tasks 2] [--threads N] [--json FILE]

Both train on the photos that scikit-image bundles, with batches that the same functions make in the same number of
processes during the training. The bare loop does the same arithmetic with only PyTorch's DDP and DataLoader; the
run adds Ray Train and Ray Data, logging and checkpoints. Both are started and then take turns, the other one
stopped (SIGSTOP), so that a machine's fast and slow minutes affect both. In each turn the bare loop runs once
beside the idle processes of the run's Ray, and once with these stopped too, which separates the cost of Ray's
processes from that of the run. With fewer threads than cores (`--threads`) Ray's processes have a core of their
own. `waiting`: share of the run's time spent waiting for data, from its own metrics.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from options import benchmark_parser, write_figures
from photos import write_photos
from rich.console import Console
from rich.table import Table

SIDES = ("the run", "bare, beside Ray", "bare")
"""The sides of the comparison, in the order of a turn."""
Started = multiprocessing.context.SpawnProcess

LOG_EVERY = 10
"""Steps between two points of the run's metrics."""
WARM_UP = 20
"""Steps of each side before the first turn."""


def settings(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The settings of a run like the quick start's, with more steps than will be made."""
    return {
        "name": "run",
        "storage": str(folder / "runs"),
        "data": {"clean": [str(folder / "photos")]},
        "variant": options.variant,
        "stages": [{"steps": 100_000, "crop": options.crop, "batch": options.batch}],
        "accumulate": 1,
        "gpus": options.device == "cuda",
        "threads": options.threads,
        "data_tasks": options.data_tasks,
        "log_every": LOG_EVERY,
        "checkpoint_every": 200,
        "panels_every": 100_000,
    }


def train_run(values: dict[str, Any]) -> None:
    """Run `diffuir train` in this process."""
    from diffuir_platform.train import TrainConfig, train

    train(TrainConfig.model_validate(values))


def logged_points(values: dict[str, Any]) -> list[tuple[float, float]]:
    """(time, share of waiting) of each point that the run has logged."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{values['storage']}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("diffuir").experiment_id])
    curve = client.get_metric_history(run.info.run_id, "data_wait_share")
    return [(point.timestamp / 1000, point.value) for point in curve]


class Batches(torch.utils.data.Dataset[Any]):
    """The batches of a run, as a map-style data set."""

    def __init__(self, values: dict[str, Any]) -> None:
        from diffuir_platform.data import Mixture, list_sources
        from diffuir_platform.train import TrainConfig

        config = TrainConfig.model_validate(values)
        self.sources = list_sources(config.data)
        lengths = {task: len(items) for task, items in self.sources.items()}
        self.mixture = Mixture(config.seed, config.batch_stages(), lengths, config.mixture)

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, batch: int) -> Any:
        from diffuir_platform.data import LocalBatch, load_or_replace

        slots, stage = self.mixture.slots(batch), self.mixture.stage(batch)
        loaded = [load_or_replace(slot, self.sources[slot.task], stage.crop) for slot in slots]
        degraded, clean = (np.stack([getattr(one, side) for one in loaded]) for side in ("degraded", "clean"))
        return LocalBatch(batch, degraded, clean, slots, stage.batch, [])


def bare_loop(values: dict[str, Any], steps: Path) -> None:
    """Make the same steps in a bare DDP loop; the time of each step's end is a line of the file `steps`."""
    from torch.nn.parallel import DistributedDataParallel

    from diffuir_core.allocator import keep_freed_memory
    from diffuir_platform.train import TrainConfig
    from diffuir_platform.train.loop import accumulate_gradients
    from diffuir_platform.train.state import TrainState

    keep_freed_memory()
    config = TrainConfig.model_validate(values)
    if config.threads:
        torch.set_num_threads(config.threads)
    shares = torch.utils.data.DataLoader(
        Batches(values),
        batch_size=None,
        num_workers=config.data_tasks,
        multiprocessing_context="spawn",
    )
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    device = torch.device("cuda" if config.gpus else "cpu")
    torch.distributed.init_process_group("nccl" if config.gpus else "gloo", store=store, rank=0, world_size=1)
    state = TrainState(config, device)
    network = DistributedDataParallel(state.network)
    with steps.open("a", buffering=1) as file:
        for share in shares:
            accumulate_gradients(network, state, share, 1)
            state.advance(network)
            file.write(f"{time.time()}\n")


def step_ends(steps: Path) -> list[float]:
    """The times at which the steps of the bare loop ended."""
    return [float(line) for line in steps.read_text().split()] if steps.exists() else []


def processes(root: Started) -> list[psutil.Process]:
    """`root` and all its descendants; none before it has started or after it has ended."""
    if root.pid is None or not root.is_alive():
        return []
    process = psutil.Process(root.pid)
    return [process, *process.children(recursive=True)]


def send(number: signal.Signals, to: Iterable[psutil.Process]) -> None:
    """Send a signal to those processes that still run."""
    for process in to:
        if process.is_running():
            process.send_signal(number)


def wait_until(condition: Callable[[], bool], processes: Iterable[Any]) -> None:
    """Wait until `condition` is true; raises RuntimeError if one of the processes ends before."""
    while not condition():
        if not all(process.is_alive() for process in processes):
            raise RuntimeError("a side ended before it was measured: its error is above")
        time.sleep(0.5)


def in_turns(run: Started, bare: Started, turns: int, seconds: float) -> list[tuple[str, float, float]]:
    """Run the sides in turns; returns (side, start, end) of each."""
    trainer = [process for process in processes(run) if "RayTrainWorker" in "".join(process.cmdline())]
    if not trainer:
        raise RuntimeError("the run has no training worker: its error is above")
    intervals = []
    for _ in range(turns):
        for side in SIDES:
            everything = {*processes(run), *processes(bare)}
            running = {
                SIDES[0]: set(processes(run)),
                SIDES[1]: everything - set(trainer),
                SIDES[2]: set(processes(bare)),
            }[side]
            send(signal.SIGSTOP, everything - running)
            send(signal.SIGCONT, running)
            began = time.time()
            time.sleep(seconds)
            intervals.append((side, began, time.time()))
    send(signal.SIGCONT, processes(run))
    return intervals


def mean_spacing(times: list[float], began: float, ended: float) -> float:
    """Mean distance of the times between `began` and `ended`, seconds."""
    inside = [end for end in times if began < end < ended]
    return statistics.mean(b - a for a, b in pairwise(inside))


def measure(folder: Path, options: argparse.Namespace) -> tuple[dict[str, list[float]], float]:
    """Seconds per step of each side, one figure per turn, and the run's share of waiting."""
    context = multiprocessing.get_context("spawn")
    values = settings(folder, options)
    steps = folder / "steps"
    run = context.Process(target=train_run, args=(values,))
    bare = context.Process(target=bare_loop, args=(values, steps))
    database = Path(values["storage"]) / "mlflow.db"
    run.start()
    bare.start()  # both at once: on a GPU each compiles for minutes
    try:
        wait_until(lambda: database.exists(), [run, bare])
        wait_until(lambda: len(logged_points(values)) * LOG_EVERY >= WARM_UP, [run, bare])
        wait_until(lambda: len(step_ends(steps)) >= WARM_UP, [run, bare])
        intervals = in_turns(run, bare, options.turns, options.seconds)
        points = logged_points(values)
    finally:
        for process in processes(run) + processes(bare):
            send(signal.SIGCONT, [process])
            process.kill()
    measured: dict[str, list[float]] = {side: [] for side in SIDES}
    for side, began, ended in intervals:
        ends = [when for when, _ in points] if side == SIDES[0] else step_ends(steps)
        steps_apart = LOG_EVERY if side == SIDES[0] else 1
        measured[side].append(mean_spacing(ends, began, ended) / steps_apart)
    waiting = [
        share for when, share in points for side, a, b in intervals if side == SIDES[0] and a < when < b
    ]
    return measured, statistics.mean(waiting)


def main() -> None:
    """Measure and print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--crop", type=int, default=64, help="side of a crop, pixels")
    parser.add_argument("--batch", type=int, default=10, help="crops in a step, a multiple of 10")
    parser.add_argument("--turns", type=int, default=3, help="measurements of each side")
    parser.add_argument("--seconds", type=float, default=40, help="length of a measurement, seconds")
    parser.add_argument("--variant", default="T", help="variant of the network: T, S, B or L")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="torch device")
    parser.add_argument(
        "--data-tasks", type=int, default=2, help="processes of either side that make batches"
    )
    parser.add_argument(
        "--threads", type=int, help="threads of the arithmetic of either side; None for all cores"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        write_photos(Path(name) / "photos")
        measured, waiting = measure(Path(name), options)
    table = Table(
        "",
        "s a step",
        "of bare",
        "waiting",
        title=f"{options.variant}, {options.batch} crops of {options.crop}, {options.device}",
    )
    for side, values in measured.items():
        speeds = [bare / value for value, bare in zip(values, measured["bare"], strict=True)]
        table.add_row(
            side,
            f"{statistics.median(values):.3f}",
            f"{statistics.median(speeds):.1%}",
            f"{waiting:.1%}" if side == SIDES[0] else "",
        )
    Console().print(table)
    beside = [bare / run for run, bare in zip(measured[SIDES[0]], measured[SIDES[1]], strict=True)]
    print(f"the run is at {statistics.median(beside):.1%} of the bare loop beside the same Ray")
    write_figures(options, vars(options) | {"seconds": measured, "waiting": waiting})


if __name__ == "__main__":
    main()
