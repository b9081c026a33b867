"""A lock that lets one job use a folder: its holder renews it, and it expires when the holder is dead."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from diffuir_core.errors import UserError

from . import files
from .errors import NotThere
from .uris import join

FILE = "lock.json"
HEARTBEAT_SECONDS = 5.0
"""Interval at which the holder renews the lock."""
EXPIRY_SECONDS = 20.0
"""Time without a heartbeat after which the lock expires, and another job may take it."""


class Held(UserError):  # noqa: N818 - it names what is wrong
    """Another job holds the lock."""


@dataclass(frozen=True)
class LockClaim:
    """The claim of a lock's holder, for processes that work for it. uri: the lock's file. id: the holder's id."""

    uri: str
    id: str

    def check(self) -> None:
        """Raise `UserError` where another job holds the lock, because this claim has expired."""
        other = None
        with suppress(UserError):  # the store does not answer; the next check may succeed
            other = self.other()
        if other is not None:
            raise _expired(other)

    def other(self) -> str | None:
        """A description of another holder of the lock; None where there is none."""
        holder = _holder(self.uri)
        return None if holder is None or holder.get("id") == self.id else _named(holder)


class Lock:
    """A lock that one process at a time holds, of all that can reach the folder; a context manager.

    activity, alternative: parts of the error for a job that is refused: "another job {activity} ...: wait until it
    is done, stop it, or {alternative}". setting: name of the setting with the folder, for the error where no lock
    can be written into it.

    Entering raises `Held` where another job holds the lock. This can take EXPIRY_SECONDS: a holder on another
    machine, or in another container, is dead when its heartbeats stop, one in this one when its process is gone.
    """

    def __init__(self, folder: str, activity: str, alternative: str, setting: str | None = None) -> None:
        self._uri = join(folder, FILE)
        self._activity = activity
        self._alternative = alternative
        self._setting = setting
        self._folder = folder
        self._mine = {
            "id": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "machine": machine(),
            "pid": os.getpid(),
            "created": psutil.Process().create_time(),
        }
        self.claim = LockClaim(self._uri, str(self._mine["id"]))
        self._ended = threading.Event()
        self._heartbeat: threading.Thread | None = None
        self._lost: str | None = None

    def __enter__(self) -> Self:
        while not self._take():
            dead = self._wait_until_dead()
            # Another job may have seen that it is dead and been faster. What happens between these two calls is
            # noticed at the next heartbeat, by the job that lost its lock.
            if dead is not None and _content(self._uri) == dead:
                files.remove_file(self._uri)
        self._heartbeat = threading.Thread(target=self._renew_until_end, daemon=True, name="diffuir-lock")
        self._heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._heartbeat is not None:
            self._heartbeat.join()
        holder = _holder(self._uri)
        if holder is not None and holder.get("id") == self._mine["id"]:
            files.remove_file(self._uri)

    def check(self) -> None:
        """Raise `UserError` as `LockClaim.check` does, by the last heartbeat."""
        if self._lost is not None:
            raise _expired(self._lost)

    def _take(self) -> bool:
        try:
            # A store may have taken a request whose answer was lost, and then refuses its repetition.
            return files.write_new(self._uri, self._content()) or self.claim.id == (
                _holder(self._uri) or {}
            ).get("id")
        except UserError as error:
            if self._setting is None:
                raise
            raise UserError(
                f"can't write into {self._folder} ({error}): set {self._setting} to another folder"
            ) from error

    def _content(self) -> bytes:
        return json.dumps({**self._mine, "time": time.time()}).encode()

    def _wait_until_dead(self) -> bytes | None:
        """Wait until the holder is dead and return its lock; raise `Held` as soon as it is known to be alive.

        None where the lock is gone. One that is empty or damaged is given the same time: a live holder mends it.
        """
        first = _content(self._uri)
        deadline = time.monotonic() + EXPIRY_SECONDS
        while first is not None and not _is_gone(_parsed(first)) and time.monotonic() < deadline:
            if _lives_here(_parsed(first)):
                raise Held(self._held_by(_parsed(first)))
            time.sleep(0.5)
            now = _content(self._uri)
            if now is None:
                return None
            if now != first and _parsed(now):
                raise Held(self._held_by(_parsed(now)))
            first = now
        return first

    def _held_by(self, holder: dict[str, Any]) -> str:
        return (
            f"another job {self._activity} ({_named(holder)}): wait until it is done, stop it, or "
            f"{self._alternative}"
        )

    def _renew_until_end(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            # Where the store does not answer, the job itself gets its error; the next heartbeat may succeed.
            with suppress(UserError):
                self._lost = self.claim.other()
                if self._lost is not None:
                    return
                files.write_bytes(self._uri, self._content())


def _holder(uri: str) -> dict[str, Any] | None:
    """The holder of the lock; None where there is no lock, or one that says nothing."""
    return _parsed(_content(uri) or b"") or None


def _content(uri: str) -> bytes | None:
    try:
        return files.read_bytes(uri)
    except NotThere:
        return None


def _parsed(lock: bytes) -> dict[str, Any]:
    """The holder that a lock names; empty where it says nothing."""
    try:
        found = json.loads(lock)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def machine() -> str | None:
    """What tells this machine, since it was started, and the container in it from all others; None where unknown.

    Containers and cloned machines may share a host name, and then a number of a process says nothing.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def _is_of_this_machine(holder: dict[str, Any]) -> bool:
    known = machine()
    return known is not None and holder.get("machine") == known


def _lives_here(holder: dict[str, Any]) -> bool:
    return _is_of_this_machine(holder) and not _is_gone(holder)


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    if not _is_of_this_machine(holder):
        return False
    try:
        process = psutil.Process(int(holder["pid"]))
        return (
            abs(process.create_time() - float(holder["created"])) > 1
            or process.status() == psutil.STATUS_ZOMBIE
        )
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True


def _expired(other: str) -> UserError:
    return UserError(f"another job ({other}) took the lock after ours expired: stopped")


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}"
