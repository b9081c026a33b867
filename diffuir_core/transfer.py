"""Copies of tensors to a device and back that do not wait for the device's queue.

A GPU works through its queue while this process goes on, but a copy from or to memory that is not pinned waits
until the queue is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to `device`; for a GPU through pinned memory, without waiting."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_cpu(tensor: Tensor) -> Callable[[], NDArray[Any]]:
    """Queue a copy of `tensor` to the CPU; the function returned waits for it and returns the array."""
    if tensor.device.type != "cuda":
        array = tensor.cpu().numpy()
        return lambda: array
    copied = tensor.contiguous().to("cpu", non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(tensor.device))

    def wait() -> NDArray[Any]:
        done.synchronize()
        return copied.numpy().copy()  # so that the pinned memory is free for the next copy

    return wait
