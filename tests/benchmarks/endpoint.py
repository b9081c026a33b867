"""Latency that the endpoint adds to a model's own time, and its behaviour under load.

python tests/benchmarks/endpoint.py [--model stub|T] [--cost 0.1] [--batch 1] [--side 256] [--seconds 20]
                                    [--loads 0.5 1 2] [--replicas 1] [--max-wait S] [--alone 200] [--json FILE]

`added`: of sequential requests, the client's latency minus the model's own time. Then requests arrive at random
(Poisson) at multiples of the capacity, without waiting for earlier responses. Capacity: the throughput that the
model's own time allows, times the replicas. The stub sleeps `--cost` seconds for up to `--batch` photos.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from options import benchmark_parser, write_figures
from PIL import Image
from ray import cloudpickle
from rich.console import Console
from rich.table import Table

from diffuir_platform.serve import ServeSettings
from diffuir_platform.serve.commands import serving

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.serving import MakesStub

PORT = 8319
"""Port of the endpoint that is started."""


@dataclass
class LoadFigures:
    """The responses that clients saw at one load."""

    load: float
    """Offered load, as a multiple of the capacity."""
    seconds: float = 0.0
    """Length of the measurement, seconds."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Number of responses by HTTP status or type of error."""
    waits: list[float] = field(default_factory=list)
    """Latencies of the accepted requests, seconds."""
    own: list[float] = field(default_factory=list)
    """The model's own times for them, seconds."""
    refusals: list[float] = field(default_factory=list)
    """Latencies of the refused requests, seconds."""
    replicas: list[float] = field(default_factory=list)
    """Numbers of replicas, once a second."""

    def add(self, status: str, waited: float, timing: dict[str, float]) -> None:
        self.statuses[status] += 1
        if status == "200":
            self.waits.append(waited)
            self.own.append(timing["restore"])
        else:
            self.refusals.append(waited)

    @property
    def row(self) -> list[str]:
        total = sum(self.statuses.values())
        milliseconds = [1000 * w for w in self.waits] or [float("nan")]
        cuts = statistics.quantiles(milliseconds, n=100) if len(milliseconds) > 1 else milliseconds * 99
        return [
            f"{self.load:g}",
            f"{total / self.seconds:.1f}",
            f"{len(self.waits) / self.seconds:.1f}",
            f"{statistics.median(milliseconds):.0f}",
            f"{cuts[94]:.0f}",
            f"{100 * (total - len(self.waits)) / total:.0f}%",
            f"{1000 * statistics.median(self.refusals):.0f}" if self.refusals else "",
            ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items())),
            f"{max(self.replicas):g}" if self.replicas else "",
        ]


def photo(side: int) -> bytes:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


async def ask(
    session: aiohttp.ClientSession, url: str, data: bytes, figures: LoadFigures
) -> dict[str, float]:
    began = time.perf_counter()
    timing: dict[str, float] = {}
    try:
        async with session.post(f"{url}/v1/restore", data=data) as response:
            await response.read()
            status = str(response.status)
            if status == "503" and "Retry-After" not in response.headers:
                status = "503 without Retry-After"
            header = response.headers.get("Server-Timing", "")
            timing = {name: float(ms) / 1000 for name, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}
    except aiohttp.ClientError as error:
        status = type(error).__name__
    figures.add(status, time.perf_counter() - began, timing)
    return timing


async def sequential(url: str, data: bytes, count: int) -> tuple[LoadFigures, list[dict[str, float]]]:
    """Send `count` requests one after the other; returns their figures and the server's timings."""
    figures = LoadFigures(0)
    async with aiohttp.ClientSession() as session:
        floor = []
        for _ in range(count):
            began = time.perf_counter()
            async with session.get(f"{url}/readyz") as response:
                await response.read()
            floor.append(1000 * (time.perf_counter() - began))
        print(f"a request without a photo: {statistics.median(floor):.2f} ms at the median")
        timings = [await ask(session, url, data, figures) for _ in range(count)]
    return figures, timings


