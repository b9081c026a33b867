"""Tensors to a device and back, without waiting for what the device has begun.

A GPU does its work in the order in which it was asked for, while this process goes on; but a copy from or to
memory that is not pinned waits until all of it is done.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of this process's memory on `device`."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_cpu(tensor: Tensor) -> Callable[[], np.ndarray]:
    """Have `tensor` copied once it is computed; what is returned waits for that and gives the array."""
    if tensor.device.type != "cuda":
        array = tensor.cpu().numpy()
        return lambda: array
    copied = tensor.contiguous().to("cpu", non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(tensor.device))

    def arrived() -> np.ndarray:
        done.synchronize()
        return copied.numpy().copy()  # pinned memory is for the next ones

    return arrived
