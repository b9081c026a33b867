"""Processes that stay: started once, written down, and ended by what was written down."""

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

SECONDS_TO_START = 120
SECONDS_TO_END = 15
SECONDS_BETWEEN_LOOKS = 0.1

Record = dict[str, Any]
"""Of a started part: its process id, and when that process was made, since ids are used again."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process of the cluster, and how one knows that it is there."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    ready: Callable[[], bool]
    """Asked again and again after the start."""
    prepare: Callable[[], None] = lambda: None
    """Before each start."""
    complete: Callable[[], None] = lambda: None
    """Once it is ready."""
    needs: tuple[str, ...] = field(default=())
    """Parts that must be ready first, and with which it starts again."""
    attempts: int = 1
    """At a start that ends before it is ready."""


def is_alive(record: Record | None) -> bool:
    """Whether the part's own process still runs."""
    return record is not None and _process(record) is not None


def _process(record: Record) -> psutil.Process | None:
    try:
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["created"]) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def start(parts: Sequence[Part], records: dict[str, Record], logs: Path, written: Callable[[], None]) -> None:
    """Start the parts that are not running, each as soon as what it needs is ready, and wait for all of them.

    records: what is written down of each part, changed here; `written` is called after every change. Raises
    `UserError` naming the part that ends, or does not answer, instead of becoming ready.
    """
    logs.mkdir(parents=True, exist_ok=True)
    began: dict[str, float] = {}
    for part in parts:
        if is_alive(records.get(part.name)) and began.keys() >= set(part.needs):
            began[part.name] = time.monotonic()
    stop(*(records.get(part.name) for part in parts if part.name not in began))
    attempts: Counter[str] = Counter()
    ready: set[str] = set()
    while waiting := [part for part in parts if part.name not in ready]:
        for part in waiting:
            if part.name not in began:
                if ready >= set(part.needs):
                    part.prepare()
                    records[part.name] = _spawn(part, logs)
                    began[part.name] = time.monotonic()
                    attempts[part.name] += 1
                    written()
            elif not is_alive(records[part.name]):
                if attempts[part.name] >= part.attempts:
                    raise UserError(f"{part.name} ended while it started: see {_log(part.name, logs)}")
                stop(records[part.name])
                del began[part.name]
            elif part.ready():
                part.complete()
                ready.add(part.name)
            elif time.monotonic() - began[part.name] > SECONDS_TO_START:
                log = _log(part.name, logs)
                raise UserError(f"{part.name} does not answer after {SECONDS_TO_START} s: see {log}")
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _spawn(part: Part, logs: Path) -> Record:
    log = _log(part.name, logs)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    with log.open("wb") as out:
        process = subprocess.Popen(
            part.command,
            env=part.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}


def _log(name: str, logs: Path) -> Path:
    return logs / f"{name}.log"


def stop(*records: Record | None) -> None:
    """End those parts and every process that they started: all are asked first, then killed."""
    known = [record for record in records if record is not None]
    members = [process for record in known for process in _members(record)]
    mains = [process for record in known if (process := _process(record)) is not None]
    _signal(mains, signal.SIGTERM)
    psutil.wait_procs(mains, timeout=SECONDS_TO_END)
    _, left = psutil.wait_procs(members, timeout=2)
    _signal(left, signal.SIGKILL)
    psutil.wait_procs(left, timeout=SECONDS_TO_END)


def _members(record: Record) -> list[psutil.Process]:
    """The part's processes: its main one, what descends from it, and what is left of its session without it."""
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
