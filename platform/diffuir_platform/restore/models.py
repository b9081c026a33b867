"""The actors that hold a model each: as many as there is room for, each with a few batches queued."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray

from diffuir_core.errors import UserError

from ..inference import FetchedWeights
from ..runtime import Resources
from .local import RestorerFactory
from .packed import restore

QUEUE_DEPTH = 4
"""Batches in flight for each model: one being read, one restored, one written and one on its way, so that it never
waits."""
ACTOR_CONCURRENCY = 2
"""Batches inside a model's process: while one is restored, another is unpickled, or pickled and passed on."""
CPUS_OVER_HALF = 0.001
"""CPUs that a model asks for beyond half of a node, so that models never fill one. Where more models are asked for
than there are nodes, or nodes die, no CPU would be left for reading and writing, and the run would wait for itself
for ever."""
RESIZE_SECONDS = 5.0
"""Time between two looks at what the cluster has room for, seconds."""
RESTART_SECONDS = 1.0
"""Delay before a model that died is replaced, seconds."""
MAX_FAILED_STARTS = 3
"""Failed starts in a row after which the run gives up."""


class ModelProcess:
    """A Ray actor with one restorer: ACTOR_CONCURRENCY threads, and one more in which the restorer runs."""

    def __init__(self, make: RestorerFactory, weights: FetchedWeights, threads: int | None) -> None:
        import torch

        if threads is not None:
            # Ray allows a process as many threads as the CPUs it asked for, and on one machine those are logical
            # ones.
            torch.set_num_threads(threads)
        self._thread = ThreadPoolExecutor(1)
        with weights.as_file() as file:
            self._restorer = self._thread.submit(make, file).result()

    def ready(self) -> str:
        """Return the precision, once the model is loaded."""
        return self._restorer.precision

    def restore(self, photos: bytes) -> bytes:
        """Restore pickled photos; returns them pickled."""
        return restore(photos, self._restorer, self._thread)


@dataclass(eq=False)
class ModelHandle:
    """A model's actor as the driver sees it."""

    actor: Any
    starting: Any
    """Reference to the result of `ready`; None once the actor is ready."""
    batches: set[int] = field(default_factory=set)
    """Numbers of its batches in flight."""
    isolated: bool = False
    """Whether its batch in flight must stay its only one."""


class ModelPool:
    """Keeps as many model actors running as there is room for; a context manager that ends them.

    make: called in each actor with the weights file, or None. limit: how many actors there may be, also more than
    the cluster has room for now, which is what tells a cluster's own autoscaler to grow; None for what there is
    room for, checked again as nodes come and go. gpu_share: share of a GPU for each actor, where there are GPUs.
    """

    def __init__(
        self,
        make: RestorerFactory,
        weights: FetchedWeights,
        room: Callable[[], Resources],
        limit: int | None = None,
        gpu_share: float = 1.0,
    ) -> None:
        self._room = room
        self._limit = limit
        self._gpu_share = gpu_share
        self._arguments = (make, ray.put(weights))
        self._models: list[ModelHandle] = []
        self._failed_starts = 0
        self._next_resize = 0.0

    def __enter__(self) -> ModelPool:
        return self

    def __exit__(self, *_: object) -> None:
        for model in self._models:
            with suppress(ray.exceptions.RayError):
                ray.kill(model.actor)

    def __len__(self) -> int:
        return len(self._models)

    def maintain(self) -> None:
        """Start the actors that there is room for, and note which have become ready; to be called often.

        Raises `UserError` where the model can't be loaded.
        """
        now = time.monotonic()
        if now >= self._next_resize:
            self._next_resize = now + RESIZE_SECONDS
            resources = self._room()
            share = self._gpu_share if resources.model_gpus else 1.0
            for _ in range((self._limit or int(resources.models / share)) - len(self._models)):
                self._models.append(self._start(resources))
        starting = {model.starting: model for model in self._models if model.starting is not None}
        for done in ray.wait(list(starting), num_returns=len(starting), timeout=0)[0] if starting else ():
            self._note_started(starting[done])

    def _start(self, resources: Resources) -> ModelHandle:
        actor = (
            ray.remote(ModelProcess)
            .options(
                num_cpus=cpus_per_model(resources),
                num_gpus=resources.model_gpus * self._gpu_share,
                # Ray would restart a process that a photo has killed, and give it the same photo.
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=ACTOR_CONCURRENCY,
            )
            .remote(*self._arguments, resources.model_threads)
        )
        return ModelHandle(actor, actor.ready.remote())

    def _note_started(self, model: ModelHandle) -> None:
        try:
            ray.get(model.starting)
        except ray.exceptions.RayError as error:
            self.discard(model)
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise UserError(
                    f"the model could not be loaded where it was to run: {_last_line(error)}"
                ) from error
            return
        model.starting = None
        self._failed_starts = 0

    def discard(self, model: ModelHandle) -> None:
        """Drop a model whose process is gone; another takes its place after RESTART_SECONDS."""
        if model in self._models:
            self._models.remove(model)
            with suppress(ray.exceptions.RayError):
                ray.kill(model.actor)
        self._next_resize = min(self._next_resize, time.monotonic() + RESTART_SECONDS)

    def choose(self, isolated: bool) -> ModelHandle | None:
        """Return the ready model with the fewest batches in flight; None where all queues are full.

        isolated: only a model with nothing in flight, which gets no other batch until this one is done.
        """
        depth = 1 if isolated else QUEUE_DEPTH
        free = [
            model
            for model in self._models
            if model.starting is None and not model.isolated and len(model.batches) < depth
        ]
        return min(free, key=lambda model: len(model.batches), default=None)

    def stop_idle(self) -> None:
        """End the actors with nothing in flight: there is no work left for them, and others may use the room."""
        for model in [model for model in self._models if not model.batches]:
            self.discard(model)
        self._next_resize = float("inf")


def cpus_per_model(resources: Resources) -> float:
    """CPUs that a model asks Ray for; each node that models land on keeps a CPU for reading and writing."""
    return resources.model_cpus + CPUS_OVER_HALF if resources.model_cpus else 0


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
