"""The processes that hold a model each: as many as there is room for, each with a few parcels at hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from diffuir_core.errors import UserError

from ..inference import FetchedWeights, RestoresPixels
from ..runtime import Resources
from .packed import restore

Make = Callable[[Path | None], RestoresPixels]
"""Makes a restorer of a weights file, or of the weights that ship."""

AT_HAND = 4
"""Parcels of one model: one being read, one restored, one written and one on its way, so that it never waits."""
AT_ONCE = 2
"""Parcels inside a model's process: while one is restored, another is unpacked, or packed and handed on."""
OVER_HALF = 0.001
"""CPUs that a model takes besides its half of a node, so that models never fill one. Where more are asked for than
there are nodes, or nodes die, none would be left for reading and writing, and nothing would ever move again."""
SECONDS_BETWEEN_LOOKS = 5.0
"""At what the cluster has room for."""
SECONDS_AFTER_A_DEATH = 1.0
MOST_FAILED_STARTS = 3
"""In a row, after which no more is tried."""


class ModelProcess:
    """One restorer; an actor of as many threads as are `AT_ONCE`, and one for all that the restorer does."""

    def __init__(self, make: Make, weights: FetchedWeights, threads: int | None) -> None:
        import torch

        if threads is not None:
            # Ray allows a process as many threads as the CPUs it asked for, and locally those are logical ones.
            torch.set_num_threads(threads)
        self._model = ThreadPoolExecutor(1)
        with weights.as_file() as file:
            self._restorer = self._model.submit(make, file).result()

    def ready(self) -> str:
        """The precision, once the model is there."""
        return self._restorer.precision

    def restore(self, photos: bytes) -> bytes:
        """Restored photos, pickled as they came."""
        return restore(photos, self._restorer, self._model)


@dataclass(eq=False)
class Model:
    """One of the processes, as the driver sees it."""

    actor: Any
    starting: Any
    """What `ready` will have returned; None once it has."""
    parcels: set[int] = field(default_factory=set)
    """Numbers of the parcels that it has at hand."""
    alone: bool = False
    """Whether it has one that must be alone."""


class Models:
    """Keeps as many model processes as there is room for; a context manager that ends them.

    make: called in each with the weights' file, or None. most: how many there may be, also more than the cluster
    has room for now, which is what tells a cluster's own autoscaler to grow; None for what there is room for,
    looked at again as nodes come and go. gpu_share: of a GPU for each, where there are GPUs.
    """

    def __init__(
        self,
        make: Make,
        weights: FetchedWeights,
        room: Callable[[], Resources],
        most: int | None = None,
        gpu_share: float = 1.0,
    ) -> None:
        self._room = room
        self._most = most
        self._gpu_share = gpu_share
        self._arguments = (make, ray.put(weights))
        self._all: list[Model] = []
        self._failed_starts = 0
        self._look_again = 0.0

    def __enter__(self) -> Models:
        return self

    def __exit__(self, *_: object) -> None:
        for model in self._all:
            with suppress(ray.exceptions.RayError):
                ray.kill(model.actor)

    def __len__(self) -> int:
        return len(self._all)

    def keep_up(self) -> None:
        """Start what there is room for, and see which have become ready; call it often.

        Raises `UserError` where the model cannot be loaded.
        """
        now = time.monotonic()
        if now >= self._look_again:
            self._look_again = now + SECONDS_BETWEEN_LOOKS
            resources = self._room()
            share = self._gpu_share if resources.model_gpus else 1.0
            for _ in range((self._most or int(resources.models / share)) - len(self._all)):
                self._all.append(self._start(resources))
        starting = {model.starting: model for model in self._all if model.starting is not None}
        for done in ray.wait(list(starting), num_returns=len(starting), timeout=0)[0] if starting else ():
            self._started(starting[done])

    def _start(self, resources: Resources) -> Model:
        actor = (
            ray.remote(ModelProcess)
            .options(
                num_cpus=cpus_of_a_model(resources),
                num_gpus=resources.model_gpus * self._gpu_share,
                # Ray would bring a process that dies of a photo back, with the same photo.
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=AT_ONCE,
            )
            .remote(*self._arguments, resources.model_threads)
        )
        return Model(actor, actor.ready.remote())

    def _started(self, model: Model) -> None:
        try:
            ray.get(model.starting)
        except ray.exceptions.RayError as error:
            self.lost(model)
            self._failed_starts += 1
            if self._failed_starts >= MOST_FAILED_STARTS:
                raise UserError(
                    f"the model could not be loaded where it was to run: {_last_line(error)}"
                ) from error
            return
        model.starting = None
        self._failed_starts = 0

    def lost(self, model: Model) -> None:
        """The process of `model` is gone; another takes its place before long."""
        if model in self._all:
            self._all.remove(model)
            with suppress(ray.exceptions.RayError):
                ray.kill(model.actor)
        self._look_again = min(self._look_again, time.monotonic() + SECONDS_AFTER_A_DEATH)

    def for_parcel(self, alone: bool) -> Model | None:
        """The model that has the fewest parcels at hand, or none where all have enough.

        alone: only one that has none, and that gets no other until it is done.
        """
        limit = 1 if alone else AT_HAND
        free = [
            model
            for model in self._all
            if model.starting is None and not model.alone and len(model.parcels) < limit
        ]
        return min(free, key=lambda model: len(model.parcels), default=None)

    def release_idle(self) -> None:
        """End those that have nothing at hand: there is nothing left for them, and others may use the room."""
        for model in [model for model in self._all if not model.parcels]:
            self.lost(model)
        self._look_again = float("inf")


def cpus_of_a_model(resources: Resources) -> float:
    """What each asks Ray for; whatever nodes they land on, each of those has a CPU left."""
    return resources.model_cpus + OVER_HALF if resources.model_cpus else 0


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
