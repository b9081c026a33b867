"""What `diffuir train` adds to its arithmetic: the run beside a bare DDP loop over the same batches.

python tests/benchmarks/training_loop.py [--turns 3] [--seconds 40] [--crop 64] [--batch 10]
    [--variant T] [--device cpu] [--data-tasks 2] [--threads N] [--json FILE]

Both train on the photos that scikit-image bundles, with batches that the same functions make up in as many
processes while they train. The bare loop does the same arithmetic under PyTorch's DDP alone, with PyTorch's
DataLoader; the run has Ray Train and Ray Data, logs and checkpoints. Both are started, and then go in turns, the
other one stopped (SIGSTOP), so that a machine's good and bad minutes meet both. In each turn the bare loop goes
once beside the idle processes of the run's Ray, and once with these stopped too: what is the loop's own, and
what is Ray's. With fewer threads than cores (`--threads`) Ray's processes have a core of their own. `waiting`:
the share of the run's time that it waits for data, as it logs it.
"""

from __future__ import annotations

import argparse
import json
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
from PIL import Image
from rich.console import Console
from rich.table import Table

SIDES = ("the run", "bare, beside Ray", "bare")
Started = multiprocessing.context.SpawnProcess

LOG_EVERY = 10
WARM_UP = 20
"""Steps of each side before the first turn."""


def settings(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Of a run like the quick start's, of more steps than will be made."""
    return {
        "name": "run",
        "storage": str(folder / "runs"),
        "data": {"clean": [str(folder / "photos")]},
        "variant": asked.variant,
        "stages": [{"steps": 100_000, "crop": asked.crop, "batch": asked.batch}],
        "accumulate": 1,
        "gpus": asked.device == "cuda",
        "threads": asked.threads,
        "data_tasks": asked.data_tasks,
        "log_every": LOG_EVERY,
        "checkpoint_every": 200,
        "panels_every": 100_000,
    }


def the_run(values: dict[str, Any]) -> None:
    """`diffuir train`."""
    from diffuir_platform.train import TrainConfig, train

    train(TrainConfig.model_validate(values))


def points_of_the_run(values: dict[str, Any]) -> list[tuple[float, float]]:
    """(when, share of waiting) of each point that the run has logged."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{values['storage']}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("diffuir").experiment_id])
    curve = client.get_metric_history(run.info.run_id, "data_wait_share")
    return [(point.timestamp / 1000, point.value) for point in curve]


class Shares(torch.utils.data.Dataset[Any]):
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
        from diffuir_platform.data import Share, load_or_replace

        slots, stage = self.mixture.slots(batch), self.mixture.stage(batch)
        loaded = [load_or_replace(slot, self.sources[slot.task], stage.crop) for slot in slots]
        degraded, clean = (np.stack([getattr(one, side) for one in loaded]) for side in ("degraded", "clean"))
        return Share(batch, degraded, clean, slots, stage.batch, [])


def the_bare_loop(values: dict[str, Any], steps: Path) -> None:
    """The same steps without anything around them; when each ended is a line of the file `steps`."""
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
        Shares(values),
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


def times(steps: Path) -> list[float]:
    """When the steps of the bare loop ended."""
    return [float(line) for line in steps.read_text().split()] if steps.exists() else []


def processes(root: Started) -> list[psutil.Process]:
    """`root` and all that it started, in whatever depth; none where it has not begun."""
    if root.pid is None:
        return []
    process = psutil.Process(root.pid)
    return [process, *process.children(recursive=True)]


def send(number: signal.Signals, to: Iterable[psutil.Process]) -> None:
    """Send a signal to each that is still there."""
    for process in to:
        if process.is_running():
            process.send_signal(number)


def wait_for(what: Callable[[], bool], of: Iterable[Any]) -> None:
    """Until it is so; raises RuntimeError once one of the processes has ended."""
    while not what():
        if not all(process.is_alive() for process in of):
            raise RuntimeError("a side has ended before it was measured")
        time.sleep(0.5)


def in_turns(run: Started, bare: Started, turns: int, seconds: float) -> list[tuple[str, float, float]]:
    """Let the sides go one after the other; who went, from when until when."""
    trainer = [process for process in processes(run) if "RayTrainWorker" in "".join(process.cmdline())]
    if not trainer:
        raise RuntimeError("no process of the run trains")
    went = []
    for _ in range(turns):
        for side in SIDES:
            everything = {*processes(run), *processes(bare)}
            goes = {
                SIDES[0]: set(processes(run)),
                SIDES[1]: everything - set(trainer),
                SIDES[2]: set(processes(bare)),
            }[side]
            send(signal.SIGSTOP, everything - goes)
            send(signal.SIGCONT, goes)
            began = time.time()
            time.sleep(seconds)
            went.append((side, began, time.time()))
    send(signal.SIGCONT, processes(run))
    return went


def seconds_apart(times: list[float], began: float, ended: float) -> float:
    """How far those in between lie apart, in the mean."""
    inside = [end for end in times if began < end < ended]
    return statistics.mean(b - a for a, b in pairwise(inside))


def measure(folder: Path, asked: argparse.Namespace) -> tuple[dict[str, list[float]], float]:
    """Seconds a step of each side, a figure a turn; and the run's share of waiting."""
    context = multiprocessing.get_context("spawn")
    values = settings(folder, asked)
    steps = folder / "steps"
    run = context.Process(target=the_run, args=(values,))
    bare = context.Process(target=the_bare_loop, args=(values, steps))
    database = Path(values["storage"]) / "mlflow.db"
    run.start()
    bare.start()  # both at once: on a GPU each compiles for minutes
    try:
        wait_for(lambda: database.exists(), [run, bare])
        wait_for(lambda: len(points_of_the_run(values)) * LOG_EVERY >= WARM_UP, [run, bare])
        wait_for(lambda: len(times(steps)) >= WARM_UP, [run, bare])
        went = in_turns(run, bare, asked.turns, asked.seconds)
        points = points_of_the_run(values)
    finally:
        for process in processes(run) + processes(bare):
            send(signal.SIGCONT, [process])
            process.kill()
    measured: dict[str, list[float]] = {side: [] for side in SIDES}
    for side, began, ended in went:
        ends = [when for when, _ in points] if side == SIDES[0] else times(steps)
        steps_apart = LOG_EVERY if side == SIDES[0] else 1
        measured[side].append(seconds_apart(ends, began, ended) / steps_apart)
    waiting = [share for when, share in points for side, a, b in went if side == SIDES[0] and a < when < b]
    return measured, statistics.mean(waiting)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40, help="that a side has in each turn")
    parser.add_argument("--variant", default="T")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--data-tasks", type=int, default=2, help="processes that make batches up, of either side"
    )
    parser.add_argument("--threads", type=int, help="of the arithmetic on either side (all cores)")
    parser.add_argument("--json", help="write the figures here too")
    asked = parser.parse_args()
    from skimage import data

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        photos = Path(name) / "photos"
        photos.mkdir()
        for photo in ("astronaut", "coffee", "chelsea"):
            Image.fromarray(getattr(data, photo)()).save(photos / f"{photo}.png")
        measured, waiting = measure(Path(name), asked)
    table = Table(
        "",
        "s a step",
        "of bare",
        "waiting",
        title=f"{asked.variant}, {asked.batch} crops of {asked.crop}, {asked.device}",
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
    if asked.json:
        Path(asked.json).write_text(
            json.dumps(vars(asked) | {"seconds": measured, "waiting": waiting}, indent=1)
        )


if __name__ == "__main__":
    main()
