"""The time of a training step, beside that of a straightforward implementation.

python tests/benchmarks/training_step.py [--variant T] [--batch 10] [--crop 128] [--turns 3] [--json FILE]

A step is the loss of Algorithm 1, its gradient, clipping and Adam. The plain side is `PlainUNet` (eager, float32,
contiguous); ours is `UNet` in float32 and under bfloat16 autocast, as in `diffuir train`. The sides take turns,
each in a process of its own; the first step of each is not counted.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from options import benchmark_parser, write_figures
from plain import PlainUNet
from restorer import seconds
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from diffuir_core import Schedule, build
from diffuir_core.allocator import keep_freed_memory
from diffuir_core.diffusion import Network, forward_process, residual_loss
from diffuir_core.precision import PRECISIONS


def training_step(
    network: Network,
    parameters: Iterable[Tensor],
    batch: int,
    crop: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Callable[[], None]:
    """A function that makes one training step of `network` on images of noise."""
    parameters = list(parameters)
    schedule = Schedule.release().to(device)
    clean, degraded, noise = (torch.rand((batch, 3, crop, crop), device=device) for _ in range(3))
    t = torch.randint(1000, (batch,), device=device)
    optimizer = torch.optim.Adam(parameters, 8e-5)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            image = forward_process(schedule, clean, degraded, t, noise)
            loss = residual_loss(network, schedule, clean, degraded, t, image).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


_steps: dict[str, Callable[[], None]] = {}
"""The step that this process is set up to run."""


def set_up(side: str, options: dict[str, Any]) -> None:
    """Set up one side in this process, and make a step that is not counted."""
    device = torch.device(options["device"])
    torch.manual_seed(0)
    model = build(options["variant"]).to(device)
    case = (options["batch"], options["crop"], device)
    if side == "plain":
        plain = PlainUNet(model)
        for value in plain.state.values():
            value.requires_grad_()
        _steps["step"] = training_step(plain, plain.state.values(), *case, torch.float32)
    else:
        keep_freed_memory()  # as a training worker does
        _steps["step"] = training_step(model, model.parameters(), *case, PRECISIONS[side])
    _steps["step"]()


def one_step(device: str) -> float:
    """Duration of a step of the side that this process is set up for, seconds."""
    return seconds(_steps["step"], torch.device(device))


def main() -> None:
    """Measure and print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--variant", default="T", help="variant of the network: T, S, B or L")
    parser.add_argument("--batch", type=int, default=10, help="crops in a step")
    parser.add_argument("--crop", type=int, default=128, help="side of a crop, pixels")
    parser.add_argument("--turns", type=int, default=3, help="steps of each side")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sides = ("plain", *PRECISIONS)
    times: dict[str, list[float]] = {side: [] for side in sides}
    with ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        processes = {side: stack.enter_context(spawn.Pool(1)) for side in sides}
        for side, process in processes.items():
            process.apply(set_up, (side, vars(options) | {"device": device}))
        for _ in range(options.turns):
            for side, process in processes.items():
                times[side].append(process.apply(one_step, (device,)))
    figures = {name: statistics.median(steps) for name, steps in times.items()}
    table = Table(
        "training step", "s", "of plain", title=f"{options.variant}, {options.batch} crops of {options.crop}"
    )
    for name, duration in figures.items():
        table.add_row(name, f"{duration:.2f}", f"{figures['plain'] / duration:.1f}")
    Console().print(table)
    write_figures(options, vars(options) | {"device": device, "seconds": figures})


if __name__ == "__main__":
    main()
