"""The process between clients and models: receives photos, decodes them, has them restored, encodes the results.

A Ray Serve deployment; several may share the work. It holds no model, so that data from clients is never in the
same process as one, and models never wait for a decoder.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from diffuir_core import UserError
from diffuir_core.imaging import (
    Header,
    Image,
    ImageError,
    Limits,
    MissingExtraError,
    check_fits,
    decode,
    encode,
    format_to_write,
    inspect,
    lost_in,
)

from ...inference import with_restored
from ...runtime.private import running_replicas
from ..catalogue import Catalogue
from ..model import MODEL, ModelOptions, Restored, RestoreFailedError, work_units
from ..problems import Problem, image_problem
from ..schemas import Parameters, RestoreQuery
from ..settings import ServeSettings
from .access import LOOPBACK, Access, api_keys
from .admission import Admission, LimitError, Reservation
from .jobs import Jobs, check_effect
from .metrics import Metrics
from .uploads import read_photo

logger = logging.getLogger("ray.serve")

CODEC_THREADS = 4
"""Threads that decode and encode."""
SECONDS_BETWEEN_LOOKS = 1.0
"""Interval at which the number of running replicas is read, seconds."""
PROBE_SECONDS = 10.0
"""Longest wait for a model to answer a probe, seconds."""
SMALL_PIXELS = 2**18
"""Photos of up to so many pixels are decoded together with their header."""
UNCERTAINTY = 3.0
"""A photo whose time is guessed from far smaller ones is refused as too slow only where the guess exceeds the
limit by this factor: a 413 is final, so it is tried otherwise."""
BYTES_PER_PIXEL = 6
"""Memory of a photo under way, bytes per pixel: the original and the restored one, 8 bits each. The samples of a
16-bit photo come on top."""

T = TypeVar("T")


@dataclass(frozen=True)
class RestoreResult:
    """The file of a restored photo, and how it was restored; seconds: time of each stage."""

    data: bytes
    format: str
    options: ModelOptions
    sha256: str
    precision: str
    tiles: str
    notes: tuple[str, ...]
    pixels: int
    seconds: dict[str, float]
    restorer: str | None = None
    """Title of another restorer than DiffUIR."""


class Gateway:
    """Restores the photos of requests with the models behind the deployment handle `models`."""

    def __init__(self, settings: ServeSettings, catalogue: Catalogue, models: Any) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.restorer = catalogue.restorer_title
        keys = api_keys(settings.require_key)
        self.access = Access(keys, settings.requests_per_minute)
        self.is_local = not keys and settings.host in LOOPBACK
        self.admission = Admission(settings.max_open, settings.held_bytes, settings.max_wait)
        self.metrics = Metrics()
        self.jobs = Jobs(settings, catalogue)
        self.is_ready = False
        self._probing: asyncio.Future[float] | None = None
        self._last_restored = 0.0
        self._models = models
        # Kept, because Serve makes a new handle each time a method is looked up.
        self._default_restore = models.restore
        self._codecs = ThreadPoolExecutor(CODEC_THREADS, thread_name_prefix="diffuir-codec")
        self._limits = Limits(
            max_bytes=settings.max_bytes, max_pixels=settings.max_pixels, max_side=settings.max_side
        )

    async def watch(self) -> None:
        """Follow the number of running model replicas, until cancelled."""
        while True:
            try:
                await self._look()
            except Exception:  # the last number stands until Serve's controller answers again
                logger.warning("can't read the number of model replicas", exc_info=True)
            self.metrics.set_load(self.admission.open, self.admission.queued, self.admission.wait())
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    async def _look(self) -> None:
        here = serve.get_replica_context()
        running = await asyncio.to_thread(running_replicas, here.app_name)
        self.admission.replicas = running[MODEL] / max(1, running[here.deployment])
        self.is_ready = running[MODEL] > 0 or self.settings.min_replicas == 0
        if running[MODEL]:
            await self._learn_warm_up()

    async def _learn_warm_up(self) -> None:
        """Derive the first latency of every model from the default one's warm-up, until requests are measured."""
        default = self.settings.default_model
        if self.admission.is_measured(default):
            return
        work, seconds = await asyncio.wait_for(self._models.warm_up.remote(), PROBE_SECONDS)
        for name, entry in self.catalogue.items():
            ratio = (entry.gflop_256 or 1.0) / (self.catalogue[default].gflop_256 or 1.0)
            self.admission.learn(name, work, seconds * ratio)

    async def probe(self) -> float:
        """Have a tiny image restored and return the seconds that this took; raises `Problem` 503.

        Calls that come while a probe is under way share it, so that frequent probes cost the model nothing more.
        """
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(self._probe())
        return await asyncio.shield(self._probing)

    async def _probe(self) -> float:
        began = time.perf_counter()
        response = self._models.probe.remote()
        try:
            return await asyncio.wait_for(response, PROBE_SECONDS)
        except (TimeoutError, RayError, BackPressureError, DeploymentUnavailableError) as error:
            response.cancel()
            if self._last_restored > began:  # the probe only waits behind photos that are being restored
                return time.perf_counter() - began
            raise Problem(
                503,
                "unhealthy",
                f"no model restored a tiny image within {PROBE_SECONDS:g} s: see the server's log",
                5,
            ) from error

    async def restore(self, request: Request, parameters: RestoreQuery, memory: Reservation) -> RestoreResult:
        """Restore the photo in the body of `request`; raises `Problem` and `LimitError`."""
        options = self.options(parameters)
        watch = Stopwatch()
        data = await read_photo(request, self.settings.max_bytes, self.settings.upload_timeout, memory)
        watch.lap("upload")
        seconds = min(parameters.timeout or self.settings.timeout, self.settings.timeout)
        try:
            async with asyncio.timeout(seconds):
                return await self._restore(data, parameters, options, memory, watch, seconds)
        except TimeoutError:
            remedy = (
                "use fewer steps or /v1/jobs"
                if seconds == self.settings.timeout
                else "allow a longer timeout"
            )
            detail = f"the photo was not restored within {seconds:g} s: {remedy}"
            raise Problem(504, "timeout", detail) from None
        except ImageError as error:
            raise image_problem(error) from error

    def options(self, parameters: Parameters) -> ModelOptions:
        """The options for the model; raises `Problem` 422 for a model or steps that this server does not offer."""
        model = parameters.model or self.settings.default_model
        if model not in self.catalogue:
            raise Problem(
                422, "model", f"there is no model of that name: use one of {', '.join(self.catalogue)}"
            )
        steps = parameters.steps or self.settings.steps
        if steps > self.settings.most_steps:
            raise Problem(422, "parameter", f"steps: this server allows up to {self.settings.most_steps}")
        check_effect(parameters, self.catalogue)
        return ModelOptions(
            model=model,
            steps=steps,
            seed=parameters.seed,
            strength=parameters.strength,
            equalise=parameters.equalise,
            guard=parameters.guard == "on",
        )

    async def _restore(
        self,
        data: bytes,
        parameters: Parameters,
        options: ModelOptions,
        memory: Reservation,
        watch: Stopwatch,
        seconds: float,
    ) -> RestoreResult:
        decoding = partial(decode, data, self._limits, exif=parameters.exif, truncated=parameters.truncated)
        header, small = await self.in_thread(partial(_inspect, data, self._limits, decoding))
        work = work_units(header.height, header.width, options.steps)
        self._check_time(options.model, work, seconds)
        with self.admission.work(options.model, work):
            memory.add(header.height * header.width * BYTES_PER_PIXEL)
            image = await self.in_thread(decoding) if small is None else small
            if image.deep is not None:
                memory.add(2 * image.deep.nbytes)
            format = _result_format(image, parameters.format)
            watch.lap("decode")
            restored = await self._call_model(image, options)
            whole = watch.lap("hop")
        self._last_restored = time.perf_counter()
        self.admission.learn(options.model, work, restored.took)
        watch.seconds |= {
            "queue": restored.queued,
            "restore": restored.took,
            "hop": whole - restored.queued - restored.took,
        }
        image, result = await self.in_thread(partial(_encode, image, restored, format, parameters.quality))
        watch.lap("encode")
        return RestoreResult(
            data=result,
            format=format,
            options=options,
            sha256=self.catalogue[options.model].sha256,
            precision=restored.precision,
            tiles=restored.tiles or "whole",
            notes=image.notes,
            pixels=header.height * header.width,
            seconds=watch.seconds,
            restorer=self.restorer,
        )

    def _check_time(self, model: str, work: float, seconds: float) -> None:
        """Raise `Problem` or `LimitError` where the request would exceed its time."""
        takes, wait = self.admission.expected(model, work), self.admission.wait()
        if takes > seconds * (1.0 if self.admission.is_measured_near(model, work) else UNCERTAINTY):
            raise Problem(
                413,
                "too-slow",
                f"the photo would take about {takes:.0f} s, and a request may take {seconds:g} s: use fewer steps "
                "or send it to /v1/jobs",
            )
        if wait > 0 and wait + takes > seconds:
            raise LimitError("wait", min(wait, wait + takes - seconds))

    async def _call_model(self, image: Image, options: ModelOptions) -> Restored:
        restore = self._default_restore
        if options.model != self.settings.default_model or options.steps != self.settings.steps:
            restore = self._models.options(multiplexed_model_id=options.model_id).restore
        response = restore.remote(image.pixels, options)
        try:
            return await response
        except (RestoreFailedError, UserError) as error:
            raise Problem(500, "failed", f"{error.args[0]}".splitlines()[0][:300]) from error
        except RayActorError as error:
            # No Retry-After: if the process died because of this photo, so will the next one.
            detail = "the process that restored the photo has died, perhaps because of it"
            raise Problem(503, "died", detail) from error
        except (BackPressureError, DeploymentUnavailableError) as error:
            raise Problem(503, "busy-queue", "no model is free: send the request again", 1) from error
        except asyncio.CancelledError:
            # The client has gone, or its time is over: free the place in the model's queue.
            response.cancel()
            raise

    def in_thread(self, run: Callable[[], T]) -> Awaitable[T]:
        """Call `run` in a thread of the codecs, off the event loop that all requests share."""
        return asyncio.get_running_loop().run_in_executor(self._codecs, run)


