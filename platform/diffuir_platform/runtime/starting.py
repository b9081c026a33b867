"""A Ray of our own on this machine: started while signals are heard, with patience, in a folder it can use."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any

from diffuir_core.errors import UserError

from ..stopping import SIGNALS
from . import private

PATIENCE = (30, 90)
"""Time that a Ray is given to start, seconds; the second where it missed the first, as on a busy machine."""
SECONDS_BETWEEN_LOOKS = 0.05
"""Interval at which it is looked whether Ray has started, seconds."""
SOCKET_BYTES = 103
"""Longest path of a socket, bytes: 107 on Linux, 103 on a Mac."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
FOLDER_PREFIX = "diffuir-ray-"
"""Start of the names of temporary folders that are made for a Ray."""


class RayDidNotStart(UserError):  # noqa: N818 - it names what happened
    """A Ray of our own could not be started on this machine."""


@contextmanager
def local_ray(**arguments: Any) -> Iterator[None]:
    """Inside, a Ray of our own runs on this machine, on the loopback; arguments: of `ray.init`.

    Raises `RayDidNotStart`.
    """
    import ray

    ended = threading.Event()
    with ExitStack() as stack:
        if folder := stack.enter_context(_short_folder()):
            arguments["_temp_dir"] = folder
        stack.callback(ended.set)
        for patience in PATIENCE:
            try:
                _start(arguments, patience, ended)
                break
            except Exception as error:
                ray.shutdown()
                if "timed out" not in str(error).lower():
                    raise RayDidNotStart(
                        f"Ray could not be started on this machine ({type(error).__name__})"
                    ) from error
                if patience == PATIENCE[-1]:
                    raise RayDidNotStart(
                        f"Ray did not start on this busy machine within {sum(PATIENCE)} s"
                    ) from error
        stack.callback(ray.shutdown)
        yield


def _start(arguments: Mapping[str, Any], patience: int, ended: threading.Event) -> None:
    """Start Ray in another thread, so that this one hears signals.

    The thread lives until `ended`: the system ends Ray's processes with the thread that started them.
    """
    import ray

    outcome: Future[None] = Future()

    def start() -> None:
        try:
            with (
                _signals_kept_from_children(),
                private.ray_parameters(dashboard_agent_listen_port=0, include_log_monitor=False),
                private.ray_on_the_loopback(),
                private.ray_patience(patience),
            ):
                ray.init(address="local", **arguments)
        except BaseException as error:  # noqa: BLE001 - raised again in the other thread
            outcome.set_exception(error)
            return
        outcome.set_result(None)
        if ended.is_set():  # nobody waited for it
            ray.shutdown()
        ended.wait()

    threading.Thread(target=start, daemon=True, name="diffuir-ray").start()
    while not outcome.done():
        ended.wait(SECONDS_BETWEEN_LOOKS)
    outcome.result()


@contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Inside, what this thread starts leads process groups of its own, which no signal from a terminal reaches.

    Such a signal is for this process, which ends them; or the system does, where this process is killed. With
    Ray's processes gone, the connection to them would hold this process in native code for ten seconds, deaf to
    signals, and then end it. And until it runs its own program, a child would run our handlers.
    """
    global _leads_group, _is_registered
    if not _is_registered:
        os.register_at_fork(after_in_child=_lead_group)
        _is_registered = True
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    _leads_group = True
    try:
        yield
    finally:
        _leads_group = False
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_leads_group = _is_registered = False


def _lead_group() -> None:
    if not _leads_group:
        return
    os.setpgid(0, 0)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # forgets one that has come meanwhile
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def _short_folder() -> Iterator[str | None]:
    """A new temporary folder for Ray, where the path of its own would be too long for a socket; else None."""
    usual = os.environ.get("RAY_TMPDIR") or (os.environ.get("TMPDIR") if sys.platform == "linux" else None)
    if usual is None or len(os.fsencode(os.path.join(usual, "ray", private.RAY_SOCKET))) <= SOCKET_BYTES:
        yield None
        return
    parent = next((folder for folder in SHORT_FOLDERS if os.access(folder, os.W_OK)), None)
    if parent is None:
        raise RayDidNotStart(f"Ray can't be started: the path of its temporary folder, {usual}, is too long")
    folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
