"""The restorer: uint8 photos in, restored photos out."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .allocator import keep_freed_memory
from .cuda_graphs import RecordedPasses
from .diffusion import network_time, start_release
from .equalise import equalise_histogram
from .guard import judge
from .memory_plan import SMALLEST_TILE, Plan, available_memory, halved_tiles, is_out_of_memory, plan
from .norms import ImageStatistics
from .pixels import Pixels, is_rgb
from .precision import PRECISIONS, fastest_precision
from .prepared_unet import PreparedUNet
from .sampling import Predict, ddim, last
from .schedule import sampling_times
from .tiling import Tiling
from .transfer import to_cpu, to_device
from .unet import MULTIPLE, pad_to_multiple, padded_size
from .weights import open_weights

T = TypeVar("T")

BATCH_PIXELS = 2**18
"""Most pixels of a batch on a GPU: enough to fill it with small images."""

GUARD_THREADS = 8
"""Threads in which the guard judges the images of a batch."""

ROWS_AT_ONCE = 256
"""Rows of an image whose change is weakened at a time."""

KEEPING_SHARE = 0.6
"""Share of the available memory above which an image is restored without keeping freed memory."""


@dataclass(frozen=True)
class Restoration:
    """A restored image, and how it was restored."""

    pixels: Pixels
    """The restored image, uint8 (H, W, 3)."""
    tiling: Tiling | None
    """Its tiles; None if it was restored whole."""
    note: str | None = None
    """Sentence on what the guard held back; None if it held nothing back."""


PendingRestorations = Callable[[], list[Restoration]]
"""A function that waits for the images of a batch, which a device may still be working on, and returns them."""


class Restorer:
    """Restores uint8 photos with one set of weights.

    weights: a file for `load_weights`; None for the weights that ship.
    device: "auto" (a GPU if there is one) or the name of a torch device.
    precision: "float32", "bfloat16", or "auto", which measures and takes the faster one.
    steps: number of DDIM steps, 1 .. 1000; None for what the weights' header says, 3 for published ones.
    seed: seed of the noise; an image's noise follows from the seed and its own content.
    tile: side of the tiles of larger images, pixels, a multiple of 16; None for the whole image if it fits into
        memory, else for the largest tiles that do.
    memory: bytes that a restore may use; None for the free memory.
    strength: share of the change that is made, 0 (none) .. 1 (all).
    equalise: True equalises the image's histogram first, as published weights expect of a low-light photo.
    guard: True leaves out what is implausible of the network's change, as `guard.judge` sees it; False, or with
        `equalise`, all of the change is made.

    Raises `UserError` for unusable weights and `ValueError` for another unusable argument.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        steps: int | None = None,
        seed: int = 0,
        tile: int | None = None,
        memory: int | None = None,
        strength: float = 1.0,
        equalise: bool = False,
        guard: bool = True,
    ) -> None:
        if steps is not None and not 1 <= steps <= 1000:
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
        self.steps = steps = opened.steps if steps is None else steps
        self.seed = seed
        self.tile = tile
        self.memory = memory
        self.strength = strength
        self.equalise = equalise
        self.guard = guard
        self.on_pass: Callable[[int, int], None] | None = None
        """Called after each pass of the network with the number of passes done and of all that the image, or its
        batch, needs: one for each step, or for each step and tile. None calls nothing."""
        self.variant = opened.model.variant
        self.schedule = opened.schedule.to(self.device)
        # Convolutions round differently for another number of images, so each size has one fixed batch size: one
        # image on a CPU, which it fills; on a GPU as many small ones as `BATCH_PIXELS` allows.
        self.batch_pixels = 0 if self.device.type == "cpu" else BATCH_PIXELS
        times = network_time(self.schedule, torch.tensor(sampling_times(steps)[:-1]))
        self.network = PreparedUNet(opened.model, times, self.device, PRECISIONS[self.precision])
        self._passes = RecordedPasses(self.network) if self.device.type == "cuda" else self.network

    def restore(self, images: Sequence[Pixels]) -> list[Pixels]:
        """Restore uint8 (H, W, 3) RGB arrays of any sizes; returns arrays of the same shapes in the same order.

        A result does not depend on the other images, bit for bit on one kind of device. Raises `ValueError` for an
        array that is not uint8 (H, W, 3).
        """
        return [restoration.pixels for restoration in self.restorations(images)]

    def restorations(self, images: Sequence[Pixels]) -> list[Restoration]:
        """Restore images as `restore` does, and return each with its tiles and the guard's note."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, image in enumerate(images):
            if not is_rgb(image):
                raise ValueError(f"an image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
            groups[padded_size(*image.shape[:2])].append(i)

        def start_batches() -> Iterator[tuple[list[int], PendingRestorations]]:
            for (height, width), members in groups.items():
                size = self.batch_size(height, width)
                for start in range(0, len(members), size):
                    batch = members[start : start + size]
                    degraded = [equalise_histogram(images[i]) if self.equalise else images[i] for i in batch]
                    degraded += degraded[-1:] * (size - len(batch))
                    yield batch, self._restore_batch(degraded)

        done: dict[int, Restoration] = {}
        for batch, pending in with_lookahead(start_batches()):
            done.update(zip(batch, self._weakened([images[i] for i in batch], pending()), strict=True))
        return [done[i] for i in range(len(images))]

    def batch_size(self, height: int, width: int) -> int:
        """Number of images of height x width pixels that go through the network at once, always the same."""
        return max(1, self.batch_pixels // math.prod(padded_size(height, width)))

    def with_settings(self, *, seed: int, strength: float, equalise: bool, guard: bool = True) -> Restorer:
        """A restorer that shares this network, with other per-image settings."""
        other = copy.copy(self)
        other.seed, other.strength, other.equalise, other.guard = seed, strength, equalise, guard
        return other

    def plan(self, height: int, width: int) -> Plan:
        """The way an image of height x width pixels would be restored now: its tiles and its memory."""
        itemsize = PRECISIONS[self.precision].itemsize
        memory = available_memory(self.device) if self.memory is None else self.memory
        return plan(self.variant, height, width, itemsize, memory, self.tile)

    def _weakened(self, images: Sequence[Pixels], batch: list[Restoration]) -> list[Restoration]:
        """The restorations of a batch with the share of their change that the guard and `strength` allow."""
        pairs = list(zip(images, batch, strict=False))
        if len(pairs) == 1:
            return [self._weakened_one(*pairs[0])]
        with ThreadPoolExecutor(
            GUARD_THREADS
        ) as pool:  # a GPU restores an image faster than one thread judges it
            return list(pool.map(lambda pair: self._weakened_one(*pair), pairs))

    def _weakened_one(self, image: Pixels, restoration: Restoration) -> Restoration:
        share, note = self.strength, None
        # An equalised image differs as a whole from what the network saw.
        if self.guard and not self.equalise and share > 0:
            verdict = judge(image, restoration.pixels)
            share, note = share * verdict.share, verdict.note
        return replace(restoration, pixels=interpolate(image, restoration.pixels, share), note=note)

    def _restore_batch(self, images: Sequence[Pixels]) -> PendingRestorations:
        """Restore images of one padded size; if memory runs out, one by one and then in smaller tiles."""
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
            each = [self._restore_batch([image]) for image in images]
            return lambda: [pending()[0] for pending in each]
        while True:
            if tiling is not None:
                restored = _unless_out_of_memory(partial(self._restore_in_tiles, images[0], tiling))
                if restored is not None:
                    return restored
            tiling = halved_tiles(height, width, tiling)

    @torch.inference_mode()
    def _restore_whole(self, images: Sequence[Pixels]) -> PendingRestorations:
        """Restore images of one padded size as a batch, without tiles."""
        sizes = [image.shape[:2] for image in images]

        def stacked(tensors: Iterable[Tensor]) -> Tensor:
            """A batch of tensors of `sizes`, each (3, H, W), padded by reflection to one size."""
            return torch.stack([pad_to_multiple(tensor) for tensor in tensors])

        def predict(image: Tensor, step: int, t: int) -> Tensor:
            # Each step pads its own image, as the network does with a single one.
            if any(size != image.shape[-2:] for size in sizes):
                image = stacked(one[:, :h, :w] for one, (h, w) in zip(image, sizes, strict=True))
            residual = self._passes(image, condition, step).clamp_(-1.0, 1.0)
            self._count_pass(step + 1, self.steps)
            return residual

        degraded = stacked(as_signal(image, self.device) for image in images)
        noise = stacked(to_device(content_noise(image, self.seed)[0], self.device) for image in images)
        condition = self.network.condition_features(self.schedule.implicit_condition(degraded))
        restored = self._sample(predict, degraded, noise)
        return lambda: [
            Restoration(level[:h, :w], None) for level, (h, w) in zip(restored(), sizes, strict=True)
        ]

    @torch.inference_mode()
    def _restore_in_tiles(self, image: Pixels, tiling: Tiling) -> PendingRestorations:
        """Restore one image in tiles."""
        degraded = as_signal(image, self.device)[None]
        condition = self.schedule.implicit_condition(degraded)
        done, total = itertools.count(1), self.steps * (len(tiling.edge_to_edge) + len(tiling))

        def predict(image: Tensor, step: int, t: int) -> Tensor:
            statistics = ImageStatistics()

            def predict_tile(rows: slice, columns: slice) -> Tensor:
                features = self.network.condition_features(condition[..., rows, columns])
                residual = self.network(image[..., rows, columns], features, step, statistics)
                self._count_pass(next(done), total)
                return residual

            for window in tiling.edge_to_edge.windows:
                predict_tile(*window)
            statistics.gathering = False
            return tiling.blend(predict_tile, image).clamp_(-1.0, 1.0)

        restored = self._sample(predict, degraded, to_device(content_noise(image, self.seed), self.device))
        return lambda: [Restoration(level, tiling) for level in restored()]

    def _count_pass(self, done: int, total: int) -> None:
        if self.on_pass is not None:
            self.on_pass(done, total)

    def _sample(self, predict: Predict, degraded: Tensor, noise: Tensor) -> Callable[[], NDArray[np.uint8]]:
        """Start the sampling; the function returned waits for its end and returns uint8 (B, H, W, 3)."""
        start = start_release(self.schedule, degraded, noise)
        del noise  # 12 bytes a pixel, which a picture of 100 megapixels may need
        image = last(ddim(predict, self.schedule, start, degraded, self.steps))
        return to_cpu(image.add_(1.0).mul_(127.5).round_().clamp_(0, 255).byte().permute(0, 2, 3, 1))


def with_lookahead(items: Iterable[T]) -> Iterator[T]:
    """Yield each item after the next one has been taken, so that a GPU has work while the next noise is drawn."""
    held: list[T] = []
    for item in items:
        yield from held
        held = [item]
    yield from held


def _unless_out_of_memory(run: Callable[[], PendingRestorations]) -> PendingRestorations | None:
    """The result of `run`, or None if memory ran out; by then the memory that it held is free again."""
    try:
        return run()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def interpolate(original: Pixels, restored: Pixels, strength: float) -> Pixels:
    """The uint8 image that is `strength` of the way from `original` (0) to `restored` (1)."""
    if strength == 1:
        return restored
    between = original.copy()
    if strength == 0:
        return between
    for row in range(
        0, len(original), ROWS_AT_ONCE
    ):  # float32 of all rows would take eight times their memory
        rows = slice(row, row + ROWS_AT_ONCE)
        change = restored[rows].astype(np.float32) - original[rows]
        between[rows] = np.rint(original[rows] + np.float32(strength) * change)
    return between


def as_signal(pixels: Pixels, device: torch.device) -> Tensor:
    """uint8 (..., H, W, 3), an image or a batch -> float32 (..., 3, H, W) in [-1, 1] on `device`, channels
    last."""
    # Writable, because torch warns about read-only arrays, even if they are only read.
    levels = to_device(torch.from_numpy(np.require(pixels, requirements=["C", "W"])), device)
    return levels.movedim(-1, -3).float().div_(127.5).sub_(1.0)


def content_noise(image: Pixels, seed: int) -> Tensor:
    """The standard normal draw of an image under a seed, (1, 3, H, W) float32.

    Drawn on the CPU from a hash of (seed, shape, pixels), so that it is the same on any machine and in any batch.
    """
    digest = hashlib.blake2b(f"{seed}:{image.shape}".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).data)
    generator = torch.Generator().manual_seed(int.from_bytes(digest.digest(), "big", signed=True))
    return torch.randn((1, 3, *image.shape[:2]), generator=generator)
