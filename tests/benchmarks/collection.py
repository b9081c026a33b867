"""Overhead of `diffuir restore`, and whether its memory stays flat.

python tests/benchmarks/collection.py [--photos 20000] [--side 32] [--batch-size N] [--turns 1] [--json FILE]
python tests/benchmarks/collection.py --model [PHOTOS] [--steps 3] [--precision float32] [--batch-size N]

Without `--model`: many tiny JPEGs through a restorer that changes nothing, beside a bare loop of two processes
that reads, decodes, encodes and writes the same files with the same functions. The memory of the driver and of
Ray's workers is sampled after 1,000 photos, half-way and at the end. `start`: time to the first result.

With `--model`: the photos of a folder, or those of scikit-image, through the restorer, beside the same restorer
in a loop over decoded photos, without encoding and writing; in turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from options import benchmark_parser, write_figures
from photos import write_photos
from PIL import Image
from rich.console import Console
from rich.table import Table

from diffuir_core.imaging import decode, encode
from diffuir_core.pixels import Pixels
from diffuir_core.restorer import Restoration

FOLDER_SIZE = 1000
"""Photos in a folder."""


BUNDLED = "scikit-image's"
"""Value of `--model` without a folder."""


class PassThrough:
    """A restorer that changes nothing."""

    precision = "float32"

    def __init__(self, weights: Path | None = None) -> None: ...

    def restorations(self, images: Sequence[Pixels]) -> list[Restoration]:
        return [Restoration(image, None) for image in images]


def make_photos(folder: Path, count: int, side: int) -> None:
    """Write `count` different JPEGs with sides of `side` pixels, in folders of `FOLDER_SIZE`."""
    rng = np.random.default_rng(0)
    for i in range(count):
        small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        file = folder / f"{i // FOLDER_SIZE:04d}" / f"{i:07d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((side, side), Image.Resampling.BILINEAR).save(file, quality=90)


def bare(arguments: tuple[list[str], str, str]) -> None:
    """Restore the files of one process of the bare loop."""
    names, source, target = arguments
    for name in names:
        image = decode((Path(source) / name).read_bytes())
        file = Path(target) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(image, None, 95))


def bare_rate(source: Path, target: Path) -> float:
    """Throughput of the bare loop's two processes, photos per second."""
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*.jpg"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(abs, range(2))
        began = time.perf_counter()
        pool.map(bare, [(names[i::2], str(source), str(target)) for i in range(2)])
        return len(names) / (time.perf_counter() - began)


class Memory(threading.Thread):
    """Samples the memory of this process and its descendants every four seconds."""

    def __init__(self, target: Path) -> None:
        super().__init__(daemon=True)
        self.target = target
        self.points: list[tuple[int, int, int]] = []
        """Samples: (photos done, bytes of the driver, most bytes of a worker)."""
        self.first = 0.0
        self.done = lambda: 0
        self.ended = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.ended.wait(4):
            workers = [0]
            for child in me.children(recursive=True):
                try:
                    if "ray::" in " ".join(child.cmdline()):
                        workers.append(child.memory_info().rss - child.memory_info().shared)
                except psutil.NoSuchProcess:
                    continue
            self.points.append((self.done(), me.memory_info().rss, max(workers)))


def measure_job(values: dict[str, Any]) -> dict[str, Any]:
    """Measure a run of `diffuir_platform.restore` in this process."""
    from ray import cloudpickle

    import diffuir_platform.restore.collection as job
    from diffuir_platform.restore import RestoreOptions, restore
    from diffuir_platform.runtime import ray_session

    module = __import__(PassThrough.__module__)
    cloudpickle.register_pickle_by_value(module)
    target = Path(values["target"])
    memory = Memory(target)
    began = time.perf_counter()
    arrivals: list[float] = []
    count = job.Run._record_row

    spent: list[float] = []

    def entered(self: Any, row: Any, ledger: Any, entry: Any = None) -> None:
        arrivals.append(time.perf_counter())
        if len(arrivals) in (1, values["photos"]):
            spent.append(time.process_time())
        count(self, row, ledger, entry)

    job.Run._record_row = entered  # type: ignore[method-assign]
    memory.done = lambda: len(arrivals)
    memory.start()
    make = None if values["model"] else PassThrough
    options = RestoreOptions(**values["options"])
    with ray_session(data=True):  # otherwise the first photos are restored without Ray
        summary = restore(values["source"], target, options, restart=True, restorer=make)
    memory.ended.set()
    # The rate is counted from the first result on; the start has a figure of its own.
    return {
        "start": arrivals[0] - began,
        "seconds": summary.seconds,
        "rate": (len(arrivals) - 1) / (arrivals[-1] - arrivals[0]),
        "memory": memory.points,
        "driver_seconds_a_photo": (spent[-1] - spent[0]) / len(arrivals),
        "ledger_bytes_a_photo": sum(file.stat().st_size for file in (target / "_diffuir/ledger").iterdir())
        / len(arrivals),
        "failed": summary.failures,
    }


