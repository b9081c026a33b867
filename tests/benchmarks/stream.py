"""Throughput of the training stream, beside PyTorch's DataLoader over the same files.

python tests/benchmarks/stream.py [--batches 24] [--crop 128] [--tasks 2] [--s3] [--json FILE]

Both sides make the same batches with the same functions in the same number of processes: tasks of Ray Data, or
workers of a DataLoader. `--s3` reads from a bucket of an S3 server that this script starts. The first quarter of
the batches is not counted.
"""

from __future__ import annotations

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
from options import benchmark_parser, write_figures
from photos import write_photos
from rich.console import Console
from rich.table import Table

from diffuir_platform import storage
from diffuir_platform.data import DataConfig, Items, Mixture, TrainingStage, list_sources, local_batches
from diffuir_platform.data.building import build_index
from diffuir_platform.data.samples import load_or_replace
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.runtime import ray_session

COPIES = 12
"""Copies of each bundled photo: too many for a process's cache of decoded photos."""


class Batches(torch.utils.data.Dataset[np.ndarray]):
    """The degraded sides of the batches of a mixture, as a map-style data set."""

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
    """Images per second, without the first quarter of the batches."""
    began = time.perf_counter()
    for i, _ in enumerate(batches):
        if i + 1 == count // 4:
            began = time.perf_counter()
    return (count - count // 4) * size / (time.perf_counter() - began)


def main() -> None:
    """Measure and print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--batches", type=int, default=24, help="batches in a measurement")
    parser.add_argument("--batch", type=int, default=10, help="crops in a batch, a multiple of 10")
    parser.add_argument("--crop", type=int, default=128, help="side of a crop, pixels")
    parser.add_argument("--tasks", type=int, default=2, help="processes of either side")
    parser.add_argument("--turns", type=int, default=3, help="measurements of each side")
    parser.add_argument("--s3", action="store_true", help="read from S3 instead of the local disk")
    options = parser.parse_args()
    with ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory())
        if options.s3:
            root = start_store(stack)
        sources = list_sources(DataConfig(index=(photos_in(root),)))
        stage = TrainingStage(options.batches, options.batch, options.crop)
        mixture = Mixture(0, [stage], {task: len(items) for task, items in sources.items()})
        stack.enter_context(ray_session(least_cpus=options.tasks + 2, data=True))
        kept = ray.put(sources)
        rates: dict[str, list[float]] = {"stream": [], "DataLoader": []}
        for _ in range(options.turns):
            stream = local_batches(mixture, kept, 0, 0, 1, options.tasks)
            loader = torch.utils.data.DataLoader(
                Batches(mixture, sources),
                batch_size=None,
                num_workers=options.tasks,
                multiprocessing_context="spawn",
            )
            rates["stream"].append(rate(stream, options.batches, options.batch))
            rates["DataLoader"].append(rate(loader, options.batches, options.batch))
    medians = {side: statistics.median(values) for side, values in rates.items()}
    where = "S3" if options.s3 else "local disk"
    table = Table("", "images/s", "a process", "of DataLoader", title=f"{where}, {options.tasks} processes")
    for side, value in medians.items():
        table.add_row(
            side, f"{value:.1f}", f"{value / options.tasks:.1f}", f"{value / medians['DataLoader']:.0%}"
        )
    Console().print(table)
    write_figures(options, vars(options) | {"images_per_second": rates})


def start_store(stack: ExitStack) -> str:
    """Start an S3 server that ends with `stack`; returns the URI of a bucket."""
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
    """Write copies of the bundled photos as JPEG below `root`; returns the URI of their index."""
    with tempfile.TemporaryDirectory() as folder:
        for file in write_photos(Path(folder), ".jpg"):
            for copy in range(COPIES):
                storage.write_bytes(f"{root}/photos/{file.stem}-{copy}.jpg", file.read_bytes())
    return build_index(f"{root}/photos", f"{root}/index.parquet", IndexOptions(layout="clean")).uri


if __name__ == "__main__":
    main()
