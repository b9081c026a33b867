"""What an index of a million rows costs in memory: the stream over it beside the stream over a thousand.

python tests/benchmarks/index_memory.py [--rows 1000 1000000] [--batches 24] [--json FILE]

The rows name a few photos again and again, so that only their number differs. Each side has a process of its own.
`driver`: the peak of the process that reads the index and takes the batches; `a task`: that of the largest process
that makes them up, without what it shares with others; `shared`: the index in Ray's object store, once a machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from diffuir_platform.data.index import Row, write_index


def rows(folder: Path, count: int) -> Iterator[Row]:
    """Of clean photos."""
    for i in range(count):
        yield Row(
            task="any",
            dataset="photos",
            split="train",
            key=f"{i:07d}",
            degraded_uri=None,
            clean_uri=str(folder / f"{i % 3}.png"),
            width=451,
            height=300,
        )


def workers() -> int:
    """Bytes that the largest of this process's Ray tasks has to itself."""
    largest = 0
    for child in psutil.Process().children(recursive=True):
        try:
            if "ray::" in " ".join(child.cmdline()):
                largest = max(largest, child.memory_full_info().uss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return largest


def measure(index: str, batches: int) -> dict[str, int]:
    """Stream some batches of the index in this process, and see what that takes."""
    import ray

    from diffuir_platform.data import DataConfig, Mixture, Stage, list_sources, shares_of_batches
    from diffuir_platform.runtime import ray_session

    peaks = {"driver": 0, "task": 0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            peaks["driver"] = max(peaks["driver"], psutil.Process().memory_full_info().uss)
            peaks["task"] = max(peaks["task"], workers())

    with ray_session(data=True):
        sources = list_sources(DataConfig(index=(index,)))
        lengths = {task: len(items) for task, items in sources.items()}
        mixture = Mixture(0, [Stage(batches, 10, 64)], lengths)
        size = sources["rain"].table.nbytes
        kept = ray.put(sources)
        threading.Thread(target=watch, daemon=True).start()
        for _ in shares_of_batches(mixture, kept, 0, 0, 1):
            pass
        time.sleep(0.5)
        ended.set()
    return {**peaks, "table": size}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--json", help="write the figures here too")
    asked = parser.parse_args()
    from skimage import data

    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, photo in enumerate(("astronaut", "coffee", "chelsea")):
            Image.fromarray(getattr(data, photo)()).save(folder / f"{i}.png")
        for count in asked.rows:
            index = str(folder / f"{count}.parquet")
            write_index(index, rows(folder, count))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                lines.append({"rows": count, **pool.apply(measure, (index, asked.batches))})
    table = Table("rows of the index", "driver MiB", "a task MiB", "shared MiB")
    for line in lines:
        table.add_row(
            f"{line['rows']:,}", *(f"{line[key] / 2**20:,.0f}" for key in ("driver", "task", "table"))
        )
    Console().print(table)
    if asked.json:
        Path(asked.json).write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
