"""Passes of a network recorded as CUDA graphs.

A pass over a few small images is over a thousand kernels of microseconds each, and launching them one by one takes
longer than running them. A recorded pass is launched as one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .prepared import PreparedUNet

MOST_PIXELS = 2**18
"""In a batch: beyond this the kernels take longer than their launches."""

MOST_RECORDINGS = 32
"""Each holds memory as long as its network lives: the first sizes that come are recorded, and no more."""


@dataclass
class _Size:
    """What the passes of one size read, and by step the pass with what it writes."""

    image: Tensor
    seen: Tensor
    steps: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = field(default_factory=dict)


class RecordedPasses:
    """`network` on a GPU, its passes over small images recorded when they are first asked for. For one thread."""

    def __init__(self, network: PreparedUNet) -> None:
        self.network = network
        self._sizes: dict[torch.Size, _Size] = {}
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, image: Tensor, seen: Tensor, step: int) -> Tensor:
        """As `PreparedUNet.forward` of whole images, bit for bit."""
        size = self._sizes.get(image.shape)
        if size is None or step not in size.steps:
            if image[:, 0].numel() > MOST_PIXELS or len(self) >= MOST_RECORDINGS:
                return self.network(image, seen, step)
            size = self._record(image, seen, step)
        size.image.copy_(image)
        size.seen.copy_(seen)
        graph, residual = size.steps[step]
        graph.replay()
        return residual.clone()

    def __len__(self) -> int:
        return sum(len(size.steps) for size in self._sizes.values())

    def _record(self, image: Tensor, seen: Tensor, step: int) -> _Size:
        self.network(image, seen, step)  # libraries set themselves up, which can't be recorded
        size = self._sizes.setdefault(image.shape, _Size(image.clone(), seen.clone()))
        graph = torch.cuda.CUDAGraph()
        # Another thread may be at work with another network.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            residual = self.network(size.image, size.seen, step)
        size.steps[step] = graph, residual
        return size
