"""The cost of a variant: its parameters, the operations of a pass and the seconds of a restore, beside Table 1.

The paper's FLOPS column is 0.3 times thop's count, and thop leaves out the weight-standardised convolutions; the
operations here are counted by PyTorch as the network runs.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from ..restorer import Restorer
from ..unet import UNet, build
from ..variants import variant as find_variant


@dataclass(frozen=True)
class PaperCost:
    """The complexity that the paper reports of a variant (Table 1, 256x256)."""

    parameters_m: float
    """Parameters, millions."""
    flops_g: float
    """FLOPS (G)."""


PAPER_COST = {
    "T": PaperCost(0.89, 1.72),
    "S": PaperCost(3.27, 2.40),
    "B": PaperCost(12.41, 7.19),
    "L": PaperCost(36.26, 9.88),
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a variant at one size."""

    variant: str
    height: int
    width: int
    parameters: int
    gflop: float
    """Operations of one pass of one image, 1e9; a multiplication and an addition count as two."""
    seconds: float | None
    """Median time to restore one image with all its steps, seconds; None where it was not measured."""
    paper: PaperCost | None
    """The paper's figures; None for a variant that is not in its Table 1."""


def count_parameters(model: UNet) -> int:
    """The number of parameters of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_gflop(variant: str, height: int, width: int) -> float:
    """Operations of one pass of one image, 1e9, by PyTorch's counter; no memory is used and nothing computed."""
    # Imported here, as it brings PyTorch's compiler with it.
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build(variant)
        image, moment = torch.empty(1, 6, height, width), torch.empty(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image, moment)
    return counter.get_total_flops() / 1e9


def measure_seconds(restorer: Restorer, height: int, width: int, turns: int = 3) -> float:
    """Median time of restoring one image of noise, seconds, after one that is not counted.

    The times of others on the machine are in it; on a GPU it ends when the image is back.
    """
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).numpy()
    restorer.restore([image])
    times = []
    for _ in range(turns):
        begun = time.perf_counter()
        restorer.restore([image])
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def cost(variant: str, height: int = 256, width: int = 256, restorer: Restorer | None = None) -> Cost:
    """The cost of a variant at a size in pixels; with a restorer of that variant also its seconds.

    Raises `UserError` for a name that is no variant.
    """
    return Cost(
        variant=variant,
        height=height,
        width=width,
        parameters=find_variant(variant).parameters,
        gflop=count_gflop(variant, height, width),
        seconds=None if restorer is None else measure_seconds(restorer, height, width),
        paper=PAPER_COST.get(variant),
    )
