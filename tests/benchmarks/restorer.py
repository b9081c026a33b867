"""Speed and memory of a pass of the network, beside the plain network and the machine's own arithmetic rate.

python tests/benchmarks/restorer.py [--variants T L] [--sizes 256x256 1280x720] [--batches 1 8] [--device cuda]
    [--json FILE]

A line is one pass of the network. `GFLOP/s`: the arithmetic of the published network over the time of the pass.
`of machine`: that as a share of the best of a large matrix product and a channels-last 3x3 convolution in the
same precision. `of plain`: speed-up over `PlainUNet` (eager, float32, contiguous). The two networks and the
machine take turns; on a CPU each has a process of its own, new for each line. `peak`: memory that the first pass
adds to its process, or on a GPU to the memory allocated there.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import torch
from options import benchmark_parser, write_figures
from plain import PlainUNet
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from diffuir_core.allocator import keep_freed_memory
from diffuir_core.cuda_graphs import RecordedPasses
from diffuir_core.precision import PRECISIONS
from diffuir_core.prepared_unet import PreparedUNet
from diffuir_core.unet import build

MAX_PIXELS = 2**20
"""Largest batch that is measured, pixels; the restorer runs no larger ones, apart from single large images."""

PLAIN_PIXELS = 2**20
"""Largest batch of the plain network, pixels: its attention, written out, would need too much memory for more."""


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall time of one run, seconds."""
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def machine_rate(dtype: torch.dtype, device: torch.device) -> list[Callable[[], float]]:
    """Functions that run a matrix product or a convolution once and return its FLOP/s."""
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
    """Bytes by which `run` raises the peak of this process's memory (on Linux), or of the GPU's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current memory
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """A field of /proc/self/status, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


_passes: dict[str, Any] = {}
"""The passes that this process is set up to run, by side."""


def set_up(side: str, case: dict[str, Any]) -> int:
    """Set up one side in this process, run it once, and return the bytes by which that raised the peak."""
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
    condition = network.condition_features(degraded)
    _passes[side] = lambda: seconds(lambda: passes(image, condition, 0), device)
    return added_peak(lambda: one_pass(side), device)


@torch.inference_mode()
def one_pass(side: str) -> float:
    """Duration of one pass of a side that this process is set up for, seconds."""
    return _passes[side]()


@torch.inference_mode()
def best_rate() -> float:
    """Current arithmetic rate of the machine, FLOP/s."""
    return max(rate() for rate in _passes["machine"])


class ThisProcess:
    """Runs functions in this process, like a pool of one.

    For a GPU, which counts each side's memory itself; a process would take seconds to start CUDA.
    """

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        """Run `function` and return its result."""
        return function(*args)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Measure one line of the table."""
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
    parser = benchmark_parser(__doc__)
    parser.add_argument("--variants", nargs="+", default=["T", "L"], help="variants of the network")
    parser.add_argument("--sizes", nargs="+", default=["256x256", "1280x720"], help="width x height, pixels")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="images in a batch")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), help="precisions to measure")
    parser.add_argument("--turns", type=int, default=5, help="passes of each side")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="torch device")
    options = parser.parse_args()
    table = Table(
        "variant", "size", "batch", "precision", "s", "GFLOP/s", "of machine", "of plain", "peak MiB"
    )
    lines = []
    for variant, size, batch, precision in product(
        options.variants, options.sizes, options.batches, options.precisions
    ):
        width, height = (int(side) for side in size.split("x"))
        if batch > max(1, MAX_PIXELS // (width * height)):
            continue
        case = {"variant": variant, "width": width, "height": height, "batch": batch, "precision": precision}
        line = measure(case | {"device": options.device, "turns": options.turns})
        lines.append(line)
        table.add_row(
            variant, size, str(batch), precision, f"{line['seconds']:.4f}", f"{line['gflops']:.0f}",
            f"{line['of_machine']:.0%}", f"{line['of_plain']:.1f}" if line["of_plain"] else "-",
            f"{line['peak_bytes'] / 2**20:,.0f}",
        )  # fmt: skip
        Console(stderr=True).print(line)
    Console().print(table)
    write_figures(options, {"device": options.device, "threads": torch.get_num_threads(), "lines": lines})


if __name__ == "__main__":
    main()
