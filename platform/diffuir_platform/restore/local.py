"""Photos restored one by one in a process beside the command's own, without Ray.

Its start takes a quarter of Ray's, and a photo that crashes a decoder or the model ends that process alone: the
photo is tried again in a new one, and given up after as many crashes as `attempts`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from diffuir_core.errors import UserError

from ..inference import FetchedWeights, RestoresPixels
from . import messages
from .inputs import Item
from .settings import RestoreOptions
from .stages import CONTINUES, FinishedPhoto, Photo
from .worker_process import Died, WorkerProcess

MAX_FAILED_STARTS = 3
"""Processes that may end while they load the model before the run gives up."""
SECONDS_WITHOUT_RAY = 60.0
"""Work left, by the rate so far and for each GPU, above which Ray pays: it takes seconds to start."""
SECONDS_OF_RATE = 2.0
"""Shortest time from which the rate is known, seconds."""

RestorerFactory = Callable[[Path | None], RestoresPixels]
"""Makes a restorer from a weights file; None for the shipped weights."""


class LocalRestorer:
    """One model in a `WorkerProcess`, which is replaced when it dies.

    process: a running process. make: makes the restorer; None for the one that `options` describe. target: URI of
    the folder of the results. report: as for `WorkerProcess.ask`, for a photo that is restored by itself; None for
    those of a collection, which has a ledger.
    """

    def __init__(
        self,
        process: WorkerProcess,
        make: RestorerFactory | None,
        weights: FetchedWeights,
        options: RestoreOptions,
        target: str,
        report: Callable[[messages.Passes | None], None] | None = None,
    ) -> None:
        self._process = process
        self._prepare = messages.Prepare(
            make=_pickled(make, options),
            weights=weights,
            options=options,
            target=target,
            is_collection=report is None,
        )
        self._report = report or (lambda _: None)
        self._attempts = options.attempts
        self._is_prepared = False
        self._seconds = 0.0
        self._photos = 0

    def load(self) -> messages.Loaded:
        """Load the model if it is not loaded; raises `UserError` where it can't be."""
        for _ in range(MAX_FAILED_STARTS):
            try:
                loaded: messages.Loaded = self._ask(messages.LoadModel())
            except Died:
                continue
            return loaded
        raise UserError(
            f"the process that was to load the model died {MAX_FAILED_STARTS} times: "
            "free some memory, or see the system's log"
        )

    def restored(self, item: Item) -> FinishedPhoto:
        """Read, restore and write one photo; raises `UserError` where the model can't be loaded."""
        for attempt in range(1, self._attempts + 1):
            try:
                photo: Photo = self._ask(item)
            except Died:
                if attempt < self._attempts:
                    self.load()  # so that it is not the model that the photo is given up for
                continue
            self._seconds += photo.seconds_read + photo.seconds_restore + photo.seconds_write
            self._photos += 1
            return FinishedPhoto(photo, attempt)
        reason = f"the process that was to restore it died {self._attempts} times (killed or crashed)"
        return FinishedPhoto(Photo(item=item, reason=reason), self._attempts)

    def _ask(self, request: object) -> Any:
        """The answer to a request; raises `Died`, with a new process in place, and `UserError` for `Refused`."""
        try:
            if not self._is_prepared:
                self._process.send(self._prepare)
                self._is_prepared = True
            answer = self._process.ask(request, self._report)
        except Died:
            self._process.start_anew()
            self._is_prepared = False
            raise
        if isinstance(answer, messages.Refused):
            raise UserError(answer.reason)
        return answer

    def needs_more_than(self, seconds: float, photos: int) -> bool:
        """Whether `photos` more photos would take longer, for each GPU of this machine, by the rate so far."""
        if self._seconds < SECONDS_OF_RATE:
            return False
        gpus = max(1, self.load().gpus)
        return photos * self._seconds / self._photos > seconds / gpus

    def finished_photos(
        self, items: Iterator[Item | None], ray_pays: Callable[[], bool]
    ) -> Iterator[FinishedPhoto]:
        """Yield a finished photo for each of `items` until there are no more, or until `ray_pays` after one.

        Raises `UserError` where the model can't be loaded, or where the store as a whole does not answer.
        """
        for item in items:
            if item is None:
                continue
            finished = self.restored(item)
            if finished.photo.unreachable:
                raise UserError(f"{finished.photo.reason}; {CONTINUES}")
            yield finished
            if ray_pays():
                return


def _pickled(make: RestorerFactory | None, options: RestoreOptions) -> bytes:
    if make is None:
        return pickle.dumps(options.restorer)
    from ray import cloudpickle  # which also takes classes of a program's main module

    return bytes(cloudpickle.dumps(make))
