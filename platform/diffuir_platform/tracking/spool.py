"""What a run still has to tell its tracker, on disk, in order.

    SPOOL/RUN_ID/run.json           the tracker's address without user and password, and the run
    SPOOL/RUN_ID/records.jsonl      points, parameters and states: a record a line, appended by whoever logs
    SPOOL/RUN_ID/uploads.jsonl      files and registrations: by themselves, since they may go to another store
    SPOOL/RUN_ID/*.delivered        up to which byte the tracker has the one and the other
    SPOOL/RUN_ID/files/             what the uploads refer to
    SPOOL/RUN_ID/refused.jsonl      what the tracker will never take, with its reasons

Any process may append and any may deliver; each does it under a lock that ends with the process. What was appended
is safe from the death of the process, not from a machine that loses its power in the seconds after.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffuir_core.files import replacing

Record = dict[str, Any]

RUN_FILE = "run.json"
_POSITION_DIGITS = 20


class Queue:
    """Records in a file, and how many bytes of it are delivered."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.jsonl"
        self._delivered = folder / f"{name}.delivered"

    def append(self, record: Record) -> None:
        """Add a record at the end."""
        line = json.dumps(record).encode() + b"\n"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._file) as file:
            end = os.lseek(file, 0, os.SEEK_END)
            if end and os.pread(file, 1, end - 1) != b"\n":
                line = b"\n" + line  # a process was killed, or the disk was full, in the middle of a line
            while line:
                line = line[os.write(file, line) :]

    @contextmanager
    def delivering(self) -> Iterator[Position]:
        """Where to go on; nobody else delivers meanwhile."""
        with locked(self._delivered) as file:
            yield Position(file)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody delivers or appends meanwhile."""
        with locked(self._delivered), locked(self._file):
            yield

    def records(self, start: int) -> Iterator[tuple[Record, int]]:
        """Every record from byte `start` on, and the byte after it."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            if start > self._file.stat().st_size:
                start = 0  # a machine that lost its power: what is delivered twice is recognised
            file.seek(start)
            # A line without its end is still being written.
            while (line := file.readline()).endswith(b"\n"):
                start += len(line)
                try:
                    yield json.loads(line), start
                except ValueError:  # what a killed process left of a line: its call never returned
                    continue

    def waiting(self) -> Iterator[Record]:
        """The records that are not delivered yet."""
        return (record for record, _ in self.records(self.position()))

    def position(self) -> int:
        """The byte up to which everything is delivered."""
        return int(self._delivered.read_bytes() or 0) if self._delivered.exists() else 0


class Position:
    """The byte up to which everything is delivered, held by whoever delivers."""

    def __init__(self, file: int) -> None:
        self._file = file

    @property
    def byte(self) -> int:
        """Where it is now."""
        return int(os.pread(self._file, _POSITION_DIGITS, 0) or 0)

    def move(self, byte: int) -> None:
        """Say that everything before `byte` is delivered."""
        os.pwrite(self._file, b"%0*d" % (_POSITION_DIGITS, byte), 0)


class Spool:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = Queue(folder, "records")
        self.uploads = Queue(folder, "uploads")
        self.refused = folder / "refused.jsonl"

    def open(self, uri: str, run_id: str) -> None:
        """Make the folder, and say in it whose it is."""
        if not (self.folder / RUN_FILE).exists():
            with replacing(self.folder / RUN_FILE) as temporary:
                temporary.write_text(json.dumps({"uri": uri, "run_id": run_id}))

    def new_file(self, name: str) -> tuple[Path, str]:
        """Where a file called `name` is to be kept, and what a record calls it."""
        within = f"files/{uuid.uuid4().hex}/{name}"
        path = self.folder / within
        path.parent.mkdir(parents=True)
        return path, within

    def drop_file(self, within: str) -> None:
        """Remove a file that was delivered."""
        shutil.rmtree((self.folder / within).parent, ignore_errors=True)

    def refuse(self, record: Record, reason: str) -> None:
        """Set aside what the tracker will never take."""
        with self.refused.open("a") as file:
            file.write(json.dumps({**record, "refused": reason}) + "\n")

    def positions(self) -> tuple[int, int]:
        """How far delivery has come, to see whether it moves."""
        return self.records.position(), self.uploads.position()

    def is_delivered(self) -> bool:
        """Whether nothing waits."""
        return not any(True for queue in (self.records, self.uploads) for _ in queue.waiting())

    def waiting(self) -> str:
        """How much waits, as a person says it."""
        kinds = Counter(r["do"] for queue in (self.records, self.uploads) for r in queue.waiting())
        points, files = kinds.pop("point", 0), kinds.pop("file", 0)
        counts = ((points, "point"), (files, "file"), (kinds.total(), "other record"))
        said = [f"{count:,} {what}{'s' if count > 1 else ''}" for count, what in counts if count]
        return " and ".join(filter(None, (", ".join(said[:-1]), *said[-1:]))) or "nothing"

    def remove_if_delivered(self) -> None:
        """Remove the folder, unless something waits or was refused."""
        if not self.folder.exists():
            return
        with self.records.held(), self.uploads.held():
            if self.is_delivered() and not self.refused.exists():
                shutil.rmtree(self.folder)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """A descriptor of the file `path`, made where it is missing, that nobody else has locked meanwhile."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Who had it before may have removed it: then it is another file that has this name now.
            if os.fstat(file).st_nlink:
                yield file
                return
        finally:
            os.close(file)
