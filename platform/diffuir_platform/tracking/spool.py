"""The spool: records of a run on the disk, in order, until the tracker has them.

    SPOOL/RUN_ID/run.json           address of the tracker without user and password, and id of the run
    SPOOL/RUN_ID/records.jsonl      points, parameters and statuses, a record per line
    SPOOL/RUN_ID/uploads.jsonl      files and registrations; a queue of their own, as they may go to another store
    SPOOL/RUN_ID/*.delivered        number of bytes of each queue that are delivered
    SPOOL/RUN_ID/files/             files that the uploads refer to
    SPOOL/RUN_ID/refused.jsonl      records that the tracker will never take, with the reasons

Several processes may append and any may deliver, each under a file lock that ends with the process. An appended
record survives the death of the process, but not a power failure in the seconds after.
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

from ..text import counted

Record = dict[str, Any]

RUN_FILE = "run.json"
_POSITION_DIGITS = 20
"""Digits of a delivered position, so that each write replaces all of the one before."""


class Queue:
    """Records in a file, and the position up to which they are delivered."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.jsonl"
        self._delivered = folder / f"{name}.delivered"

    def append(self, record: Record) -> None:
        """Add a record at the end."""
        line = json.dumps(record).encode() + b"\n"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(self._file) as file:
            end = os.lseek(file, 0, os.SEEK_END)
            if end and os.pread(file, 1, end - 1) != b"\n":
                line = b"\n" + line  # a process was killed, or the disk was full, in the middle of a record
            while line:
                line = line[os.write(file, line) :]

    @contextmanager
    def delivering(self) -> Iterator[Position]:
        """Position to deliver from; no other process delivers inside the block."""
        with locked_file(self._delivered) as file:
            yield Position(file)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from delivering and appending inside the block."""
        with locked_file(self._delivered), locked_file(self._file):
            yield

    def records(self, start: int) -> Iterator[tuple[Record, int]]:
        """Yield every record from byte `start` on, and the position after it."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            if start > self._file.stat().st_size:
                start = 0  # after a power failure: records that are delivered twice are recognised
            file.seek(start)
            # A line without its end is still being written.
            while (line := file.readline()).endswith(b"\n"):
                start += len(line)
                try:
                    yield json.loads(line), start
                except ValueError:  # part of a line, from a process that was killed before `append` returned
                    continue

    def undelivered(self) -> Iterator[Record]:
        """Yield the records that are not delivered yet."""
        return (record for record, _ in self.records(self.position()))

    def position(self) -> int:
        """Return the number of bytes that are delivered."""
        return int(self._delivered.read_bytes() or 0) if self._delivered.exists() else 0


class Position:
    """Delivered position of a queue, for the process that holds its lock."""

    def __init__(self, file: int) -> None:
        self._file = file

    @property
    def byte(self) -> int:
        """Number of bytes that are delivered."""
        return int(os.pread(self._file, _POSITION_DIGITS, 0) or 0)

    def move(self, byte: int) -> None:
        """Mark everything before `byte` as delivered."""
        os.pwrite(self._file, b"%0*d" % (_POSITION_DIGITS, byte), 0)


class Spool:
    """Spool of one run: its folder, and the two queues in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = Queue(folder, "records")
        self.uploads = Queue(folder, "uploads")
        self.refused = folder / "refused.jsonl"

    def open(self, uri: str, run_id: str) -> None:
        """Make the folder where it is missing, with the address of the tracker and the run in it."""
        if not (self.folder / RUN_FILE).exists():
            with replacing(self.folder / RUN_FILE) as temporary:
                temporary.write_text(json.dumps({"uri": uri, "run_id": run_id}))

    def new_file(self, name: str) -> tuple[Path, str]:
        """Return a new path for a file called `name`, and the same relative to the folder, for its record."""
        within = f"files/{uuid.uuid4().hex}/{name}"
        path = self.folder / within
        path.parent.mkdir(parents=True)
        return path, within

    def drop_file(self, within: str) -> None:
        """Remove a delivered file."""
        shutil.rmtree((self.folder / within).parent, ignore_errors=True)

    def refuse(self, record: Record, reason: str) -> None:
        """Set aside a record that the tracker will never take."""
        with self.refused.open("a") as file:
            file.write(json.dumps({**record, "refused": reason}) + "\n")

    def positions(self) -> tuple[int, int]:
        """Return the delivered positions of both queues."""
        return self.records.position(), self.uploads.position()

    def is_delivered(self) -> bool:
        """Whether the tracker has every record."""
        return not any(True for queue in (self.records, self.uploads) for _ in queue.undelivered())

    def undelivered_text(self) -> str:
        """Return the number of undelivered records by kind, such as "3 points and 1 file"."""
        kinds = Counter(r["do"] for queue in (self.records, self.uploads) for r in queue.undelivered())
        points, files = kinds.pop("point", 0), kinds.pop("file", 0)
        counts = ((points, "point"), (files, "file"), (kinds.total(), "other record"))
        parts = [counted(count, noun) for count, noun in counts if count]
        return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:]))) or "nothing"

    def remove_if_delivered(self) -> None:
        """Remove the folder, unless a record is undelivered or was refused."""
        if not self.folder.exists():
            return
        with self.records.locked(), self.uploads.locked():
            if self.is_delivered() and not self.refused.exists():
                shutil.rmtree(self.folder)


@contextmanager
def locked_file(path: Path) -> Iterator[int]:
    """Descriptor of the file `path`, made where it is missing and locked inside the block."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The process that held the lock may have removed the file: then open the new one of that name.
            if os.fstat(file).st_nlink:
                yield file
                return
        finally:
            os.close(file)
