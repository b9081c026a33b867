"""What `diffuir train` adds to its arithmetic: the run beside a bare DDP loop over the same batches.

python tests/benchmarks/training_loop.py [--steps 40] [--crop 64] [--batch 10] [--json FILE]

Both sides train a T on the photos that scikit-image bundles, in turns, each in a process of its own, and make the
same batches up while they train, with the same functions in as many processes. The bare loop does the same
arithmetic under PyTorch's DDP alone, with PyTorch's DataLoader; the run has Ray Train and Ray Data, logs and
checkpoints. `waiting`: the share of the run's time that it waits for data, as it logs it. The first quarter of the
steps is not counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table


def settings(folder: Path, steps: int, crop: int, batch: int) -> dict[str, Any]:
    """Of a run like the quick start's."""
    return {
        "name": "run",
        "storage": str(folder / "runs"),
        "data": {"clean": [str(folder / "photos")]},
        "stages": [{"steps": steps, "crop": crop, "batch": batch}],
        "accumulate": 1,
        "log_every": max(1, steps // 4),
        "checkpoint_every": max(1, steps // 2),
        "panels_every": 10 * steps,
    }


def the_run(values: dict[str, Any]) -> list[dict[str, float]]:
    """The points that a run logs: images per second and the share of waiting, of each quarter of its steps."""
    from mlflow import MlflowClient

    from diffuir_platform.train import TrainConfig, train

    train(TrainConfig.model_validate(values))
    client = MlflowClient(f"sqlite:///{values['storage']}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("diffuir").experiment_id])
    curves = {
        name: client.get_metric_history(run.info.run_id, name)
        for name in ("images_per_second", "data_wait_share")
    }
    return [
        {name: curve[i].value for name, curve in curves.items()}
        for i in range(len(curves["data_wait_share"]))
    ]


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


def the_bare_loop(values: dict[str, Any]) -> float:
    """Images per second of the same steps without anything around them."""
    from torch.nn.parallel import DistributedDataParallel

    from diffuir_core.allocator import keep_freed_memory
    from diffuir_platform.train import TrainConfig
    from diffuir_platform.train.loop import accumulate_gradients
    from diffuir_platform.train.state import TrainState

    keep_freed_memory()
    config = TrainConfig.model_validate(values)
    shares = torch.utils.data.DataLoader(
        Shares(values),
        batch_size=None,
        num_workers=config.data_tasks,
        multiprocessing_context="spawn",
    )
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    state = TrainState(config, torch.device("cpu"))
    network = DistributedDataParallel(state.model)
    first = len(shares) // 4
    for i, share in enumerate(shares):
        if i == first:
            began = time.perf_counter()
        accumulate_gradients(network, state, share, 1)
        state.advance(network)
    return (len(shares) - first) * config.stages[0].batch / (time.perf_counter() - began)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json", help="write the figures here too")
    asked = parser.parse_args()
    from skimage import data

    runs, bare, waiting = [], [], []
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        photos.mkdir()
        for photo in ("astronaut", "coffee", "chelsea"):
            Image.fromarray(getattr(data, photo)()).save(photos / f"{photo}.png")
        for turn in range(asked.turns):
            values = settings(Path(name), asked.steps, asked.crop, asked.batch) | {"name": f"run-{turn}"}
            values["storage"] = str(Path(name) / f"runs-{turn}")
            for side, into in ((the_run, runs), (the_bare_loop, bare)):
                # Not a `Pool`, whose processes may not start the workers of a DataLoader.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    into.append(pool.submit(side, values).result())
    # Waiting for the first batch is a part of the start.
    rates = [statistics.mean(point["images_per_second"] for point in points[1:]) for points in runs]
    waiting = [statistics.mean(point["data_wait_share"] for point in points[1:]) for points in runs]
    ratio = statistics.median(rates) / statistics.median(bare)
    table = Table("", "images/s", "of bare", "waiting", title=f"T, {asked.batch} crops of {asked.crop}")
    table.add_row("bare DDP loop", f"{statistics.median(bare):.1f}", "100%", "")
    table.add_row(
        "diffuir train",
        f"{statistics.median(rates):.1f}",
        f"{ratio:.1%}",
        f"{statistics.median(waiting):.1%}",
    )
    Console().print(table)
    if asked.json:
        figures = {"run": rates, "bare": bare, "of_bare": ratio, "waiting": waiting}
        Path(asked.json).write_text(json.dumps(vars(asked) | figures, indent=1))


if __name__ == "__main__":
    main()
