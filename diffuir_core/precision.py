"""The precision in which a machine is fastest: asked of a CPU, and measured where it may be bfloat16.

A CPU without instructions for bfloat16 emulates it. With them it may still be slower than float32, or twice as
fast; so it is measured once, and the answer is kept for later processes of this machine: an image must not depend
on how busy the machine was.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from .files import replacing

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""The supported precisions by name."""

FASTER_BY = 1.3
"""Factor by which bfloat16 must be faster to be chosen. Machines are far on either side of it (0.3 or 2 on
CPUs), so that other load does not decide."""

_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")
"""Names that torch has for a CPU's instructions for products of bfloat16, on x86 and on ARM."""

_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that keep torch and oneDNN from instructions which the CPU has."""

_TURNS = 5
"""Measurements of each precision, of which the fastest counts."""


@lru_cache
def fastest_precision(device: torch.device) -> str:
    """The name of the faster precision for the network's 3x3 convolution: "bfloat16" or "float32"."""
    if device.type == "cpu" and not _has_bfloat16():
        return "float32"
    file = _cache_file(device)
    precision = _remembered(file) if file else None
    if precision is None:
        precision = _measured(device)
        if file:
            # Where the folder can't be written, the next process measures again.
            with suppress(OSError), replacing(file) as temporary:
                temporary.write_text(json.dumps({"precision": precision, "machine": _machine(device)}))
    return precision


def _has_bfloat16() -> bool:
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # all that torch may use, where the CPU has more
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _BFLOAT16_INSTRUCTIONS)


def _machine(device: torch.device) -> dict[str, str]:
    """Properties of the machine that the measurement depends on, for a home folder that several machines share."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{torch.cpu.get_capabilities().get('cpu_name')}, {torch.backends.cpu.get_cpu_capability()}"
    limits = {limit: os.environ[limit] for limit in _LIMITS if limit in os.environ}
    return {"device": f"{device.type}: {name}", "torch": torch.__version__, **limits}


def _cache_file(device: torch.device) -> Path | None:
    """The file with the answer for this machine, below XDG_CACHE_HOME; None for a user without a home folder.

    Source: XDG Base Directory Specification 0.8, which has a relative XDG_CACHE_HOME ignored.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not folder.is_absolute():
        folder = Path(os.path.expanduser("~")) / ".cache"
    if not folder.is_absolute():
        return None
    digest = hashlib.sha256(json.dumps(_machine(device), sort_keys=True).encode()).hexdigest()[:16]
    return folder / "diffuir" / f"precision-{digest}.json"


def _remembered(file: Path) -> str | None:
    """The precision that the file names; None where there is none, or it is damaged."""
    try:
        precision = json.loads(file.read_bytes())["precision"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return precision if precision in list(PRECISIONS) else None


def _measured(device: torch.device) -> str:
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
