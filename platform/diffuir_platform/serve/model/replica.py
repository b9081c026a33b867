"""The process that holds the models and restores photos in batches; a Ray Serve deployment."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ray import serve
from ray.serve import metrics

from diffuir_core import UserError
from diffuir_core.imaging import Pixels
from diffuir_core.restorer import Restoration
from diffuir_core.unet import padded_size

from ...inference import RestoresPixels, fetch_file, fetch_weights, load_restorer, restore_each
from ..catalogue import Catalogue
from ..settings import ServeSettings
from .batching import Batcher
from .interface import ModelOptions, Restored, RestoreFailedError, work_units

WARM_UP_SIDE = 256
"""Side of the image that a model restores before it counts as ready, pixels; also its first measurement of
latency."""
PROBE_SIDE = 16
"""Side of the image that `/healthz` has restored, pixels."""


class ServedRestorer(RestoresPixels, Protocol):
    """The part of `diffuir_core.Restorer` that is used here."""

    def batch_size(self, height: int, width: int) -> int:
        """Number of images of that size that it takes at once."""

    def with_settings(self, *, seed: int, strength: float, equalise: bool, guard: bool) -> ServedRestorer:
        """A restorer with other settings that shares this one's network."""


MakeRestorer = Callable[[ServeSettings, Path | None, int], ServedRestorer]
"""Makes a restorer from the settings, a weights file (None for the shipped weights), and a number of steps."""


