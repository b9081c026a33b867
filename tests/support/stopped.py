"""A command that is stopped by a signal: what it says, how it ends, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from diffuir_core.files import TEMPORARY_PREFIX
from diffuir_platform.stopping import SENTENCE


@dataclass(frozen=True)
class Ended:
    """The end of a command."""

    code: int
    out: str
    said: list[str]
    """Lines on stderr."""
    seconds: float
    """Time from the signal to the end."""
    survivors: list[str]
    """Command lines of processes that it started and that are still there."""


def stopped(
    arguments: Sequence[object],
    when: float | Callable[[], bool],
    number: int = signal.SIGINT,
    to_group: bool = False,
) -> Ended:
    """Start `diffuir` with `arguments` in a session of its own, send it the signal, and wait for its end.

    when: seconds after its start, or a condition. to_group: send it to all processes, as a terminal does.
    """
    command = [sys.executable, "-m", "diffuir_platform.cli", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    began = time.monotonic()
    while time.monotonic() - began < when if isinstance(when, float) else not when():
        if process.poll() is not None:
            break
        time.sleep(0.01)
    if process.poll() is None:
        (os.killpg if to_group else os.kill)(process.pid, number)
    signalled = time.monotonic()
    out, err = process.communicate(timeout=120)
    seconds = time.monotonic() - signalled
    return Ended(process.returncode, out, err.splitlines(), seconds, _survivors(process.pid))


def _survivors(session: int) -> list[str]:
    """Command lines of the processes of a session, which may take a moment to be gone."""
    deadline = time.monotonic() + 5
    while True:
        found = []
        for process in psutil.process_iter(["pid", "status", "cmdline"]):
            try:
                if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.info["cmdline"] or []))
            except ProcessLookupError:
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def check(ended: Ended, number: int, out: Path) -> None:
    """Check that a stopped command says one sentence, has the right exit code, and leaves nothing half done."""
    assert ended.code == 128 + number, ended
    assert ended.said[-1] == SENTENCE, ended
    others = [line for line in ended.said[:-1] if not line.startswith("restoring ")]
    assert not others, ended
    assert ended.out == "", ended
    assert ended.survivors == [], ended
    if out.exists():
        assert not list(out.rglob(f"{TEMPORARY_PREFIX}*")), ended