def bare_model(values: dict[str, Any]) -> float:
    """Throughput of the restorer alone, photos per second."""
    from diffuir_platform.restore import RestoreOptions

    files = sorted(path for path in Path(values["source"]).rglob("*") if path.is_file())
    images = [decode(path.read_bytes()).pixels for path in files]
    restorer = RestoreOptions(**values["options"]).diffuir()
    batch = values["options"]["batch_size"] or 1
    restorer.restore(images[:batch])
    began = time.perf_counter()
    for i in range(0, len(images), batch):
        restorer.restore(images[i : i + batch])
    return len(images) / (time.perf_counter() - began)


def in_own_process(run: Any, *arguments: Any) -> Any:
    """Run a function in a new process and return its result."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run, arguments)


def with_model(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure and print the figures with `--model`."""
    source = Path(options.model)
    if options.model == BUNDLED:
        source = folder / "photos"
        write_photos(source)
    values = {
        "source": str(source),
        "target": str(folder / "out"),
        "photos": sum(path.is_file() for path in source.rglob("*")),
        "model": True,
        "options": {"steps": options.steps, "precision": options.precision, "batch_size": options.batch_size},
    }
    runs, loops = [], []
    for _ in range(options.turns):
        runs.append(in_own_process(measure_job, values))
        loops.append(in_own_process(bare_model, values))
    job, loop = statistics.median(run["rate"] for run in runs), statistics.median(loops)
    table = Table("", "images/s", "of the bare loop")
    table.add_row("restorer in a loop, decoded photos", f"{loop:.3f}", "100%")
    table.add_row("diffuir restore", f"{job:.3f}", f"{job / loop:.1%}")
    Console().print(table)
    return {"rates": [run["rate"] for run in runs], "bare": loops, "of_bare": job / loop}


def without_model(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure and print the figures of many tiny photos."""
    make_photos(folder / "in", options.photos, options.side)
    values = {
        "source": str(folder / "in"),
        "target": str(folder / "out"),
        "photos": options.photos,
        "model": False,
        "options": {"batch_size": options.batch_size},
    }
    loops, runs = [], []
    for turn in range(options.turns):
        # Nothing is deleted meanwhile: ext4 takes three times as long to make files soon after.
        loops.append(bare_rate(folder / "in", folder / f"bare-{turn}"))
        runs.append(in_own_process(measure_job, values | {"target": str(folder / f"out-{turn}")}))
    rate, bare_rate_ = statistics.median(run["rate"] for run in runs), statistics.median(loops)
    points = runs[-1]["memory"]
    early = next((point for point in points if point[0] >= 1000), points[-1])
    late = points[-1]
    table = Table("", "images/s", "of bare", "start, s", "driver MiB", "a worker MiB")
    table.add_row("bare loop, two processes", f"{bare_rate_:,.0f}", "100%")
    table.add_row("diffuir restore", f"{rate:,.0f}", f"{rate / bare_rate_:.0%}", f"{runs[-1]['start']:.1f}")
    for done, driver, worker in (early, points[len(points) // 2], late):
        table.add_row(f"  at {done:,} photos", "", "", "", f"{driver / 2**20:,.0f}", f"{worker / 2**20:,.0f}")
    Console().print(table)
    driver, ledger = (runs[-1][name] for name in ("driver_seconds_a_photo", "ledger_bytes_a_photo"))
    print(f"a photo: {driver * 1e6:.0f} microseconds of the driver, {ledger:.0f} bytes of the ledger")
    return {
        "rates": [run["rate"] for run in runs],
        "bare": loops,
        "of_bare": rate / bare_rate_,
        "driver_seconds_a_photo": driver,
        "ledger_bytes_a_photo": ledger,
        "memory": points,
    }


def main() -> None:
    """Measure and print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--photos", type=int, default=20_000, help="number of tiny photos")
    parser.add_argument("--side", type=int, default=32, help="side of a tiny photo, pixels")
    parser.add_argument("--batch-size", type=int, help="most photos in a batch; None for the job's default")
    parser.add_argument("--turns", type=int, default=1, help="measurements of each side")
    parser.add_argument(
        "--model", nargs="?", const=BUNDLED, metavar="PHOTOS", help="folder of photos for the shipped weights"
    )
    parser.add_argument("--steps", type=int, default=3, help="sampling steps with --model")
    parser.add_argument("--precision", default="float32", help="precision with --model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = (with_model if options.model else without_model)(options, Path(name))
    write_figures(options, vars(options) | figures)


if __name__ == "__main__":
    main()