class ModelReplica:
    """Restores photos with the models of `catalogue`, and keeps as many of them loaded as `models_memory` allows.

    make: makes the restorers; None for those of diffuir_core. threads: threads of the arithmetic; None leaves them
    to Ray, which gives as many as the replica's logical CPUs.
    """

    def __init__(
        self, settings: ServeSettings, catalogue: Catalogue, make: MakeRestorer | None, threads: int | None
    ) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self._settings = settings
        self._catalogue = catalogue
        self._make = make or partial(make_restorer, code=catalogue.code)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="diffuir-model")
        self._files = tempfile.TemporaryDirectory(prefix="diffuir-")
        self._known_files: dict[str, Path | None] = {}
        self._batcher = _batcher(self._thread, settings.batch_wait)
        # One load at a time: a load whose client has gone cannot be stopped, but it need not begin.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="diffuir-load")
        self._unfinished = 0.0
        """Expected seconds of the work that is under way or queued."""
        self._waiting = 0
        """Photos under way or queued."""
        self._seconds_per_unit: dict[str, float] = {}
        """Model -> seconds of its last unit of work."""

        async def load(model_id: str) -> ServedRestorer:
            return await self._load(model_id)

        # Serve unloads the least recently used, and sends a photo to a replica that has its model loaded.
        self._others = serve.multiplexed(max_num_models_per_replica=max(1, catalogue.models_in_memory - 1))(
            load
        )
        self._batches = metrics.Histogram(
            "diffuir_serve_batch_size",
            description="Photos per batch.",
            boundaries=[1, 2, 4, 8, 16, 32, 64],
        )
        self._default = self._load_warm(settings.default_model, settings.steps)

    async def restore(self, pixels: Pixels, options: ModelOptions) -> Restored:
        """Restore one photo, uint8 (H, W, 3) RGB; raises `RestoreFailedError`."""
        is_default = (options.model, options.steps) == (self._settings.default_model, self._settings.steps)
        restorer = self._default if is_default else await self._others(options.model_id)
        height, width = pixels.shape[:2]
        size = padded_size(height, width)
        item = (
            restorer.with_settings(
                seed=options.seed,
                strength=options.strength,
                equalise=options.equalise,
                guard=options.guard,
            ),
            pixels,
        )
        work = work_units(height, width, options.steps)
        seconds = work * self._seconds_per_unit.get(options.model, 0.0)
        self._unfinished += seconds
        self._waiting += 1
        try:
            batched = await self._batcher((options, size), item, restorer.batch_size(height, width))
        finally:
            self._unfinished -= seconds
            self._waiting -= 1
        self._batches.observe(batched.batch)
        self._seconds_per_unit[options.model] = batched.took / work
        if isinstance(batched.result, str):
            raise RestoreFailedError(batched.result)
        tiling = batched.result.tiling
        return Restored(
            pixels=batched.result.pixels,
            tiles=None if tiling is None else str(tiling),
            note=batched.result.note,
            precision=restorer.precision,
            queued=batched.queued,
            took=batched.took,
            batch=batched.batch,
        )

    async def probe(self) -> float:
        """Restore a tiny image and return the seconds that this took, waiting included."""
        began = time.perf_counter()
        options = ModelOptions(self._settings.default_model, self._settings.steps, 0, 1.0, False, False)
        await self.restore(np.zeros((PROBE_SIDE, PROBE_SIDE, 3), dtype=np.uint8), options)
        return time.perf_counter() - began

    async def warm_up(self) -> tuple[float, float]:
        """(units of work, seconds) of the default model's warm-up."""
        work = work_units(WARM_UP_SIDE, WARM_UP_SIDE, self._settings.steps)
        return work, work * self._seconds_per_unit[self._settings.default_model]

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Backlog in units of `target_wait`, and whether the replica is busy; Serve gives both to `scaling`."""
        return {
            "load": self._unfinished / self._settings.target_backlog,
            "busy": float(self._waiting > 0),
        }

    async def _load(self, model_id: str) -> ServedRestorer:
        """Load a restorer by its `ModelOptions.model_id`; Serve's wrapper keeps it."""
        name, _, steps = model_id.rpartition(":")
        # Not in the thread of the arithmetic, where photos for other models go on meanwhile.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._loader, self._load_warm, name, int(steps))

    def _load_warm(self, name: str, steps: int) -> ServedRestorer:
        """Load a restorer and have it restore an image, so that the first photo finds it at full speed."""
        restorer = self._make(self._settings, self._file_of(name), steps)
        image = np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), dtype=np.uint8)
        count = restorer.batch_size(*image.shape[:2])
        for _ in range(2):
            began = time.perf_counter()
            restorer.restorations([image] * count)
            took = (time.perf_counter() - began) / count
        self._seconds_per_unit.setdefault(name, took / work_units(*image.shape[:2], steps))
        return restorer

    def _file_of(self, name: str) -> Path | None:
        """The file of the model's weights, fetched once for all numbers of steps; None for the shipped weights."""
        if name not in self._known_files:
            uri = self._catalogue[name].uri
            if uri is None and self._catalogue.restorer is not None:
                return None
            weights = fetch_weights(uri) if self._catalogue.restorer is None else fetch_file(str(uri))
            if weights.sha256 != self._catalogue[name].sha256:
                raise UserError(
                    f"the weights of {name} have changed since this endpoint was started: restart it"
                )
            file = Path(self._files.name) / f"{len(self._known_files)}-{weights.name}"
            if weights.data is not None:
                file.write_bytes(weights.data)
            self._known_files[name] = None if weights.data is None else file
        return self._known_files[name]


def make_restorer(
    settings: ServeSettings, weights: Path | None, steps: int, code: str | None = None
) -> ServedRestorer:
    """Make the restorer that the settings describe; code: as of `load_restorer`."""
    if settings.restorer is not None:
        return load_restorer(settings.restorer, weights, device=settings.device, code=code)
    from diffuir_core import Restorer

    return Restorer(weights, device=settings.device, precision=settings.precision, steps=steps)


def _batcher(thread: ThreadPoolExecutor, wait: float) -> Any:
    async def run(items: Sequence[tuple[ServedRestorer, Pixels]]) -> list[Restoration | str]:
        # All items of a batch are of one kind: they have the same options, and so the same restorer.
        restorer = items[0][0]
        images = [pixels for _, pixels in items]
        return await asyncio.get_running_loop().run_in_executor(
            thread, partial(restore_each, restorer, images)
        )

    return Batcher[tuple[ServedRestorer, Pixels], Restoration | str](run, wait)
