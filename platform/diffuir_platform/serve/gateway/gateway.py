"""The process between clients and models: takes photos in, decodes, has them restored, encodes.

A Ray Serve deployment, of which several may share the work. It holds no model, so that what clients send is never
near one, and models never wait for a decoder.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from diffuir_core import UserError
from diffuir_core.imaging import Header, Image, ImageError, Limits, check_fits, decode, encode, inspect

from ...inference import with_restored
from ..catalogue import Catalogue
from ..model import MODEL, Options, Restored, RestoreFailedError, units
from ..model.scaling import running_processes
from ..problems import Problem, of_image
from ..schemas import Parameters, RestoreQuery
from ..settings import ServeSettings
from .access import LOOPBACK, Access, keys_of_environment
from .admission import WAIT, Admission, Holding, Refused
from .jobs import Jobs
from .metrics import Metrics
from .uploads import read_photo

logger = logging.getLogger("ray.serve")

CODEC_THREADS = 4
SECONDS_BETWEEN_LOOKS = 1.0
"""At how many models there are."""
PROBE_SECONDS = 10.0
SMALL_PIXELS = 2**18
TOO_SLOW = 3.0
"""Times what a request may take that a photo is thought to, where only far smaller ones were restored yet. Until
then it is tried: a 413 is final."""
HELD_FOR_A_PIXEL = 6
"""Bytes of a photo on its way: as it was and as it is. Of one of 16 bits they are beside its own samples."""

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """A restored photo's file and how it came about; seconds: of each stage."""

    data: bytes
    format: str
    options: Options
    sha256: str
    precision: str
    tiles: str
    notes: tuple[str, ...]
    pixels: int
    seconds: dict[str, float]


