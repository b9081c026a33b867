"""The precision in which a machine is fastest, by measurement.

A CPU's name does not tell: it may list bfloat16 in its instruction set and emulate it, or have a unit that makes
it twice as fast as float32.
"""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import nn

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""The supported precisions by name."""

FASTER_BY = 1.3
"""Factor by which bfloat16 must be faster to be chosen. Machines are far on either side of it (0.3 or 2 on
CPUs), so that other load does not decide."""

_TURNS = 5
"""Measurements of each precision, of which the fastest counts."""


@lru_cache
def fastest_precision(device: torch.device) -> str:
    """The name of the faster precision for the network's 3x3 convolution: "bfloat16" or "float32"."""
    sides = {name: _convolution(device, dtype) for name, dtype in PRECISIONS.items()}
    seconds = {name: float("inf") for name in sides}
    for _ in range(_TURNS):
        for name, (conv, x) in sides.items():
            seconds[name] = min(seconds[name], _seconds(conv, x))
    return "bfloat16" if seconds["float32"] >= FASTER_BY * seconds["bfloat16"] else "float32"


def _convolution(device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor]:
    # On a GPU one image takes no longer than its launch, in either precision.
    images = 1 if device.type == "cpu" else 32
    conv = nn.Conv2d(32, 32, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.ones((images, 32, 256, 256)).to(device, dtype, memory_format=torch.channels_last)
    return conv, x


@torch.inference_mode()
def _seconds(conv: nn.Module, x: torch.Tensor) -> float:
    began = time.perf_counter()
    conv(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - began
