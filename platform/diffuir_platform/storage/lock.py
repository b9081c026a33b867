"""One job for one folder: a lock in it that its holder renews, and that is taken from a dead one."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import psutil

from diffuir_core.errors import UserError

from . import files
from .errors import NotThere
from .uris import join

FILE = "lock.json"
HEARTBEAT_SECONDS = 5.0
EXPIRY_SECONDS = 20.0
"""After which its holder counts as dead."""


class Held(UserError):  # noqa: N818 - it names what is wrong
    """Another job has the lock."""


@dataclass(frozen=True)
class LockClaim:
    """Whose a lock is, for processes that work for its holder."""

    uri: str
    id: str

    def check(self) -> None:
        """Raise `UserError` where another job has the lock: the one that this is for was silent for too long."""
        other = None
        with suppress(UserError):  # the store does not answer; the next look may come through
            other = self.other()
        if other is not None:
            raise _taken_over(other)

    def other(self) -> str | None:
        """Who else has the lock; None where nobody has."""
        holder = _holder(self.uri)
        return None if holder is None or holder.get("id") == self.id else _named(holder)


class Lock:
    """Held by one process at a time, of all that can reach the folder; a context manager.

    doing, instead: for the one that is refused, "another job {doing}: ..., or {instead}". setting: the one that
    names the folder, for where no lock can be written into it.

    Raises `Held` on entering where another job holds it, which can take EXPIRY_SECONDS to be seen: a
    holder on another machine is dead when its beats stop, one on this machine when its process is gone.
    """

    def __init__(self, folder: str, doing: str, instead: str, setting: str | None = None) -> None:
        self._uri = join(folder, FILE)
        self._doing = doing
        self._instead = instead
        self._setting = setting
        self._folder = folder
        self._mine = {
            "id": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "created": psutil.Process().create_time(),
        }
        self.claim = LockClaim(self._uri, str(self._mine["id"]))
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None
        self._lost: str | None = None

    def __enter__(self) -> Self:
        while not self._take():
            dead = self._wait_until_dead()
            # Somebody else may have found it dead too and been faster. What comes between these two calls all the
            # same is seen at the next beat, by the one whose lock is gone.
            if _holder(self._uri) == dead:
                files.remove_file(self._uri)
        self._beating = threading.Thread(target=self._beat_on, daemon=True, name="diffuir-lock")
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        holder = _holder(self._uri)
        if holder is not None and holder.get("id") == self._mine["id"]:
            files.remove_file(self._uri)

    def check(self) -> None:
        """Raise what `LockClaim.check` raises, as of the last beat."""
        if self._lost is not None:
            raise _taken_over(self._lost)

    def _take(self) -> bool:
        try:
            return files.write_new(self._uri, self._beat())
        except UserError as error:
            if self._setting is None:
                raise
            raise UserError(
                f"can't keep anything in {self._folder} ({error}): set {self._setting}"
            ) from error

    def _beat(self) -> bytes:
        return json.dumps({**self._mine, "time": time.time()}).encode()

    def _wait_until_dead(self) -> dict[str, Any] | None:
        """The holder, once it is dead; raise `Held` as soon as it is seen to live."""
        first = _holder(self._uri)
        deadline = time.monotonic() + EXPIRY_SECONDS
        while first is not None and not _is_gone(first) and time.monotonic() < deadline:
            if _lives_here(first):
                raise Held(self._held_by(first))
            time.sleep(0.5)
            now = _holder(self._uri)
            if now is None:
                return None
            if now != first:
                raise Held(self._held_by(now))
        return first

    def _held_by(self, holder: dict[str, Any]) -> str:
        return f"another job {self._doing} ({_named(holder)}): wait until it is done, stop it, or {self._instead}"

    def _beat_on(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            # Where the store does not answer, it will say so to the job itself; the next beat may come through.
            with suppress(UserError):
                self._lost = self.claim.other()
                if self._lost is not None:
                    return
                files.write_bytes(self._uri, self._beat())


def _holder(uri: str) -> dict[str, Any] | None:
    try:
        found = json.loads(files.read_bytes(uri))
    except (NotThere, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _lives_here(holder: dict[str, Any]) -> bool:
    return holder.get("host") == socket.gethostname() and not _is_gone(holder)


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether it was a process of this machine that no longer runs."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(holder["pid"]))
        return (
            abs(process.create_time() - float(holder["created"])) > 1
            or process.status() == psutil.STATUS_ZOMBIE
        )
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True


def _taken_over(other: str) -> UserError:
    return UserError(f"another job ({other}) took over from this one, which was silent: stopped")


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}"