class Gateway:
    """Restores what requests hold, with the models behind `models`."""

    def __init__(self, settings: ServeSettings, catalogue: Catalogue, models: Any) -> None:
        self.settings = settings
        self.catalogue = catalogue
        keys = keys_of_environment(settings.require_key)
        self.access = Access(keys, settings.requests_per_minute)
        self.is_local = not keys and settings.host in LOOPBACK
        self.admission = Admission(settings.max_open, settings.held_bytes, settings.max_wait)
        self.metrics = Metrics()
        self.jobs = Jobs(settings, catalogue)
        self.is_ready = False
        self._probing: asyncio.Future[float] | None = None
        self._last_answer = 0.0
        self._models = models
        # Kept, since Serve makes a new handle wherever one is asked for a method.
        self._restore_by_default = models.restore
        self._codecs = ThreadPoolExecutor(CODEC_THREADS, thread_name_prefix="diffuir-codec")
        self._limits = Limits(
            max_bytes=settings.max_bytes, max_pixels=settings.max_pixels, max_side=settings.max_side
        )

    async def watch(self) -> None:
        """Keep up with how many models there are, until it is cancelled."""
        while True:
            try:
                await self._look()
            except Exception:  # what was seen last stands until Serve's controller answers again
                logger.warning("it could not be seen how many models there are", exc_info=True)
            self.metrics.stands(self.admission.open, self.admission.queued, self.admission.wait())
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    async def _look(self) -> None:
        here = serve.get_replica_context()
        running = await asyncio.to_thread(running_processes, here.app_name)
        self.admission.replicas = running[MODEL] / max(1, running[here.deployment])
        self.is_ready = running[MODEL] > 0 or self.settings.min_replicas == 0
        if running[MODEL]:
            await self._learn_pace()

    async def _learn_pace(self) -> None:
        """Of all models, from what the default one took when it was warmed up, until requests tell more."""
        default = self.settings.default_model
        if self.admission.knows(default):
            return
        work, seconds = await asyncio.wait_for(self._models.warm_up.remote(), PROBE_SECONDS)
        for name, entry in self.catalogue.items():
            self.admission.learn(name, work, seconds * entry.cost / self.catalogue[default].cost)

    async def probe(self) -> float:
        """Have a tiny image restored, and return the seconds that it took; raises `Problem` 503.

        Whoever asks while one is under way gets its answer: asking often costs the model nothing more.
        """
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(self._probe())
        return await asyncio.shield(self._probing)

    async def _probe(self) -> float:
        began = time.perf_counter()
        asked = self._models.probe.remote()
        try:
            return await asyncio.wait_for(asked, PROBE_SECONDS)
        except (TimeoutError, RayError, BackPressureError, DeploymentUnavailableError) as error:
            asked.cancel()
            if self._last_answer > began:  # it only waits behind photos that are being restored
                return time.perf_counter() - began
            raise Problem(
                503, "unhealthy", f"no model restored a tiny image within {PROBE_SECONDS:g} s", 5
            ) from error

    async def restore(self, request: Request, parameters: RestoreQuery, holding: Holding) -> Answer:
        """The photo in `request`, restored; raises `Problem` and `Refused`."""
        options = self.options(parameters)
        watch = Stopwatch()
        data = await read_photo(request, self.settings.max_bytes, self.settings.upload_timeout, holding)
        watch.lap("upload")
        seconds = min(parameters.timeout or self.settings.timeout, self.settings.timeout)
        try:
            async with asyncio.timeout(seconds):
                return await self._restore(data, parameters, options, holding, watch, seconds)
        except TimeoutError:
            ways = ": give it fewer steps or send it to /v1/jobs" if seconds == self.settings.timeout else ""
            raise Problem(504, "timeout", f"it was not done after {seconds:g} s{ways}") from None
        except ImageError as error:
            raise of_image(error) from error

    def options(self, parameters: Parameters) -> Options:
        """What a model is told; raises `Problem` 422 for what this server does not offer."""
        model = parameters.model or self.settings.default_model
        if model not in self.catalogue:
            raise Problem(422, "model", f"there is no model of that name: choose {', '.join(self.catalogue)}")
        steps = parameters.steps or self.settings.steps
        if steps > self.settings.most_steps:
            raise Problem(422, "parameter", f"steps: this server takes up to {self.settings.most_steps}")
        return Options(model, steps, parameters.seed, parameters.strength, parameters.equalise)

    async def _restore(
        self,
        data: bytes,
        parameters: Parameters,
        options: Options,
        holding: Holding,
        watch: Stopwatch,
        seconds: float,
    ) -> Answer:
        decoding = partial(decode, data, self._limits, exif=parameters.exif, truncated=parameters.truncated)
        header, small = await self.in_thread(partial(_looked_at, data, self._limits, decoding))
        work = units(header.height, header.width, options.steps)
        self._check_time(options.model, work, seconds)
        with self.admission.work(options.model, work):
            holding.add(header.height * header.width * HELD_FOR_A_PIXEL)
            image = await self.in_thread(decoding) if small is None else small
            if image.deep is not None:
                holding.add(2 * image.deep.nbytes)
            format = _fitting(image, parameters.format)
            watch.lap("decode")
            restored = await self._restored(image, options)
            whole = watch.lap("hop")
        self._last_answer = time.perf_counter()
        self.admission.learn(options.model, work, restored.took)
        watch.seconds |= {
            "queue": restored.queued,
            "restore": restored.took,
            "hop": whole - restored.queued - restored.took,
        }
        image, result = await self.in_thread(partial(_encoded, image, restored, format, parameters.quality))
        watch.lap("encode")
        return Answer(
            data=result,
            format=format,
            options=options,
            sha256=self.catalogue[options.model].sha256,
            precision=restored.precision,
            tiles=restored.tiles or "whole",
            notes=image.notes,
            pixels=header.height * header.width,
            seconds=watch.seconds,
        )

    def _check_time(self, model: str, work: float, seconds: float) -> None:
        takes, wait = self.admission.expected(model, work), self.admission.wait()
        if takes > seconds * (1.0 if self.admission.has_seen(model, work) else TOO_SLOW):
            raise Problem(
                413,
                "too-slow",
                f"it would take about {takes:.0f} s, and a request may take {seconds:g} s: give it fewer steps or "
                "send it to /v1/jobs",
            )
        if wait > 0 and wait + takes > seconds:
            raise Refused(WAIT, min(wait, wait + takes - seconds))

    async def _restored(self, image: Image, options: Options) -> Restored:
        ask = self._restore_by_default
        if options.model != self.settings.default_model or options.steps != self.settings.steps:
            ask = self._models.options(multiplexed_model_id=options.model_id).restore
        asked = ask.remote(image.pixels, options)
        try:
            return await asked
        except (RestoreFailedError, UserError) as error:
            raise Problem(500, "failed", f"{error.args[0]}".splitlines()[0][:300]) from error
        except RayActorError as error:
            # Not to be sent again without thought: if it died of this photo, so will the next one.
            detail = "the process that restored it has died, perhaps of this photo"
            raise Problem(503, "died", detail) from error
        except (BackPressureError, DeploymentUnavailableError) as error:
            raise Problem(503, "busy-queue", "no model is free: send it again", 1) from error
        except asyncio.CancelledError:
            # The client has gone, or it took too long: its place is another's.
            asked.cancel()
            raise

    def in_thread(self, run: Callable[[], T]) -> Awaitable[T]:
        """What `run` returns, called off the loop that all requests share."""
        return asyncio.get_running_loop().run_in_executor(self._codecs, run)


def _looked_at(data: bytes, limits: Limits, decoding: Callable[[], Image]) -> tuple[Header, Image | None]:
    """What a photo's header says, and a small one's pixels.

    A large one is decoded only once there is room for it; a small one sooner than a thread is woken again.
    """
    header = inspect(data, limits)
    return header, decoding() if header.height * header.width <= SMALL_PIXELS else None


def _fitting(image: Image, asked: str | None) -> str:
    """The format of the result; raises `Problem` 422 where what is asked for cannot hold the photo."""
    format = (asked or image.format).upper()
    try:
        check_fits(image, format)
    except ImageError as error:
        raise Problem(422, "parameter", f"format: {error}") from error
    return format


def _encoded(image: Image, restored: Restored, format: str, quality: int) -> tuple[Image, bytes]:
    """The photo with its restored pixels, and its file."""
    image = with_restored(image, restored.pixels, restored.tiles)
    return image, encode(image, format, quality)


class Stopwatch:
    """The seconds of each stage, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> float:
        """The seconds since the last stage ended are this one's."""
        now = time.perf_counter()
        self.seconds[stage], self._since = now - self._since, now
        return self.seconds[stage]
