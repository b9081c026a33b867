"""Images in, images out."""

from __future__ import annotations

import copy
import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .allocator import keep_freed_memory
from .diffusion import network_time, start_release
from .equalise import equalised
from .norms import ImageStatistics
from .planning import SMALLEST_TILE, Plan, available_memory, is_out_of_memory, plan, smaller
from .precision import PRECISIONS, fastest_precision
from .prepared import PreparedUNet
from .recording import RecordedPasses
from .sampling import Predict, ddim, last
from .schedule import sampling_times
from .tiling import Tiling
from .transfer import to_cpu, to_device
from .unet import MULTIPLE, pad_to_multiple, padded_size
from .weights import open_weights

T = TypeVar("T")

BATCH_PIXELS = 2**18
"""Pixels that go through the network together: what small images need to fill the machine, and no more."""

KEEPING_SHARE = 0.6
"""Of the memory: an image that needs more is restored without keeping what is freed, which would not fit."""


@dataclass(frozen=True)
class Restoration:
    """A restored image and how it came about."""

    pixels: np.ndarray
    """uint8 (H, W, 3)."""
    tiling: Tiling | None
    """The tiles it was restored in; None: whole."""


Restorations = Callable[[], list[Restoration]]
"""What waits for images that a device may still be at, and gives them."""


