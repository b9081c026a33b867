"""Long-running processes: started once, recorded, and ended by their record."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from diffuir_core import UserError

START_TIMEOUT = 120
"""Longest wait for a service to become ready, seconds."""
STOP_TIMEOUT = 15
"""Longest wait for a service to end by itself before it is killed, seconds."""
POLL_SECONDS = 0.1
"""Time between two looks at services that are starting, seconds."""

Record = dict[str, Any]
"""Record of a started service: its process id, and when that process was created, since ids are used again."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A process of the cluster, and how to tell that it is ready."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    ready: Callable[[], bool]
    """Whether it is ready; called repeatedly after the start."""
    prepare: Callable[[], None] = lambda: None
    """Called before each start."""
    complete: Callable[[], None] = lambda: None
    """Called once it is ready."""
    needs: tuple[str, ...] = field(default=())
    """Names of services that must be ready first, and after whose restart it is restarted too."""
    attempts: int = 1
    """Starts after which the service counts as failed, where its process ends before it is ready."""


def is_alive(record: Record | None) -> bool:
    """Whether the service's main process still runs."""
    return record is not None and _process(record) is not None


def _process(record: Record) -> psutil.Process | None:
    try:
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["created"]) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def start(
    services: Sequence[Service], records: dict[str, Record], logs: Path, changed: Callable[[], None]
) -> None:
    """Start the services that are not running, each as soon as those it needs are ready, and wait for all of them.

    records: name -> record of each service, updated here; changed: called after every update. Raises `UserError`
    for a service that ends, or does not become ready in START_TIMEOUT.
    """
    logs.mkdir(parents=True, exist_ok=True)
    began: dict[str, float] = {}
    for service in services:
        if is_alive(records.get(service.name)) and began.keys() >= set(service.needs):
            began[service.name] = time.monotonic()
    stop(*(records.get(service.name) for service in services if service.name not in began))
    attempts: Counter[str] = Counter()
    ready: set[str] = set()
    while waiting := [service for service in services if service.name not in ready]:
        for service in waiting:
            if service.name not in began:
                if ready >= set(service.needs):
                    service.prepare()
                    records[service.name] = _spawn(service, logs)
                    began[service.name] = time.monotonic()
                    attempts[service.name] += 1
                    changed()
            elif not is_alive(records[service.name]):
                if attempts[service.name] >= service.attempts:
                    raise UserError(f"{service.name} ended while it started: see {_log(service.name, logs)}")
                stop(records[service.name])
                del began[service.name]
            elif service.ready():
                service.complete()
                ready.add(service.name)
            elif time.monotonic() - began[service.name] > START_TIMEOUT:
                log = _log(service.name, logs)
                raise UserError(f"{service.name} is not ready after {START_TIMEOUT} s: see {log}")
        time.sleep(POLL_SECONDS)


def _spawn(service: Service, logs: Path) -> Record:
    log = _log(service.name, logs)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    with log.open("wb") as out:
        process = subprocess.Popen(
            service.command,
            env=service.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}


def _log(name: str, logs: Path) -> Path:
    return logs / f"{name}.log"


def stop(*records: Record | None) -> None:
    """End these services and every process that they started: SIGTERM first, then SIGKILL after STOP_TIMEOUT."""
    known = [record for record in records if record is not None]
    members = [process for record in known for process in _members(record)]
    mains = [process for record in known if (process := _process(record)) is not None]
    _signal(mains, signal.SIGTERM)
    psutil.wait_procs(mains, timeout=STOP_TIMEOUT)
    _, left = psutil.wait_procs(members, timeout=2)
    _signal(left, signal.SIGKILL)
    psutil.wait_procs(left, timeout=STOP_TIMEOUT)


def _members(record: Record) -> list[psutil.Process]:
    """Return a service's processes: its main one, its descendants, and what is left of its session without it."""
    main = _process(record)
    found = {} if main is None else {p.pid: p for p in [main, *main.children(recursive=True)]}
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == record["pid"] and process.create_time() >= record["created"] - 1:
                found.setdefault(process.pid, process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return list(found.values())


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
