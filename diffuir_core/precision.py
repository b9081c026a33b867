"""Which precision a machine computes fastest in, by trying.

A name does not tell: a CPU may have bfloat16 in its instruction set and emulate it, or have a unit that makes it
two times faster than float32.
"""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import nn

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

FASTER_BY = 1.3
"""bfloat16 must be faster by this much. Machines lie far on either side (0.3 or 2 on CPUs), so that what else runs
does not decide it."""

_TURNS = 5


@lru_cache
def fastest_precision(device: torch.device) -> str:
    """ "bfloat16" where the convolution that the network consists of is faster in it, else "float32"."""
    sides = {name: _convolution(device, dtype) for name, dtype in PRECISIONS.items()}
    seconds = {name: float("inf") for name in sides}
    for _ in range(_TURNS):
        for name, (conv, x) in sides.items():
            seconds[name] = min(seconds[name], _seconds(conv, x))
    return "bfloat16" if seconds["float32"] >= FASTER_BY * seconds["bfloat16"] else "float32"


def _convolution(device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor]:
    images = (
        1 if device.type == "cpu" else 32
    )  # on a GPU one takes no longer than its launch, in any precision
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
