"""A process that restores photos, as the one that has started it sees it.

Its start is mostly the import of torch, so `begin` starts it before the command itself is imported: nothing that
takes long may be imported here.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from .messages import Passes

SECONDS_OF_WAITING = 0.1
"""Interval at which a report, the time and the memory are looked at, seconds."""
SECONDS_TO_LOAD = 300.0
"""Longest time that the process may take to start, and to load the model, seconds."""
SECONDS_TO_STOP = 2.0
"""Time in which a process that is stopped removes what it has half written, seconds."""

_begun: WorkerProcess | None = None
"""The process that `begin` has started, until it is taken."""


class Died(Exception):  # noqa: N818 - it names what happened
    """The process has ended without an answer, or was ended because none came; its text says why."""


class WorkerProcess:
    """A process that restores photos, started at once and ended at the end of the block.

    turn: file whose lock a process takes while its model works, for several that share a GPU or the cores; None
    for one by itself.
    """

    def __init__(self, turn: int | None = None) -> None:
        self._turn = turn
        self._numbers = count()
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        descriptors = [theirs.fileno()] if self._turn is None else [theirs.fileno(), self._turn]
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from diffuir_platform.restore.worker import main; main(*{descriptors})"
        )
        # Ctrl-C goes to all processes of the terminal; this one is ended by the command.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=descriptors,
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._connection = Connection(ours.detach())
        self._sending = threading.Lock()
        self._answers: dict[int, queue.SimpleQueue[Any]] = {}
        self._killed_for: str | None = None
        self._is_open = True
        receiver = threading.Thread(target=self._receive, args=(self._connection, self._answers), daemon=True)
        receiver.start()

    def _receive(self, connection: Connection, answers: dict[int, queue.SimpleQueue[Any]]) -> None:
        """Pass each message on to the call that waits for it, and at the end of the process None to all."""
        try:
            while True:
                number, message = connection.recv()
                if (waiting := answers.get(number)) is not None:
                    waiting.put(message)
        except (EOFError, OSError):
            with self._sending:
                if connection is self._connection:
                    self._is_open = False
                for waiting in list(answers.values()):
                    waiting.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self, at_once: bool = False) -> None:
        """End the process. at_once: without the time to remove what it has half written."""
        if at_once:
            self._process.kill()
        else:
            self._process.terminate()
        try:
            self._process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._connection.close()

    def start_anew(self) -> None:
        """Replace the process, which has died."""
        self.end()
        self._start()

    @property
    def is_alive(self) -> bool:
        """Whether the process can take requests."""
        return self._is_open and self._process.poll() is None

    def send(self, message: object) -> None:
        """Send a message that has no answer; raises `Died` where the process has ended."""
        self._send(next(self._numbers), message)

    def _send(self, number: int, message: object, answers: queue.SimpleQueue[Any] | None = None) -> None:
        try:
            with self._sending:
                if not self._is_open:
                    raise BrokenPipeError
                if answers is not None:
                    self._answers[number] = answers
                self._connection.send((number, message))
        except OSError as error:
            raise Died(self._cause_of_death()) from error

    def ask(
        self,
        request: object,
        report: Callable[[Passes | None], None] = lambda _: None,
        timeout: float | None = None,
    ) -> Any:
        """Send a request and return its answer; raises `Died` where the process ends instead. Thread-safe.

        report: called with each report before the answer, and with None every SECONDS_OF_WAITING without one.
        timeout: seconds without a report after which the process is ended, but for those in which the request
        waits for the model; while process and model start, SECONDS_TO_LOAD if that is more. None for no limit.
        """
        from .messages import Failed, Passes, Stage

        number = next(self._numbers)
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._send(number, request, answers)
        limit = float("inf") if timeout is None else timeout
        deadline = time.monotonic() + max(limit, SECONDS_TO_LOAD)
        try:
            while True:
                try:
                    message = answers.get(timeout=SECONDS_OF_WAITING)
                except queue.Empty:
                    report(None)
                    self._end_if_it_must(deadline, limit)
                    continue
                if message is None:
                    raise Died(self._cause_of_death())
                if isinstance(message, Failed):
                    raise RuntimeError(f"the process that restores photos failed:\n{message.trace}")
                if not isinstance(message, Passes | Stage):
                    return message
                deadline = time.monotonic() + limit
                if isinstance(message, Passes):
                    report(message)
                elif message is Stage.LOADS:
                    deadline = time.monotonic() + max(limit, SECONDS_TO_LOAD)
                    report(Passes(0, 0))
                elif message is Stage.WAITS:
                    deadline = float("inf")
        finally:
            self._answers.pop(number, None)

    def _end_if_it_must(self, deadline: float, limit: float) -> None:
        """Kill the process where it hangs, or where it takes the last memory of the machine."""
        if time.monotonic() > deadline:
            self._killed_for = f"it got no further for {limit:g} s"
        else:
            from .memory import takes_the_last_memory  # not needed for a photo that is done at once

            if not takes_the_last_memory(self._process.pid):
                return
            self._killed_for = "memory ran out"
        self._process.kill()

    def _cause_of_death(self) -> str:
        """Why the process has ended, for a person."""
        try:
            code = self._process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:  # it has closed its connection, and hangs
            self._process.kill()
            code = self._process.wait()
        if self._killed_for is not None:
            return self._killed_for
        if code == -signal.SIGKILL:
            return "killed by SIGKILL, as the system does where memory runs out"
        return f"crashed with {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"


def begin() -> None:
    """Start a process that the command will probably need."""
    global _begun
    _begun = WorkerProcess()


def begun_process() -> WorkerProcess:
    """The process that `begin` has started, or a new one."""
    global _begun
    process, _begun = _begun, None
    return process or WorkerProcess()


def end_begun_process() -> None:
    """End the process that `begin` has started, where nobody has taken it."""
    if _begun is not None:
        begun_process().end(at_once=True)
