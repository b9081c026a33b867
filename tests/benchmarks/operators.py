"""Where the time of one pass goes: every operator with its shapes, the slowest first.

python tests/benchmarks/operators.py [--variant T] [--size 256x256] [--precision float32] [--lines 20]

Each operator is timed from outside as it is called, which costs microseconds; torch.profiler, which allocates as
it goes, showed memory-bound operators up to ten times slower than they are. `of machine`: of a convolution, its
arithmetic by the best of a large matrix product and a channels-last 3x3 convolution in this run.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from typing import Any

import torch
from restorer import machine_rate
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffuir_core.allocator import keep_freed_memory
from diffuir_core.precision import PRECISIONS
from diffuir_core.prepared import PreparedUNet
from diffuir_core.unet import build


class Times(TorchDispatchMode):
    """Seconds, calls and FLOPs (of convolutions) by operator and shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0, 0.0])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and time one operator."""
        began = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_cuda:
            torch.cuda.synchronize(out.device)
        took = time.perf_counter() - began
        shapes = ", ".join("x".join(map(str, a.shape)) for a in args[:2] if isinstance(a, Tensor))
        line = self.of[func.__name__.removesuffix(".default"), shapes]
        line[0] += took
        line[1] += 1
        if "conv" in func.__name__ and isinstance(out, Tensor):
            line[2] += 2 * out.numel() * args[1][0].numel()
        return out


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="T")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--lines", type=int, default=20)
    asked = parser.parse_args()
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width, height = (int(side) for side in asked.size.split("x"))
    dtype = PRECISIONS[asked.precision]
    torch.manual_seed(0)
    network = PreparedUNet(build(asked.variant), torch.tensor([500.0]), device, dtype)
    image, degraded = (torch.rand(1, 3, height, width, device=device) * 2 - 1 for _ in range(2))
    with torch.inference_mode():
        seen = network.see(degraded)
        for _ in range(3):
            network(image, seen, 0)
        best = max(rate() for rate in machine_rate(dtype, device) * 3)
        with Times() as times:
            network(image, seen, 0)
    total = sum(seconds for seconds, _, _ in times.of.values())
    table = Table("operator", "first two shapes", "calls", "ms", "share", "of machine")
    ordered = sorted(times.of.items(), key=lambda item: -item[1][0])
    for (name, shapes), (seconds, calls, flops) in ordered[: asked.lines]:
        rate = f"{flops / seconds / best:.0%}" if flops else ""
        table.add_row(name, shapes, str(calls), f"{seconds * 1e3:.1f}", f"{seconds / total:.1%}", rate)
    convs = [line for line in times.of.values() if line[2]]
    seconds, flops = sum(line[0] for line in convs), sum(line[2] for line in convs)
    table.add_row(
        "all convolutions",
        "",
        "",
        f"{seconds * 1e3:.1f}",
        f"{seconds / total:.1%}",
        f"{flops / seconds / best:.0%}",
    )
    table.add_row("everything", "", "", f"{total * 1e3:.1f}", "100%", "")
    Console(width=120).print(
        f"{asked.variant}, {asked.size}, {asked.precision}; machine {best / 1e9:.0f} GFLOP/s", table
    )


if __name__ == "__main__":
    main()
