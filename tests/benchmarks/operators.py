"""The time of one pass of the network by operator and shapes, the slowest first.

python tests/benchmarks/operators.py [--variant T] [--size 256x256] [--precision float32] [--lines 20]

Each operator is timed at its call, which costs microseconds; torch.profiler allocates memory as it records, and
showed memory-bound operators up to ten times slower than they are. `of machine`: a convolution's arithmetic rate
as a share of the machine's, which is the best of a large matrix product and a channels-last 3x3 convolution in
this run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import torch
from options import benchmark_parser, write_figures
from restorer import machine_rate
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffuir_core.allocator import keep_freed_memory
from diffuir_core.precision import PRECISIONS
from diffuir_core.prepared_unet import PreparedUNet
from diffuir_core.unet import build


class Times(TorchDispatchMode):
    """Seconds, calls and FLOPs (of convolutions) by operator and shapes, while active."""

    def __init__(self) -> None:
        super().__init__()
        self.by_operator: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0, 0.0])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and time one operator."""
        began = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_cuda:
            torch.cuda.synchronize(out.device)
        took = time.perf_counter() - began
        shapes = ", ".join("x".join(map(str, a.shape)) for a in args[:2] if isinstance(a, Tensor))
        line = self.by_operator[func.__name__.removesuffix(".default"), shapes]
        line[0] += took
        line[1] += 1
        if "conv" in func.__name__ and isinstance(out, Tensor):
            line[2] += 2 * out.numel() * args[1][0].numel()
        return out


def main() -> None:
    """Measure and print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--variant", default="T", help="variant of the network: T, S, B or L")
    parser.add_argument("--size", default="256x256", help="width x height of the image, pixels")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="precision of the pass")
    parser.add_argument("--lines", type=int, default=20, help="number of operators to print")
    options = parser.parse_args()
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width, height = (int(side) for side in options.size.split("x"))
    dtype = PRECISIONS[options.precision]
    torch.manual_seed(0)
    network = PreparedUNet(build(options.variant), torch.tensor([500.0]), device, dtype)
    image, degraded = (torch.rand(1, 3, height, width, device=device) * 2 - 1 for _ in range(2))
    with torch.inference_mode():
        condition = network.condition_features(degraded)
        for _ in range(3):
            network(image, condition, 0)
        best = max(rate() for rate in machine_rate(dtype, device) * 3)
        with Times() as times:
            network(image, condition, 0)
    total = sum(seconds for seconds, _, _ in times.by_operator.values())
    table = Table("operator", "first two shapes", "calls", "ms", "share", "of machine")
    ordered = sorted(times.by_operator.items(), key=lambda item: -item[1][0])
    for (name, shapes), (seconds, calls, flops) in ordered[: options.lines]:
        rate = f"{flops / seconds / best:.0%}" if flops else ""
        table.add_row(name, shapes, str(calls), f"{seconds * 1e3:.1f}", f"{seconds / total:.1%}", rate)
    convs = [line for line in times.by_operator.values() if line[2]]
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
        f"{options.variant}, {options.size}, {options.precision}; machine {best / 1e9:.0f} GFLOP/s", table
    )
    figures = [
        {"operator": name, "shapes": shapes, "seconds": seconds, "calls": calls}
        for (name, shapes), (seconds, calls, _) in ordered
    ]
    write_figures(options, vars(options) | {"machine_flops": best, "operators": figures})


if __name__ == "__main__":
    main()
