"""Progress of a run on the driver's terminal: typed messages from other processes, a line for each.

The training workers and Ray Train's controller are other processes, maybe on other nodes; a Ray queue beside the
driver carries their messages to the thread that prints them.
"""

from __future__ import annotations

import logging
import math
import pickle
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import UserCallback
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from diffuir_core import UserError

from ..storage import LockClaim
from ..text import counted

DIVERGED = "diverged"
"""Name of the metric of a report by which a worker says that its weights are not finite."""
SEND_TIMEOUT = 10.0
"""Longest wait until the queue has taken a message, seconds."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loading:
    """The workers are there, and load their first batch."""

    workers: int
    """Number of training processes."""


@dataclass(frozen=True)
class Resumed:
    """The workers have loaded a checkpoint."""

    step: int
    """Optimiser steps that the checkpoint holds."""


@dataclass(frozen=True)
class Compiling:
    """torch.compile makes the network's kernels during the first steps."""


@dataclass(frozen=True)
class Replaced:
    """Photos that can't be used, each replaced by another one of its task."""

    step: int
    """Optimiser step at which they were noticed; printed above the first `Point` that is not before it."""
    photos: tuple[str, ...]
    """Key of each photo, and why it can't be used."""


@dataclass(frozen=True)
class Point:
    """Metrics of one report to Ray Train."""

    step: int
    """Optimiser steps done."""
    loss: float
    """Mean loss over the last `log_every` steps."""
    images_per_second: float
    """Throughput of all workers."""
    data_wait_share: float
    """Share of the time that the first worker waited for data, 0 to 1."""


Message = Loading | Resumed | Compiling | Replaced | Point


@dataclass(frozen=True)
class ProgressChannel:
    """Sending end of the messages to the driver's terminal; Ray can pickle it into other processes."""

    queue: Queue

    def send(self, message: Message | None) -> None:
        """Hand over a message, None for the end, and wait until the queue has it: senders keep their order.

        Raises nothing where the queue is gone: training does not depend on a terminal.
        """
        # As bytes: the queue's process would load torch to make the message again.
        try:
            ray.get(self.queue.actor.put_nowait.remote(pickle.dumps(message)), timeout=SEND_TIMEOUT)
        except RayError as error:
            _log.warning("the driver's terminal may not show %s (%s)", message, error)


class ReportMonitor(UserCallback):  # type: ignore[misc]
    """Checks every report in Ray Train's controller, and sends its point to the driver's terminal.

    A report ends the run where another job holds the lock of the run's folder, and where loss, gradient or weights
    are not finite.
    """

    def __init__(self, channel: ProgressChannel, claim: LockClaim) -> None:
        self.channel = channel
        self.claim = claim

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Take the metrics of every worker's report, the first worker's first; what is raised ends the run."""
        self.claim.check()
        first = metrics[0]
        if "loss" in first:
            self.channel.send(
                Point(first["step"], first["loss"], first["images_per_second"], first["data_wait_share"])
            )
        if has_diverged(first):
            raise UserError(
                f"loss, gradient or weights were no finite numbers at step {first['step']:,}: take another name "
                "and a lower learning_rate or clip_norm; the checkpoints from before are kept"
            )


def has_diverged(metrics: Mapping[str, float]) -> bool:
    """Whether loss, gradient or weights are not finite, after which the weights are worth nothing."""
    are_finite = all(math.isfinite(metrics.get(name, 0.0)) for name in ("loss", "gradient_norm"))
    return not are_finite or DIVERGED in metrics


@contextmanager
def printed_progress(steps: int) -> Iterator[ProgressChannel]:
    """Channel whose messages are printed until the block ends, by then all of them; steps: of the whole run."""
    driver = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    channel = ProgressChannel(Queue(actor_options={"num_cpus": 0, "scheduling_strategy": driver}))
    thread = threading.Thread(target=_print_messages, args=(channel.queue, steps), daemon=True)
    thread.start()
    try:
        yield channel
    finally:
        channel.send(None)
        thread.join(SEND_TIMEOUT)
        channel.queue.shutdown(force=True)


def _print_messages(queue: Queue, steps: int) -> None:
    printer = _Printer(steps)
    try:
        while (message := pickle.loads(queue.get())) is not None:
            for line in printer.lines(message):
                print(line, flush=True)
    except RayError as error:
        _log.warning("no more progress is shown (%s): the run itself goes on", error)


class _Printer:
    """Turns messages into lines of the terminal."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._first: tuple[float, int] | None = None
        """When the first point came, by `time.monotonic`, and its step."""
        self._replaced: dict[str, int] = {}
        """Replaced photos that were not printed yet, and the step of each."""

    def lines(self, message: Message) -> Iterator[str]:
        match message:
            case Resumed(step):
                self._replaced.clear()  # of steps after the checkpoint, which the workers repeat
                yield f"going on from step {step:,}"
            case Loading(workers):
                yield f"{counted(workers, 'worker')} started: the first photos are loaded"
            case Compiling():
                yield "the network is compiled: its first steps take minutes"
            case Replaced(step, photos):
                self._replaced |= dict.fromkeys(photos, step)
            case Point(step):
                # `Replaced` does not wait, as a report does, for the controller to take the report before it.
                for photo in [photo for photo, at in self._replaced.items() if at <= step]:
                    del self._replaced[photo]
                    yield f"another image is taken in place of one that can't be used: {photo}"
                self._first = self._first or (time.monotonic(), step)
                yield progress_line(message, self._steps, *self._first)


def progress_line(point: Point, steps: int, began: float, first_step: int) -> str:
    """One point as a line, with the time left by the pace since `first_step` was reached at `began`."""
    step = point.step
    pace = (time.monotonic() - began) / (step - first_step) if step > first_step else 0.0
    left = f"  {pace * (steps - step) / 60:.0f} min left" if pace else ""
    return (
        f"step {step:,}/{steps:,}  loss {point.loss:.4f}  {point.images_per_second:.1f} images/s  "
        f"{point.data_wait_share:.0%} waiting for data{left}"
    )
