"""How fast the network restores: one table, each figure beside the plain network's and the machine's own rate.

python tests/benchmarks/restorer.py [--variants T L] [--sizes 256x256 1280x720] [--batches 1 8] [--device cuda]
    [--json FILE]

A line is one pass of the network. `rate`: the arithmetic of the network as published, in GFLOP/s. `of machine`:
that by the best of a large matrix product and a channels-last 3x3 convolution in the same precision. `of plain`:
how many times faster than `PlainUNet` (eager, float32, contiguous). The two networks and the machine take turns,
on a CPU each in a process of its own, new for each line. `peak`: what the first pass adds to its process's memory,
on a GPU to what is allocated there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import torch
from plain import PlainUNet
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from diffuir_core.allocator import keep_freed_memory
from diffuir_core.precision import PRECISIONS
from diffuir_core.prepared import PreparedUNet
from diffuir_core.recording import RecordedPasses
from diffuir_core.unet import build

MOST_PIXELS = 2**20
"""A batch of more is left out: the restorer never runs one (BATCH_PIXELS), large images go one by one."""

PLAIN_PIXELS = 2**20
"""Beyond this the plain network's written-out attention does not fit into a small machine."""


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall time of one run."""
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def machine_rate(dtype: torch.dtype, device: torch.device) -> list[Callable[[], float]]:
    """Functions that each run once and return FLOP/s: a matrix product and a convolution."""
    side = 2048 if device.type == "cpu" else 8192
    a = torch.randn(side, side, device=device, dtype=dtype)
    conv = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False).to(
        device, dtype, memory_format=torch.channels_last
    )
    x = torch.randn(1, 128, 256, 256, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    return [
        lambda: 2 * side**3 / seconds(lambda: a @ a, device),
        lambda: 2 * 9 * 128 * 128 * 256 * 256 / seconds(lambda: conv(x), device),
    ]


def added_peak(run: Callable[[], object], device: torch.device) -> int:
    """By how many bytes `run` raises this process's memory, at its peak; on a CPU Linux tells."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """Bytes, of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


_passes: dict[str, Any] = {}
"""What this process has been set up to run."""


def set_up(side: str, case: dict[str, Any]) -> int:
    """Make one side ready in this process, run it once, and return by how many bytes that raised its peak."""
    device, dtype = torch.device(case["device"]), PRECISIONS[case["precision"]]
    batch, width, height = case["batch"], case["width"], case["height"]
    torch.manual_seed(0)
    model = build(case["variant"]).eval().requires_grad_(False)
    image, degraded = (torch.rand(batch, 3, height, width, device=device) * 2 - 1 for _ in range(2))
    if side == "machine":
        _passes[side] = machine_rate(dtype, device)
        return 0
    if side == "plain":
        plain = PlainUNet(model.to(device))
        x, times = torch.cat((image, degraded), dim=1), torch.full((batch,), 500.0, device=device)
        _passes[side] = lambda: seconds(lambda: plain(x, times), device)
        return added_peak(lambda: one_pass(side), device)
    if device.type == "cpu":
        keep_freed_memory()  # as the restorer does
    network = PreparedUNet(model, torch.tensor([500.0]), device, dtype)
    passes = RecordedPasses(network) if device.type == "cuda" else network
    seen = network.see(degraded)
    _passes[side] = lambda: seconds(lambda: passes(image, seen, 0), device)
    return added_peak(lambda: one_pass(side), device)


@torch.inference_mode()
def one_pass(side: str) -> float:
    """Seconds of one pass of a side that this process is set up for."""
    return _passes[side]()


@torch.inference_mode()
def best_rate() -> float:
    """FLOP/s of the machine, now."""
    return max(rate() for rate in _passes["machine"])


class ThisProcess:
    """In place of a pool of one: a GPU tells what a side allocates there, and CUDA takes seconds to start."""

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        """What `function` returns."""
        return function(*args)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    batch, width, height = case["batch"], case["width"], case["height"]
    torch.cuda.empty_cache()
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        PlainUNet(build(case["variant"]))(torch.empty(batch, 6, height, width), torch.empty(batch))
    sides = ["ours", "machine"] + (["plain"] if batch * width * height <= PLAIN_PIXELS else [])
    with ExitStack() as processes:
        spawn = multiprocessing.get_context("spawn")
        pools: dict[str, Any] = {
            side: processes.enter_context(spawn.Pool(1)) if case["device"] == "cpu" else ThisProcess()
            for side in sides
        }
        memory = {side: pool.apply(set_up, (side, case)) for side, pool in pools.items()}
        ours, theirs, best = [], [], 0.0
        for _ in range(case["turns"]):
            ours.append(pools["ours"].apply(one_pass, ("ours",)))
            best = max(best, pools["machine"].apply(best_rate))
            if "plain" in pools:
                theirs.append(pools["plain"].apply(one_pass, ("plain",)))
    rate = counter.get_total_flops() / statistics.median(ours)
    return case | {
        "seconds": statistics.median(ours),
        "gflops": rate / 1e9,
        "machine_gflops": best / 1e9,
        "of_machine": rate / best,
        "of_plain": statistics.median(theirs) / statistics.median(ours) if theirs else None,
        "peak_bytes": memory["ours"],
        "plain_peak_bytes": memory.get("plain"),
    }


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", nargs="+", default=["T", "L"])
    parser.add_argument("--sizes", nargs="+", default=["256x256", "1280x720"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", help="write the figures here too")
    asked = parser.parse_args()
    table = Table(
        "variant", "size", "batch", "precision", "s", "GFLOP/s", "of machine", "of plain", "peak MiB"
    )
    lines = []
    for variant, size, batch, precision in product(
        asked.variants, asked.sizes, asked.batches, asked.precisions
    ):
        width, height = (int(side) for side in size.split("x"))
        if batch > max(1, MOST_PIXELS // (width * height)):
            continue
        case = {"variant": variant, "width": width, "height": height, "batch": batch, "precision": precision}
        line = measure(case | {"device": asked.device, "turns": asked.turns})
        lines.append(line)
        table.add_row(
            variant, size, str(batch), precision, f"{line['seconds']:.4f}", f"{line['gflops']:.0f}",
            f"{line['of_machine']:.0%}", f"{line['of_plain']:.1f}" if line["of_plain"] else "-",
            f"{line['peak_bytes'] / 2**20:,.0f}",
        )  # fmt: skip
        Console(stderr=True).print(line)
    Console().print(table)
    if asked.json:
        with open(asked.json, "w") as file:
            json.dump(
                {"device": asked.device, "threads": torch.get_num_threads(), "lines": lines}, file, indent=1
            )


if __name__ == "__main__":
    main()
