"""Photos restored one by one in a process beside this one.

A photo that crashes a decoder or the model, takes all memory, or hangs, ends that process alone: the photo is
tried again in a new one, and given up after as many deaths as `attempts`. A command begins so, without Ray, whose
start takes four times as long; and a batch that has killed its process goes on so.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diffuir_core.errors import UserError
from diffuir_core.imaging import Pixels

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

Images = Sequence[Pixels]
RestorerFactory = Callable[[Path | None], RestoresPixels | Callable[[Images], Images]]
"""Makes a restorer, or a function of uint8 (H, W, 3) images, from a weights file; None for the shipped weights."""


def prepared(
    make: RestorerFactory | None, weights: FetchedWeights, options: RestoreOptions, target: str, **more: Any
) -> messages.Prepare:
    """The first message for a process that restores the photos of a collection; more: further fields of it.

    make: makes the restorer; None for the one that `options` describe. target: URI of the folder of the results.
    """
    fields = {"is_collection": True} | more
    return messages.Prepare(
        make=_pickled(make, options), weights=weights, options=options, target=target, **fields
    )


class LocalRestorer:
    """One model in a `WorkerProcess`, which is replaced when it dies; photos are restored one by one.

    process: a running process. report: as for `WorkerProcess.ask`.
    """

    def __init__(
        self,
        process: WorkerProcess,
        prepare: messages.Prepare,
        report: Callable[[messages.Passes | None], None] = lambda _: None,
    ) -> None:
        self._process = process
        self._prepare = prepare
        self._report = report
        self._attempts, self._timeout = prepare.options.attempts, prepare.options.timeout
        self._is_prepared = False
        self._seconds = 0.0
        self._photos = 0

    def load(self) -> messages.Loaded:
        """Load the model if it is not loaded; raises `UserError` where it can't be."""
        cause = ""
        for _ in range(MAX_FAILED_STARTS):
            try:
                loaded: messages.Loaded = self._ask(messages.LoadModel())
            except Died as died:
                cause = str(died)
                continue
            return loaded
        raise UserError(
            f"the process that was to load the model died {MAX_FAILED_STARTS} times ({cause}): "
            "free some memory, or see the system's log"
        )

    def restored(self, item: Item, deaths: int = 0, cause: str = "") -> FinishedPhoto:
        """Read, restore and write one photo; raises `UserError` where the model can't be loaded.

        deaths: processes that have died already while they had this photo alone, the last one of `cause`.
        """
        for attempt in range(deaths + 1, self._attempts + 1):
            try:
                answer = self._ask(messages.Restore((item,)))
            except Died as died:
                cause = str(died)
                if attempt < self._attempts:
                    self.load()  # so that it is not the model that the photo is given up for
                continue
            (finished,) = pickle.loads(answer.pickled)
            photo: Photo = finished.photo
            self._seconds += photo.seconds_read + photo.seconds_restore + photo.seconds_write
            self._photos += 1
            return FinishedPhoto(photo, attempt)
        reason = f"the process that was to restore it died {self._attempts} times ({cause})"
        return FinishedPhoto(Photo(item=item, reason=reason), self._attempts)

    def _ask(self, request: object) -> Any:
        """The answer to a request; raises `Died`, with a new process in place, and `UserError` for `Refused`."""
        try:
            if not self._is_prepared:
                self._process.send(self._prepare)
                self._is_prepared = True
            answer = self._process.ask(request, self._report, self._timeout)
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


def check_loads(prepare: messages.Prepare) -> None:
    """Raise `UserError` where a restorer can't be loaded, which is tried in a process of its own."""
    with WorkerProcess() as process:
        LocalRestorer(process, prepare).load()


def _pickled(make: RestorerFactory | None, options: RestoreOptions) -> bytes:
    if make is None:
        return pickle.dumps(partial(options.make_restorer, code=os.getcwd()))
    from ray import cloudpickle  # which also takes classes of a program's main module

    return bytes(cloudpickle.dumps(make))
