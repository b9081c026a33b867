"""Memory of the training stream over an index of a million rows, beside that over a thousand.

python tests/benchmarks/index_memory.py [--rows 1000 1000000] [--batches 24] [--json FILE]

The rows name a few photos repeatedly, so that only their number differs. Each side has a process of its own.
`driver`: peak memory of the process that reads the index and consumes the batches. `a task`: peak private memory
of the largest process that makes batches. `shared`: the index in Ray's object store, once per machine.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from options import benchmark_parser, write_figures
from photos import write_photos
from rich.console import Console
from rich.table import Table

from diffuir_platform.data.index import IndexRow, write_index


def rows(folder: Path, count: int) -> Iterator[IndexRow]:
    """Yield `count` rows of clean photos, which name the files of `folder` in turn."""
    files = write_photos(folder)
    for i in range(count):
        yield IndexRow(
            task="any",
            dataset="photos",
            split="train",
            key=f"{i:07d}",
            degraded_uri=None,
            clean_uri=str(files[i % len(files)]),
            width=451,
            height=300,
        )


def largest_task() -> int:
    """Private memory of the largest of this process's Ray tasks, bytes."""
    largest = 0
    for child in psutil.Process().children(recursive=True):
        try:
            if "ray::" in " ".join(child.cmdline()):
                largest = max(largest, child.memory_full_info().uss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return largest


def measure(index: str, batches: int) -> dict[str, int]:
    """Stream batches of the index in this process, and return the peaks of its memory, bytes."""
    import ray

    from diffuir_platform.data import DataConfig, Mixture, TrainingStage, list_sources, local_batches
    from diffuir_platform.runtime import ray_session

    peaks = {"driver": 0, "task": 0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            peaks["driver"] = max(peaks["driver"], psutil.Process().memory_full_info().uss)
            peaks["task"] = max(peaks["task"], largest_task())

    with ray_session(data=True):
        sources = list_sources(DataConfig(index=(index,)))
        lengths = {task: len(items) for task, items in sources.items()}
        mixture = Mixture(0, [TrainingStage(batches, 10, 64)], lengths)
        size = sources["rain"].table.nbytes
        kept = ray.put(sources)
        threading.Thread(target=watch, daemon=True).start()
        for _ in local_batches(mixture, kept, 0, 0, 1):
            pass
        time.sleep(0.5)
        ended.set()
    return {**peaks, "table": size}


def main() -> None:
    """Measure and print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 1_000_000], help="sizes of the index")
    parser.add_argument("--batches", type=int, default=24, help="batches to stream")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in options.rows:
            index = str(folder / f"{count}.parquet")
            write_index(index, rows(folder, count))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                lines.append({"rows": count, **pool.apply(measure, (index, options.batches))})
    table = Table("rows of the index", "driver MiB", "a task MiB", "shared MiB")
    for line in lines:
        table.add_row(
            f"{line['rows']:,}", *(f"{line[key] / 2**20:,.0f}" for key in ("driver", "task", "table"))
        )
    Console().print(table)
    write_figures(options, lines)


if __name__ == "__main__":
    main()
