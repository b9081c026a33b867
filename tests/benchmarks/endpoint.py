"""What the endpoint adds to a model's own time, and what becomes of it under load.

python tests/benchmarks/endpoint.py [--model stub|T] [--cost 0.1] [--batch 1] [--side 256] [--seconds 20]
                                    [--loads 0.5 1 2] [--replicas 1] [--max-wait S] [--alone 200] [--json FILE]

Added: of requests one after the other, what the client waits beyond the model's own time. Then arrivals by chance
(Poisson) at shares of the capacity, which do not wait for earlier answers. Capacity: what the model's own time
allows; with several replicas, of so many. The stub takes `--cost` seconds for up to `--batch` photos, asleep.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
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
from PIL import Image
from ray import cloudpickle
from rich.console import Console
from rich.table import Table

from diffuir_platform.serve import ServeSettings
from diffuir_platform.serve.commands import serving

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.serving import MakesStub

PORT = 8319


@dataclass
class Seen:
    """What clients saw at one load."""

    load: float
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    """Of those that were accepted, seconds."""
    own: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    replicas: list[float] = field(default_factory=list)

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


async def ask(session: aiohttp.ClientSession, url: str, data: bytes, seen: Seen) -> dict[str, float]:
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
    seen.add(status, time.perf_counter() - began, timing)
    return timing


async def alone(url: str, data: bytes, count: int) -> tuple[Seen, list[dict[str, float]]]:
    """Requests one after the other."""
    seen = Seen(0)
    async with aiohttp.ClientSession() as session:
        floor = []
        for _ in range(count):
            began = time.perf_counter()
            async with session.get(f"{url}/readyz") as response:
                await response.read()
            floor.append(1000 * (time.perf_counter() - began))
        print(f"a request without a photo: {statistics.median(floor):.2f} ms at the median")
        timings = [await ask(session, url, data, seen) for _ in range(count)]
    return seen, timings


async def under_load(url: str, data: bytes, load: float, rate: float, seconds: float) -> Seen:
    """Arrivals by chance, `rate` a second, whatever became of the earlier ones."""
    seen = Seen(load)
    rng = random.Random(0)
    pending: set[asyncio.Task[Any]] = set()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def watch() -> None:
            while True:
                async with session.get(f"{url}/readyz") as response:
                    seen.replicas.append((await response.json()).get("models", 0))
                await asyncio.sleep(1)

        watching = asyncio.create_task(watch())
        began = due = time.perf_counter()
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            pending.add(asyncio.create_task(ask(session, url, data, seen)))
            due += rng.expovariate(rate)
        await asyncio.gather(*pending)
        seen.seconds = time.perf_counter() - began
        watching.cancel()
    return seen


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
        asyncio.run(alone(url, data, 5))
        seen, timings = asyncio.run(alone(url, data, options.alone))
        added = [1000 * (wait - own) for wait, own in zip(seen.waits, seen.own, strict=True)]
        own = statistics.median(seen.own)
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
    """Seconds until there is but one replica again."""
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


def show(rows: Sequence[Seen], capacity: float) -> None:
    table = Table(title=f"capacity {capacity:.1f} a second")
    for name in (
        "load",
        "asked/s",
        "done/s",
        "median ms",
        "95% ms",
        "refused",
        "a refusal, ms",
        "answers",
        "replicas",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row.row)
    Console(width=130).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=("stub", "T"), default="stub")
    parser.add_argument("--cost", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--loads", type=float, nargs="*", default=[0.5, 1, 2])
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--most", type=int, help="Replicas that it may scale to.")
    parser.add_argument("--max-wait", type=float, default=0.15)
    parser.add_argument("--alone", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cloudpickle.register_pickle_by_value(sys.modules[MakesStub.__module__])
    results = run(options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, default=str))


if __name__ == "__main__":
    main()
