"""Passes of the network recorded as CUDA graphs.

A pass over a few small images is over a thousand kernels of microseconds each, and launching them one by one takes
longer than running them. A recorded pass is a single launch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .prepared_unet import PreparedUNet

MAX_PIXELS = 2**18
"""Largest batch that is recorded, in pixels: in a larger one the kernels take longer than their launches."""

MAX_RECORDINGS = 32
"""Most recordings of a network, one for each size and step, first come, first served: each holds memory as long as
the network lives."""


@dataclass
class _Size:
    """The recorded passes over images of one size."""

    image: Tensor
    """Input of all passes: I_t, (B, 3, H, W)."""
    condition: Tensor
    """Input of all passes: the network's `condition_features`."""
    steps: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = field(default_factory=dict)
    """Number of the step -> the recorded pass, and the tensor that it writes I_res to."""


class RecordedPasses:
    """A network on a GPU whose passes over small images are recorded at their first use. Not thread-safe."""

    def __init__(self, network: PreparedUNet) -> None:
        self.network = network
        self._sizes: dict[torch.Size, _Size] = {}
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, image: Tensor, condition: Tensor, step: int) -> Tensor:
        """The result of `PreparedUNet.forward` for whole images, bit for bit."""
        size = self._sizes.get(image.shape)
        if size is None or step not in size.steps:
            if image[:, 0].numel() > MAX_PIXELS or len(self) >= MAX_RECORDINGS:
                return self.network(image, condition, step)
            size = self._record(image, condition, step)
        size.image.copy_(image)
        size.condition.copy_(condition)
        graph, residual = size.steps[step]
        graph.replay()
        return residual.clone()

    def __len__(self) -> int:
        """Number of recordings."""
        return sum(len(size.steps) for size in self._sizes.values())

    def _record(self, image: Tensor, condition: Tensor, step: int) -> _Size:
        self.network(image, condition, step)  # a library's set-up in its first call can't be recorded
        size = self._sizes.setdefault(image.shape, _Size(image.clone(), condition.clone()))
        graph = torch.cuda.CUDAGraph()
        # "thread_local", because another thread may be using another network.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            residual = self.network(size.image, size.condition, step)
        size.steps[step] = graph, residual
        return size