def _inspect(data: bytes, limits: Limits, decoding: Callable[[], Image]) -> tuple[Header, Image | None]:
    """A photo's header, and a small photo itself.

    A large photo is decoded only once there is room for it; a small one takes less time than waking a thread
    again.
    """
    header = inspect(data, limits)
    return header, decoding() if header.height * header.width <= SMALL_PIXELS else None


def _result_format(image: Image, requested: str | None) -> str:
    """The format of the result; raises `Problem` 422 where the requested one cannot hold the photo."""
    format = format_to_write(image.format, requested.upper() if requested else None)
    try:
        check_fits(image, format)
    except MissingExtraError:
        raise
    except ImageError as error:
        raise Problem(422, "parameter", f"format: {error}") from error
    return format


def _encode(image: Image, restored: Restored, format: str, quality: int) -> tuple[Image, bytes]:
    """The photo with its restored pixels and all notes, and its file."""
    image = with_restored(image, restored.pixels, restored.tiles, restored.note)
    data = encode(image, format, quality)
    return replace(image, notes=(*image.notes, *lost_in(image, format))), data


class Stopwatch:
    """Measures the seconds of stages that follow one another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> float:
        """End a stage; returns its seconds."""
        now = time.perf_counter()
        self.seconds[stage], self._since = now - self._since, now
        return self.seconds[stage]
