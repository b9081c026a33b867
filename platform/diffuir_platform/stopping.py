"""The end of a command that is stopped by Ctrl-C or SIGTERM: one sentence, and no process left."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SENTENCE = "stopped: the same command goes on from there"
SECONDS_TO_STOP = 10.0
"""Longest that a command takes to put its work down, such as to record what is done, seconds."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PR_SET_CHILD_SUBREAPER = 36
"""Operation of prctl(2) of Linux."""


class Stopped(SystemExit):
    """A signal that stops the command; its code is 128 and the number of the signal."""


@contextmanager
def stops_on_signals() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise `Stopped` in the main thread, unless they are ignored already.

    The process ends at a second signal, and SECONDS_TO_STOP after the first, whatever it is doing then, as a store
    may not answer; and at once where the interpreter would drop what is raised, as in a destructor.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped: Stopped | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped is not None:
            end(128 + number)
        _adopt_orphans()
        stopped = Stopped(128 + number)
        timer = threading.Timer(SECONDS_TO_STOP, end, (128 + number,))
        timer.daemon = True
        timer.start()
        raise stopped

    def unraisable(dropped: Any) -> None:
        if isinstance(dropped.exc_value, Stopped):
            end(int(str(dropped.exc_value.code)))
        hook(dropped)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    except BaseException:
        if stopped is None:
            raise
        raise stopped from None  # whatever a library has made of it
    finally:
        sys.unraisablehook = hook
        if stopped is None:
            for number, handler in before.items():
                signal.signal(number, handler)


def end(code: int) -> NoReturn:
    """Say that the command is stopped, and end it and all processes below it, at once."""
    ignore_signals()
    print(SENTENCE, file=sys.stderr, flush=True)
    # What libraries write about processes that are gone is nothing to a person who stopped them.
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in {1, 2, sys.stderr.fileno()}:  # the last may be a copy, see `native_messages_muted`
        os.dup2(silence, stream)
    _kill_descendants()
    os._exit(code)


def ignore_signals() -> None:
    """Ignore the signals from here on, where the caller is the main thread."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _adopt_orphans() -> None:
    """From here on, a process below this one whose parent ends becomes a child of this one, which ends it."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _kill_descendants() -> None:
    import psutil

    for _ in range(5):  # one may have started another meanwhile
        processes = psutil.Process().children(recursive=True)
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if not processes:
            return
        psutil.wait_procs(processes, timeout=1)
