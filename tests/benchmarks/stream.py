"""How fast batches are made up: the stream beside PyTorch's DataLoader over the same files.

python tests/benchmarks/stream.py [--batches 24] [--crop 128] [--tasks 2] [--s3] [--json FILE]

Both sides make the same batches with the same functions in as many processes: Ray Data's tasks, or a DataLoader's
workers. `--s3`: out of a bucket of a server started here. The first quarter of the batches is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from diffuir_platform import storage
from diffuir_platform.data import DataConfig, Items, Mixture, Stage, list_sources, shares_of_batches
from diffuir_platform.data.building import IndexOptions, build_index
from diffuir_platform.data.samples import load_or_replace
from diffuir_platform.runtime import ray_session

COPIES = 12
"""Of each of the bundled photos, so that not all fit into a process's cache of decoded ones at once."""


class Batches(torch.utils.data.Dataset[np.ndarray]):
    """The degraded halves of the batches of a mixture, as a map-style data set."""

    def __init__(self, mixture: Mixture, sources: dict[str, Items]) -> None:
        self.mixture = mixture
        self.sources = sources

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, batch: int) -> np.ndarray:
        crop = self.mixture.stage(batch).crop
        slots = self.mixture.slots(batch)
        return np.stack([load_or_replace(slot, self.sources[slot.task], crop).degraded for slot in slots])


def rate(batches: Iterable[Any], count: int, size: int) -> float:
    """Images per second, from a quarter of the batches on."""
    began = time.perf_counter()
    for i, _ in enumerate(batches):
        if i + 1 == count // 4:
            began = time.perf_counter()
    return (count - count // 4) * size / (time.perf_counter() - began)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--json", help="write the figures here too")
    asked = parser.parse_args()
    with ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory())
        if asked.s3:
            root = start_store(stack)
        sources = list_sources(DataConfig(index=(photos_in(root),)))
        stage = Stage(asked.batches, asked.batch, asked.crop)
        mixture = Mixture(0, [stage], {task: len(items) for task, items in sources.items()})
        stack.enter_context(ray_session(least_cpus=asked.tasks + 2, data=True))
        kept = ray.put(sources)
        rates: dict[str, list[float]] = {"stream": [], "DataLoader": []}
        for _ in range(asked.turns):
            stream = shares_of_batches(mixture, kept, 0, 0, 1, asked.tasks)
            loader = torch.utils.data.DataLoader(
                Batches(mixture, sources),
                batch_size=None,
                num_workers=asked.tasks,
                multiprocessing_context="spawn",
            )
            rates["stream"].append(rate(stream, asked.batches, asked.batch))
            rates["DataLoader"].append(rate(loader, asked.batches, asked.batch))
    medians = {side: statistics.median(values) for side, values in rates.items()}
    where = "S3" if asked.s3 else "local disk"
    table = Table("", "images/s", "a process", "of DataLoader", title=f"{where}, {asked.tasks} processes")
    for side, value in medians.items():
        table.add_row(
            side, f"{value:.1f}", f"{value / asked.tasks:.1f}", f"{value / medians['DataLoader']:.0%}"
        )
    Console().print(table)
    if asked.json:
        Path(asked.json).write_text(json.dumps(vars(asked) | {"images_per_second": rates}, indent=1))


def start_store(stack: ExitStack) -> str:
    """A bucket of a server that ends with `stack`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    stack.callback(server.stop)
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client("s3").create_bucket(Bucket="photos")
    return "s3://photos"


def photos_in(root: str) -> str:
    """Write the bundled photos as JPEG below `root`; the index of them."""
    from skimage import data

    for name in ("astronaut", "coffee", "chelsea"):
        pixels = getattr(data, name)()
        with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
            Image.fromarray(pixels).save(file.name, quality=95)
            for copy in range(COPIES):
                storage.write_bytes(f"{root}/photos/{name}-{copy}.jpg", Path(file.name).read_bytes())
    return build_index(f"{root}/photos", f"{root}/index.parquet", IndexOptions(layout="clean")).uri


if __name__ == "__main__":
    main()
