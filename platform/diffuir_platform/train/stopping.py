"""A request that a run stops early: by Ctrl-C, by SIGTERM, which a cluster sends before it takes a machine, or by
the clock.

The driver sets a sign, an actor beside it; the workers look at it, save one more checkpoint, and return. The run
is not finished then: the same command goes on from that checkpoint.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import ray
import ray.train
from ray.exceptions import RayError
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from diffuir_core import UserError

from ..stopping import SIGNALS

SECONDS_BETWEEN_LOOKS = 1.0
"""Interval at which a worker looks at the sign, seconds."""


class StoppedEarly(UserError):  # noqa: N818 - it names what happened
    """The run stopped early, as it was asked to; exit_code: that of the command."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Sign:
    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set


class StopSign:
    """The sign as the driver holds it and Ray hands it to the workers."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.actor: Any = ray.remote(_Sign).options(num_cpus=0, scheduling_strategy=here).remote()

    def set(self) -> None:
        """Ask the workers to stop."""
        ray.get(self.actor.set.remote())


class StopWatcher:
    """A worker's view of the sign; a look costs no waiting."""

    def __init__(self, sign: StopSign) -> None:
        self._actor = sign.actor
        self._looked = time.monotonic()
        self._answer: Any = None

    def is_asked(self) -> bool:
        """Whether the run is to stop, as of the last look that was answered."""
        if self._answer is None:
            if time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
                self._answer, self._looked = self._actor.is_set.remote(), time.monotonic()
            return False
        if not ray.wait([self._answer], timeout=0)[0]:
            return False
        answer, self._answer = self._answer, None
        try:
            return bool(ray.get(answer))
        except RayError:  # the driver is gone, and with it whoever could ask
            return False


class StopRequest:
    """Why the run is to stop."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reason: str | None = None
        """Phrase for the last line of the command; None while nobody has asked."""
        self.exit_code = 0

    def ask(self, reason: str, exit_code: int) -> None:
        """Ask for the stop, unless somebody has already."""
        if self.reason is None:
            self.reason, self.exit_code = reason, exit_code
            self.event.set()


@contextmanager
def stop_request(sign: StopSign, minutes: float | None) -> Iterator[StopRequest]:
    """Set `sign` on Ctrl-C or SIGTERM, and after `minutes` (None: never); at the end of the block the sign goes.

    A second signal does what it did before. In a thread that is not the main one, signals are left alone.
    """
    request = StopRequest()

    def wait() -> None:
        if not request.event.wait(None if minutes is None else 60 * minutes):
            request.ask(f"after {minutes:g} minutes", 0)
        if request.reason is not None:  # none where the run has ended by itself
            print(f"stopping {request.reason}: one more checkpoint is saved first", flush=True)
            with suppress(RayError):  # the run has ended meanwhile, and its sign with it
                sign.set()

    before: dict[int, Any] = {}

    def restore_handlers() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: Any) -> None:
        restore_handlers()
        request.ask("by Ctrl-C" if number == signal.SIGINT else "by SIGTERM", 128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    for number in SIGNALS if is_main else ():
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, on_signal)
    threading.Thread(target=wait, daemon=True, name="diffuir-stop").start()
    try:
        yield request
    finally:
        request.event.set()
        ray.kill(sign.actor)
        if is_main:
            restore_handlers()


def fitted(trainer: TorchTrainer) -> ray.train.Result:
    """Call `trainer.fit()` in another thread: in the main one, Ray Train would end the process on Ctrl-C itself,
    without a word."""
    outcome: Future[ray.train.Result] = Future()

    def fit() -> None:
        try:
            outcome.set_result(trainer.fit())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            outcome.set_exception(error)

    threading.Thread(target=fit, daemon=True, name="diffuir-fit").start()
    return outcome.result()
