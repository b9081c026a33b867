"""The process in which a command restores photos one by one, as the command sees it.

Its start is mostly the import of torch, so `begin` starts it before the command itself is imported: nothing that
takes long may be imported here.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from .messages import Passes

SECONDS_OF_WAITING = 0.1
"""Interval at which a report is looked for, seconds."""
SECONDS_TO_STOP = 2.0
"""Time in which a process that is stopped removes what it has half written, seconds."""

_begun: WorkerProcess | None = None
"""The process that `begin` has started, until it is taken."""


class Died(Exception):  # noqa: N818 - it names what happened
    """The process has ended without an answer."""


class WorkerProcess:
    """A process that restores photos, started at once and ended at the end of the block."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        descriptor = theirs.fileno()
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from diffuir_platform.restore.worker import main; main({descriptor})"
        )
        # Ctrl-C goes to all processes of the terminal; this one is ended by the command.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=[descriptor],
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._connection = Connection(ours.detach())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self, at_once: bool = False) -> None:
        """End the process. at_once: without the time to remove what it has half written."""
        self._connection.close()
        if at_once:
            self._process.kill()
        else:
            self._process.terminate()
        try:
            self._process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def start_anew(self) -> None:
        """Replace the process, which has died."""
        self.end()
        self._start()

    def send(self, message: object) -> None:
        """Send a message that has no answer; raises `Died` where the process has ended."""
        try:
            self._connection.send(message)
        except OSError as error:
            raise Died from error

    def ask(self, request: object, report: Callable[[Passes | None], None]) -> Any:
        """Send a request and return its answer; raises `Died` where the process ends instead.

        report: called with each report before the answer, and with None every SECONDS_OF_WAITING without one.
        """
        from .messages import Failed, Passes

        self.send(request)
        while (answer := self._received()) is None or isinstance(answer, Passes):
            report(answer)
        if isinstance(answer, Failed):
            raise RuntimeError(f"the process that restores photos failed:\n{answer.trace}")
        return answer

    def _received(self) -> Any:
        """The next message; None where none came for SECONDS_OF_WAITING."""
        try:
            return self._connection.recv() if self._connection.poll(SECONDS_OF_WAITING) else None
        except (EOFError, OSError) as error:
            raise Died from error


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
