"""The choice of the place where a collection's photos are restored: a process beside this one, or Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING

from ..inference import FetchedWeights
from ..runtime import RayDidNotStart, cluster_address, cluster_resources, private, ray_session
from .inputs import Item
from .ledger import LedgerRow
from .local import LocalRestorer, RestorerFactory, check_loads, prepared
from .metrics import Metrics
from .settings import RestoreOptions
from .stages import FinishedPhoto
from .worker_process import WorkerProcess

if TYPE_CHECKING:
    from .pipeline import Pipeline


def starts_here(options: RestoreOptions) -> bool:
    """Whether the first photos are restored in a process beside this one, and not by Ray from the beginning."""
    return (
        cluster_address(options.address) is None
        and (options.models or 1) == 1
        and not ("ray" in sys.modules and sys.modules["ray"].is_initialized())
    )


class Dispatch:
    """Sends the photos of a collection through the stages: here while little is left to do, and else through Ray.

    target: URI of the folder of the results. make: makes a restorer; None for the one that `options` describe.
    process: the process beside this one; None to go to Ray at once. seconds: work left, for each GPU, above which
    Ray is started.
    """

    def __init__(
        self,
        target: str,
        options: RestoreOptions,
        weights: FetchedWeights,
        make: RestorerFactory | None,
        process: WorkerProcess | None,
        seconds: float,
    ) -> None:
        self._target = target
        self._options = options
        self._weights = weights
        self._make = make
        self._process = process
        self._seconds = seconds
        self._here: LocalRestorer | None = None
        self._metrics: Metrics | None = None
        self.remarks: list[str] = []
        """Remarks on where the photos were restored, for a person."""
        self._pipeline: Pipeline | None = None

    def check(self) -> None:
        """Raise `UserError` where the model can't be loaded, by the process here or one for that alone."""
        if self._process is not None:
            self._restorer_here(self._process).load()
        else:
            check_loads(prepared(self._make, self._weights, self._options, self._target))

    def keep_precision(self, precision: str | None) -> None:
        """Go on in the precision of the results so far (None: there are none), unless one is asked for."""
        if precision is not None and self._options.precision == "auto":
            self._options = self._options.model_copy(update={"precision": precision})
            self._here = None

    def finished_photos(
        self, items: Iterator[Item | None], left: Callable[[], int]
    ) -> Iterator[FinishedPhoto]:
        """Yield a finished photo for each of `items`, in the order in which they finish.

        items: None where the next item is not known yet. left: returns the number of photos that are known and not
        finished. Raises `UserError` where the model can't be loaded, or where the store does not answer.
        """
        if self._process is not None:
            local = self._restorer_here(self._process)
            yield from local.finished_photos(items, lambda: local.needs_more_than(self._seconds, left()))
            first = next((item for item in items if item is not None), None)
            if first is None:
                return
            items = chain((first,), items)
            self.keep_precision(local.load().precision)
            self._process.end()
            self._here = None
        with ExitStack() as stack:
            address, device = cluster_address(self._options.address), self._options.device
            try:
                resources = stack.enter_context(ray_session(address, device, data=True))
            except RayDidNotStart as error:
                self.remarks.append(f"{error}, so the photos were restored in one process without it")
                local = self._restorer_here(stack.enter_context(WorkerProcess()))
                yield from local.finished_photos(items, lambda: False)
                return
            from .pipeline import Pipeline

            self._metrics = Metrics()
            room = (lambda: resources) if address is None else (lambda: cluster_resources(device))
            prepare = prepared(
                self._make, self._weights, self._options, self._target, threads=resources.model_threads
            )
            stack.enter_context(private.native_messages_muted())
            self._pipeline = Pipeline(prepare, room, is_local=address is None)
            yield from self._pipeline.finished_photos(items)
            self._metrics.record()

    @property
    def statistics(self) -> str:
        """Ray Data's statistics of a run that has ended; empty without Ray."""
        return self._pipeline.statistics if self._pipeline is not None else ""

    def at_work(self) -> str:
        """The number of models at work in Ray, for a person; empty without it."""
        return self._pipeline.at_work if self._pipeline is not None else ""

    def count(self, row: LedgerRow) -> None:
        """Count a finished photo for Prometheus, where Ray runs."""
        if self._metrics is not None:
            self._metrics.count(row)

    def _restorer_here(self, process: WorkerProcess) -> LocalRestorer:
        if self._here is None:
            self._here = LocalRestorer(
                process, prepared(self._make, self._weights, self._options, self._target)
            )
        return self._here
