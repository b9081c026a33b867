"""The process that holds the models: photos in, restored photos out, batched; a Ray Serve deployment."""

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

from ...inference import RestoresPixels, fetch_weights, restore_each
from ..catalogue import Catalogue
from ..settings import ServeSettings
from .batching import Batcher
from .interface import Options, Restored, RestoreFailedError, units

WARM_UP_SIDE = 256
"""Pixels of the image that a model restores before it is said to be ready, which also tells its pace."""
PROBE_SIDE = 16


class ServedRestorer(RestoresPixels, Protocol):
    """The part of `diffuir_core.Restorer` that is used here."""

    def together(self, height: int, width: int) -> int:
        """How many images of that size it takes at once."""

    def having(self, *, seed: int, strength: float, equalise: bool) -> ServedRestorer:
        """One that shares its network and has other settings."""


Make = Callable[[ServeSettings, Path | None, int], ServedRestorer]
"""Makes a restorer of the settings, a weights file or None for those that ship, and a number of steps."""


class Model:
    """Restores photos with the models of `catalogue`, as many of which it holds as there is memory for.

    threads: of the arithmetic; None leaves them to Ray, which gives as many as the CPUs it counts.
    """

    def __init__(
        self, settings: ServeSettings, catalogue: Catalogue, make: Make | None, threads: int | None
    ) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self._settings = settings
        self._catalogue = catalogue
        self._make = make or restorer_of
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="diffuir-model")
        self._files = tempfile.TemporaryDirectory(prefix="diffuir-")
        self._known_files: dict[str, Path | None] = {}
        self._batcher = _batcher(self._thread, settings.batch_wait)
        # One at a time: a load whose client has gone cannot be stopped, only not begun.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="diffuir-load")
        self._unfinished = 0.0
        """Seconds of work that it has and that waits for it."""
        self._waiting = 0
        self._paces: dict[str, float] = {}
        """Model -> seconds that a unit of work took last."""

        async def load(model_id: str) -> ServedRestorer:
            return await self._load(model_id)

        # Serve puts the longest unused out, and sends a photo where its model is already.
        self._others = serve.multiplexed(max_num_models_per_replica=max(1, catalogue.at_once - 1))(load)
        self._batches = metrics.Histogram(
            "diffuir_serve_batch_size",
            description="Photos that went through a model together.",
            boundaries=[1, 2, 4, 8, 16, 32, 64],
        )
        self._first = self._prepared(settings.default_model, settings.steps)

    async def restore(self, pixels: Pixels, options: Options) -> Restored:
        """One photo, uint8 (H, W, 3); raises `RestoreFailedError`."""
        is_first = (options.model, options.steps) == (self._settings.default_model, self._settings.steps)
        restorer = self._first if is_first else await self._others(options.model_id)
        height, width = pixels.shape[:2]
        size = padded_size(height, width)
        item = (
            restorer.having(seed=options.seed, strength=options.strength, equalise=options.equalise),
            pixels,
        )
        work = units(height, width, options.steps)
        seconds = work * self._paces.get(options.model, 0.0)
        self._unfinished += seconds
        self._waiting += 1
        try:
            turn = await self._batcher((options, size), item, restorer.together(height, width))
        finally:
            self._unfinished -= seconds
            self._waiting -= 1
        self._batches.observe(turn.batch)
        self._paces[options.model] = turn.took / work
        if isinstance(turn.result, str):
            raise RestoreFailedError(turn.result)
        tiling = turn.result.tiling
        return Restored(
            pixels=turn.result.pixels,
            tiles=None if tiling is None else str(tiling),
            precision=restorer.precision,
            queued=turn.queued,
            took=turn.took,
            batch=turn.batch,
        )

    async def probe(self) -> float:
        """Restore a tiny image, and return the seconds that the whole took."""
        began = time.perf_counter()
        options = Options(self._settings.default_model, self._settings.steps, 0, 1.0, False)
        await self.restore(np.zeros((PROBE_SIDE, PROBE_SIDE, 3), dtype=np.uint8), options)
        return time.perf_counter() - began

    async def warm_up(self) -> tuple[float, float]:
        """The work of the default model's warm-up, and the seconds that it takes."""
        work = units(WARM_UP_SIDE, WARM_UP_SIDE, self._settings.steps)
        return work, work * self._paces[self._settings.default_model]

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve asks for this and hands it to `scaling.by_work`."""
        return {
            "load": self._unfinished / self._settings.wait_to_scale,
            "busy": float(self._waiting > 0),
        }

    async def _load(self, model_id: str) -> ServedRestorer:
        """Serve's wrapper keeps what this returns."""
        name, _, steps = model_id.rpartition(":")
        # Not in the model's own thread: those who use another one go on meanwhile.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._loader, self._prepared, name, int(steps))

    def _prepared(self, name: str, steps: int) -> ServedRestorer:
        """A restorer that has restored already, so that the first photo finds it at its speed."""
        restorer = self._make(self._settings, self._file_of(name), steps)
        image = np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), dtype=np.uint8)
        together = restorer.together(*image.shape[:2])
        for _ in range(2):
            began = time.perf_counter()
            restorer.restorations([image] * together)
            took = (time.perf_counter() - began) / together
        self._paces.setdefault(name, took / units(*image.shape[:2], steps))
        return restorer

    def _file_of(self, name: str) -> Path | None:
        """The model's weights, fetched once, whatever numbers of steps are asked for; None for those that ship."""
        if name not in self._known_files:
            weights = fetch_weights(self._catalogue[name].uri)
            if weights.sha256 != self._catalogue[name].sha256:
                raise UserError(
                    f"the weights of {name} are not those that this endpoint was started with: start it anew"
                )
            file = Path(self._files.name) / f"{len(self._known_files)}-{weights.name}"
            if weights.data is not None:
                file.write_bytes(weights.data)
            self._known_files[name] = None if weights.data is None else file
        return self._known_files[name]


def restorer_of(settings: ServeSettings, weights: Path | None, steps: int) -> ServedRestorer:
    """The restorer that the settings describe."""
    from diffuir_core import Restorer

    return Restorer(weights, device=settings.device, precision=settings.precision, steps=steps)


def _batcher(thread: ThreadPoolExecutor, wait: float) -> Any:
    async def run(items: Sequence[tuple[ServedRestorer, Pixels]]) -> list[Restoration | str]:
        # All of one kind, so of one restorer with one set of options.
        restorer = items[0][0]
        images = [pixels for _, pixels in items]
        return await asyncio.get_running_loop().run_in_executor(
            thread, partial(restore_each, restorer, images)
        )

    return Batcher[tuple[ServedRestorer, Pixels], Restoration | str](run, wait)