async def under_load(url: str, data: bytes, load: float, rate: float, seconds: float) -> LoadFigures:
    """Send requests at random times, `rate` a second, without waiting for responses."""
    figures = LoadFigures(load)
    rng = random.Random(0)
    pending: set[asyncio.Task[Any]] = set()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def watch() -> None:
            while True:
                async with session.get(f"{url}/readyz") as response:
                    figures.replicas.append((await response.json()).get("models", 0))
                await asyncio.sleep(1)

        watching = asyncio.create_task(watch())
        began = due = time.perf_counter()
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            pending.add(asyncio.create_task(ask(session, url, data, figures)))
            due += rng.expovariate(rate)
        await asyncio.gather(*pending)
        figures.seconds = time.perf_counter() - began
        watching.cancel()
    return figures


def run(options: argparse.Namespace) -> dict[str, Any]:
    data = photo(options.side)
    settings = ServeSettings(
        port=PORT,
        max_wait=options.max_wait,
        min_replicas=options.replicas,
        max_replicas=options.most or options.replicas,
        upscale_delay=1,
        downscale_delay=10,
    )
    make = None if options.model == "T" else MakesStub(options.cost, options.batch)
    results: dict[str, Any] = {"options": vars(options)}
    with serving(settings, make) as url:
        asyncio.run(sequential(url, data, 5))
        figures, timings = asyncio.run(sequential(url, data, options.alone))
        added = [1000 * (wait - own) for wait, own in zip(figures.waits, figures.own, strict=True)]
        own = statistics.median(figures.own)
        stages = {name: 1000 * statistics.median(t[name] for t in timings) for name in timings[0]}
        cuts = statistics.quantiles(added, n=100)
        print(
            f"alone: the model's own {1000 * own:.1f} ms, added {statistics.median(added):.2f} ms at the median, "
            f"{cuts[94]:.2f} at 95%; of it " + ", ".join(f"{k} {v:.2f}" for k, v in stages.items())
        )
        results["added_ms"] = statistics.median(added)
        capacity = options.replicas * options.batch / (options.cost if make else own)
        rows = []
        for load in options.loads:
            rows.append(asyncio.run(under_load(url, data, load, load * capacity, options.seconds)))
        if options.most:
            results["replicas_afterwards"] = asyncio.run(until_one(url))
    show(rows, capacity)
    results["loads"] = [{**vars(row), "statuses": dict(row.statuses)} for row in rows]
    return results


async def until_one(url: str) -> float:
    """Wait until there is one replica again; returns the seconds that it took."""
    began = time.perf_counter()
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/readyz") as response:
                if (await response.json()).get("models") == 1:
                    took = time.perf_counter() - began
                    print(f"one replica again after {took:.0f} s")
                    return took
            if time.perf_counter() - began > 180:
                sys.exit("the replicas did not go back to one in 180 s")
            await asyncio.sleep(1)


def show(rows: Sequence[LoadFigures], capacity: float) -> None:
    table = Table(title=f"capacity {capacity:.1f} a second")
    for name in (
        "load",
        "offered/s",
        "done/s",
        "median ms",
        "95% ms",
        "refused",
        "a refusal, ms",
        "responses",
        "replicas",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row.row)
    Console(width=130).print(table)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--model", choices=("stub", "T"), default="stub", help="a stub, or the shipped weights"
    )
    parser.add_argument(
        "--cost", type=float, default=0.1, help="time that the stub takes for a batch, seconds"
    )
    parser.add_argument("--batch", type=int, default=1, help="photos that the stub takes at once")
    parser.add_argument("--side", type=int, default=256, help="side of the photo, pixels")
    parser.add_argument(
        "--seconds", type=float, default=20, help="length of the measurement at a load, seconds"
    )
    parser.add_argument(
        "--loads", type=float, nargs="*", default=[0.5, 1, 2], help="multiples of the capacity"
    )
    parser.add_argument("--replicas", type=int, default=1, help="replicas at the start")
    parser.add_argument("--most", type=int, help="most replicas to scale to; None for no scaling")
    parser.add_argument("--max-wait", type=float, default=0.15, help="longest wait for a model, seconds")
    parser.add_argument("--alone", type=int, default=200, help="number of sequential requests")
    options = parser.parse_args()
    cloudpickle.register_pickle_by_value(sys.modules[MakesStub.__module__])
    results = run(options)
    write_figures(options, results)


if __name__ == "__main__":
    main()