class Restorer:
    """Restores uint8 photos with one set of weights.

    weights: a file as `load_weights` takes it, None for those that ship. device: "auto" (a GPU where there is
    one), or a torch device. precision: "float32", "bfloat16", or "auto", the faster of the two here, which is
    measured; `self.precision` says which it is. steps: DDIM steps, 1 .. 1000. seed: with the image's own content,
    what its noise is drawn from. tile: side of the tiles that larger images are restored in, a multiple of 16;
    None for the whole image where it fits into memory, else the largest tiles that do. memory: bytes a restore
    may take; None for what is free. strength: how much of the change is made, 0 (none) .. 1. equalise: equalise
    the image's histogram first, as published weights expect of a low-light photo.

    Raises `UserError` for weights that can't be used, `ValueError` for the other arguments.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        steps: int = 3,
        seed: int = 0,
        tile: int | None = None,
        memory: int | None = None,
        strength: float = 1.0,
        equalise: bool = False,
    ) -> None:
        if not 1 <= steps <= 1000:
            raise ValueError(f"steps is {steps}: it must lie in 1 .. 1000")
        if not 0 <= strength <= 1:
            raise ValueError(f"strength is {strength}: it must lie in 0 .. 1")
        if precision not in ("auto", *PRECISIONS):
            raise ValueError(f"precision is {precision!r}: choose auto, {' or '.join(PRECISIONS)}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if tile is not None and (tile < SMALLEST_TILE or tile % MULTIPLE):
            raise ValueError(f"tile is {tile}: it must be a multiple of {MULTIPLE}, at least {SMALLEST_TILE}")
        opened = open_weights(weights)
        self.device = torch.device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.precision = fastest_precision(self.device) if precision == "auto" else precision
        self.steps = steps
        self.seed = seed
        self.tile = tile
        self.memory = memory
        self.strength = strength
        self.equalise = equalise
        self.variant = opened.model.variant
        self.schedule = opened.schedule.to(self.device)
        # A convolution rounds otherwise for another number of images. A CPU is filled by one image; on a GPU small
        # ones go together, always the same number.
        self.batch_pixels = 0 if self.device.type == "cpu" else BATCH_PIXELS
        times = network_time(self.schedule, torch.tensor(sampling_times(steps)[:-1]))
        self.network = PreparedUNet(opened.model, times, self.device, PRECISIONS[self.precision])
        self._passes = RecordedPasses(self.network) if self.device.type == "cuda" else self.network

    def restore(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """uint8 (H, W, 3) RGB arrays of any sizes -> restored ones of the same shapes, in the same order.

        The result of each does not depend on the others, bit for bit on one kind of device. Raises
        `ValueError` for an array that is not uint8 (H, W, 3).
        """
        return [restoration.pixels for restoration in self.restorations(images)]

    def restorations(self, images: Sequence[np.ndarray]) -> list[Restoration]:
        """`restore` that also says how."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, image in enumerate(images):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
                raise ValueError(f"an image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
            groups[padded_size(*image.shape[:2])].append(i)

        def begun() -> Iterator[tuple[list[int], Restorations]]:
            for (height, width), members in groups.items():
                together = self.together(height, width)
                for start in range(0, len(members), together):
                    batch = members[start : start + together]
                    degraded = [equalised(images[i]) if self.equalise else images[i] for i in batch]
                    degraded += degraded[-1:] * (together - len(batch))
                    yield batch, self._restore_group(degraded)

        done: dict[int, Restoration] = {}
        for batch, restored in one_behind(begun()):
            done.update(zip(batch, restored(), strict=False))
        return [
            replace(done[i], pixels=part_way(image, done[i].pixels, self.strength))
            for i, image in enumerate(images)
        ]

    def together(self, height: int, width: int) -> int:
        """How many images of that size go through the network at once: the most that are worth waiting for."""
        return max(1, self.batch_pixels // math.prod(padded_size(height, width)))

    def having(self, *, seed: int, strength: float, equalise: bool) -> Restorer:
        """A restorer that shares this one's network and has other settings of a single image."""
        other = copy.copy(self)
        other.seed, other.strength, other.equalise = seed, strength, equalise
        return other

    def plan(self, height: int, width: int) -> Plan:
        """How an image of that size would be restored now: whole or in tiles, and what it takes of memory."""
        itemsize = PRECISIONS[self.precision].itemsize
        memory = available_memory(self.device) if self.memory is None else self.memory
        return plan(self.variant, height, width, itemsize, memory, self.tile)

    def _restore_group(self, images: Sequence[np.ndarray]) -> Restorations:
        """Images of one padded size; out of memory, one by one, then in smaller tiles."""
        height, width = images[0].shape[:2]
        plan = self.plan(height, width)
        tiling = plan.tiling
        if self.device.type == "cpu":
            keep_freed_memory(plan.needed < KEEPING_SHARE * plan.available)
        if tiling is None:
            restored = _unless_out_of_memory(lambda: self._restore_whole(images))
            if restored is not None:
                return restored
        if len(images) > 1:
            each = [self._restore_group([image]) for image in images]
            return lambda: [restored()[0] for restored in each]
        while True:
            if tiling is not None:
                restored = _unless_out_of_memory(partial(self._restore_in_tiles, images[0], tiling))
                if restored is not None:
                    return restored
            tiling = smaller(height, width, tiling)

    @torch.inference_mode()
    def _restore_whole(self, images: Sequence[np.ndarray]) -> Restorations:
        """Images of one padded size, each at once."""
        sizes = [image.shape[:2] for image in images]

        def stacked(tensors: Iterable[Tensor]) -> Tensor:
            """Tensors of `sizes`, each (3, H, W), reflected up to the padded size they share."""
            return torch.stack([pad_to_multiple(tensor) for tensor in tensors])

        def predict(image: Tensor, step: int, t: int) -> Tensor:
            # Each step reflects the image it has, as the network does with an image by itself.
            if any(size != image.shape[-2:] for size in sizes):
                image = stacked(one[:, :h, :w] for one, (h, w) in zip(image, sizes, strict=True))
            return self._passes(image, seen, step).clamp_(-1.0, 1.0)

        degraded = stacked(as_signal(image, self.device) for image in images)
        noise = stacked(to_device(content_noise(image, self.seed)[0], self.device) for image in images)
        seen = self.network.see(self.schedule.implicit(degraded))
        restored = self._sample(predict, degraded, noise)
        return lambda: [
            Restoration(level[:h, :w], None) for level, (h, w) in zip(restored(), sizes, strict=True)
        ]

    @torch.inference_mode()
    def _restore_in_tiles(self, image: np.ndarray, tiling: Tiling) -> Restorations:
        """One image, in tiles."""
        degraded = as_signal(image, self.device)[None]
        condition = self.schedule.implicit(degraded)

        def predict(image: Tensor, step: int, t: int) -> Tensor:
            statistics = ImageStatistics()

            def of_tile(rows: slice, columns: slice) -> Tensor:
                seen = self.network.see(condition[..., rows, columns])
                return self.network(image[..., rows, columns], seen, step, statistics)

            for window in tiling.edge_to_edge.windows:
                of_tile(*window)
            statistics.gathering = False
            return tiling.blend(of_tile, image).clamp_(-1.0, 1.0)

        noise = to_device(content_noise(image, self.seed), self.device)
        restored = self._sample(predict, degraded, noise)
        return lambda: [Restoration(level, tiling) for level in restored()]

    def _sample(self, predict: Predict, degraded: Tensor, noise: Tensor) -> Callable[[], np.ndarray]:
        """What gives the uint8 (B, H, W, 3) once they are there."""
        start = start_release(self.schedule, degraded, noise)
        image = last(ddim(predict, self.schedule, start, degraded, self.steps))
        return to_cpu(((image + 1.0) * 127.5).round_().clamp_(0, 255).byte().permute(0, 2, 3, 1))


def one_behind(begun: Iterable[T]) -> Iterator[T]:
    """The same, each once the next one is begun: a GPU is not kept waiting for the noise of the next."""
    held: list[T] = []
    for one in begun:
        yield from held
        held = [one]
    yield from held


def _unless_out_of_memory(run: Callable[[], Restorations]) -> Restorations | None:
    """What `run` returns, or None where memory ran out; what it held is free again when this returns."""
    try:
        return run()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def part_way(original: np.ndarray, restored: np.ndarray, strength: float) -> np.ndarray:
    """The uint8 image that lies `strength` of the way from the one to the other."""
    if strength == 1:
        return restored
    change = restored.astype(np.float32) - original
    return np.rint(original + np.float32(strength) * change).astype(np.uint8)


def as_signal(image: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W) in [-1, 1] on `device`."""
    # Writable, because torch warns of what it could write to and never does here.
    pixels = to_device(torch.from_numpy(np.require(image, requirements=["C", "W"])), device)
    return pixels.permute(2, 0, 1).float() / 255.0 * 2.0 - 1.0


def content_noise(image: np.ndarray, seed: int) -> Tensor:
    """The (1, 3, H, W) standard normal draw that belongs to this image under this seed.

    Drawn on the CPU from a hash of (seed, shape, pixels): the same wherever and with whatever the image is
    restored.
    """
    digest = hashlib.blake2b(f"{seed}:{image.shape}".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).data)
    generator = torch.Generator().manual_seed(int.from_bytes(digest.digest(), "big", signed=True))
    return torch.randn((1, 3, *image.shape[:2]), generator=generator)
