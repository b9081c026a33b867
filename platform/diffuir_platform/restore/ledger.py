"""The ledger of an output: one row for each input, in Parquet files below `_diffuir/ledger/`.

A run appends a part (one Parquet file) at intervals, after the results in it are written, so that every result
that a part names exists. At the end of the run all parts become one sorted set with one row for each input. During
the run, the driver mirrors the ledger in a SQLite file on its own disk, so that lookups, counts and sorting never
need the rows in memory.
"""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq

from diffuir_core.errors import UserError

from .. import storage
from . import journal
from .writing import REMEDY

FOLDER = "ledger"
MAX_PART_ROWS = 10_000
"""Most rows of a part. A killed run repeats at most the photos of the part it had not written yet."""
MAX_PART_SECONDS = 20.0
"""Longest time between two parts, seconds."""
FIRST_PART_SECONDS = 0.5
"""Time until the first part, seconds; each later one waits twice as long as the one before, up to
MAX_PART_SECONDS, so that a run that is killed early has something to resume from."""
ROWS_AT_ONCE = 10_000
"""Rows in memory while the ledger is read."""

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        ("reason", pa.string()),
        ("notes", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        ("offset", pa.int64()),
        ("source_bytes", pa.int64()),
        ("source_version", pa.string()),
        pa.field("target", pa.string(), nullable=False),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("seconds_read", pa.float32()),
        ("seconds_restore", pa.float32()),
        ("seconds_write", pa.float32()),
        ("precision", pa.string()),
        pa.field("attempt", pa.int16(), nullable=False),
        ("finished", pa.timestamp("ms", tz="UTC")),
        pa.field("settings", pa.string(), nullable=False),
    ]
)
"""Columns of the ledger.

key: the input's path below IN, or its absolute path or URI for lists and tables. status: "done" or "failed".
reason: why it failed. notes: what could not be kept of the photo, or how it was restored. source, source_bytes,
source_version: the file that was read, its size, and its ETag or time of the last change; offset: for a member of
a tar, where its bytes begin. target: the result's path below OUT. format, width, height: of the photo as decoded,
in pixels. bytes, sha256: size and hash of the result's file; of a failed row,
sha256 is that of an earlier result, which is still there. seconds_read, seconds_restore, seconds_write: time in
each stage. precision: arithmetic of the model. attempt: number of the attempt, from 1. finished: when. settings:
fingerprint of the settings of the run.
"""

_SQL_TYPES = {pa.string(): "TEXT", pa.float32(): "REAL"}
_COLUMNS = ", ".join(f'"{name}"' for name in SCHEMA.names)
_PLACES = ", ".join("?" for _ in SCHEMA.names)
_NEWEST = (
    f"INSERT INTO rows ({_COLUMNS}) VALUES ({_PLACES}) ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f'"{name}" = excluded."{name}"' for name in SCHEMA.names if name != "key")
    + " WHERE excluded.finished >= rows.finished"
)
_SORTED = "sorted-"
"""Prefix of the names of the parts of a sorted set, which has one row for each input."""


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One row of the ledger: the columns of SCHEMA, with key, source and target as `as_text` encodes them."""

    key: str
    status: Literal["done", "failed"]
    source: str
    target: str
    reason: str | None = None
    notes: str | None = None
    offset: int | None = None
    source_bytes: int | None = None
    source_version: str | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    seconds_read: float = 0.0
    seconds_restore: float = 0.0
    seconds_write: float = 0.0
    precision: str | None = None
    attempt: int = 1
    finished: int = 0
    """Time at which it was finished, milliseconds since 1970 in UTC."""
    settings: str = ""

    @property
    def is_blocked(self) -> bool:
        """Whether it failed as another file is in the way of its result, so that no restoring helps."""
        return (self.reason or "").endswith(REMEDY)


assert {field.name for field in fields(LedgerRow)} == set(SCHEMA.names)


_values = attrgetter(*SCHEMA.names)


class Ledger:
    """The ledger in `folder`, which is the `_diffuir` of an output; a context manager, for one process at a time.

    Raises `UserError` where a file of the ledger can't be read as one.
    """

    def __init__(self, folder: str) -> None:
        self.folder = storage.join(folder, FOLDER)
        self._name = uuid.uuid4().hex[:12]
        self._parts = 0
        self._is_changed = False
        """Whether the mirror has fewer rows than the parts."""
        self._buffer: list[LedgerRow] = []
        self._entries: set[str] = set()
        """Entries of the journal that name results of the buffer."""
        self._flushed_entries: set[str] = set()
        """Those of the last part, which may name results of rows that are still to come."""
        self._written = time.monotonic()
        self._pause = FIRST_PART_SECONDS
        self._scratch = tempfile.TemporaryDirectory(prefix="diffuir-ledger-")
        self._mirror = sqlite3.connect(Path(self._scratch.name) / "mirror.sqlite", isolation_level=None)
        columns = ", ".join(f'"{f.name}" {_SQL_TYPES.get(f.type, "INTEGER")}' for f in SCHEMA)
        # Scratch: rebuilt from the parts at each start, so it need not survive a crash.
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            "PRAGMA cache_size=-8192",
            f"CREATE TABLE rows ({columns}, PRIMARY KEY (key)) WITHOUT ROWID",
            "CREATE TABLE listed (key TEXT PRIMARY KEY, target TEXT UNIQUE) WITHOUT ROWID",
            "CREATE TABLE present (target TEXT PRIMARY KEY, bytes INTEGER) WITHOUT ROWID",
        ):
            self._mirror.execute(statement)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._mirror.close()
        self._scratch.cleanup()
        if isinstance(error, sqlite3.OperationalError):
            place = tempfile.gettempdir()
            raise UserError(
                f"the run's copy of the ledger can't be kept in {place} ({error}): free some space there, or set "
                "TMPDIR to a folder that has some"
            ) from error

    def load(self) -> int:
        """Mirror the parts on disk, with the newest row of each input; returns the number of inputs."""
        for part in self._old_parts():
            for rows in _read(part):
                self._mirror.executemany(_NEWEST, rows)
        return self.count()

    def add(self, row: LedgerRow, entry: str | None = None) -> None:
        """Add the row of a finished input, after its result is written.

        entry: the journal's entry that names its result. It is deleted once the rows of all its results, which are
        added one after the other, are written.
        """
        self._buffer.append(row)
        if entry is not None:
            self._entries.add(entry)
        since = time.monotonic() - self._written
        if len(self._buffer) >= MAX_PART_ROWS or since > min(self._pause, MAX_PART_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Write the rows added since the last part as a new part."""
        if self._buffer:
            self._write_buffer()
        # After the write, since a store slower than the pause would otherwise get a part for each row.
        self._written = time.monotonic()

    def _write_buffer(self) -> None:
        rows = [_values(row) for row in self._buffer]
        self._write_part(f"part-{self._name}-{self._parts:06d}.parquet", rows)
        self._parts += 1
        self._pause = min(2 * self._pause, MAX_PART_SECONDS)
        self._mirror.execute("BEGIN")
        self._mirror.executemany(f"INSERT OR REPLACE INTO rows ({_COLUMNS}) VALUES ({_PLACES})", rows)
        self._mirror.execute("COMMIT")
        self._buffer.clear()
        journal.forget(sorted(self._flushed_entries - self._entries))
        self._flushed_entries, self._entries = self._entries, set()

    def compact(self) -> None:
        """Rewrite all parts as one sorted set, a row for each input. Killed on the way, it can be repeated."""
        self.flush()
        journal.forget(sorted(self._flushed_entries))
        self._flushed_entries.clear()
        old = self._old_parts()
        generations = {part.rpartition("/")[2].rpartition("-")[0] for part in old}
        if not self._is_changed and len(generations) <= 1 and all(map(_is_sorted, generations)):
            return
        prefix = f"{_SORTED}{uuid.uuid4().hex[:12]}"
        cursor = self._mirror.execute(f"SELECT {_COLUMNS} FROM rows ORDER BY key")
        for number in itertools.count():
            if not (rows := cursor.fetchmany(MAX_PART_ROWS)):
                break
            self._write_part(f"{prefix}-{number:06d}.parquet", rows)
        for part in old:
            storage.remove_file(part)
        self._is_changed = False

    def clear(self) -> None:
        """Remove the ledger's files and rows."""
        storage.remove_folder(self.folder)
        self._mirror.execute("DELETE FROM rows")

    def forget_unlisted_failures(self) -> None:
        """Drop the failed rows of inputs that no longer exist; call it only after a complete listing."""
        unlisted = "status = 'failed' AND key NOT IN (SELECT key FROM listed)"
        self._is_changed |= self._mirror.execute(f"DELETE FROM rows WHERE {unlisted}").rowcount > 0

    def claim(self, names: Sequence[tuple[str, str]]) -> list[bool]:
        """Note listed (key, target) pairs; returns for each whether its key and its target are both new."""
        self._mirror.execute("BEGIN")
        first = [
            self._mirror.execute("INSERT OR IGNORE INTO listed VALUES (?, ?)", name).rowcount > 0
            for name in names
        ]
        self._mirror.execute("COMMIT")
        return first

    def is_listed(self, key: str) -> bool:
        """Whether this key was listed and claimed."""
        return self._scalar("SELECT COUNT(*) FROM listed WHERE key = ?", key) > 0

    def rows_of(self, keys: Sequence[str]) -> dict[str, LedgerRow]:
        """Return the flushed rows of those of `keys` that have one."""
        places = ", ".join("?" for _ in keys)
        return {row.key: row for row in self._rows(f"WHERE key IN ({places})", *keys)}

    def note_present(self, targets: Iterable[tuple[str, int]]) -> None:
        """Note (target, size in bytes) of results that exist, for `is_present`."""
        self._mirror.execute("BEGIN")
        self._mirror.executemany("INSERT OR REPLACE INTO present VALUES (?, ?)", targets)
        self._mirror.execute("COMMIT")

    def is_taken(self, row: LedgerRow) -> bool:
        """Whether there is a file under the name of the row's result, as of `note_present`."""
        return self._scalar("SELECT COUNT(*) FROM present WHERE target = ?", row.target) > 0

    def is_present(self, row: LedgerRow) -> bool:
        """Whether the result of `row` exists with the size that it says, as of `note_present`."""
        return (
            self._scalar("SELECT COUNT(*) FROM present WHERE target = ? AND bytes = ?", row.target, row.bytes)
            > 0
        )

    def count_unknown(self) -> int:
        """Return how many of the files noted by `note_present` belong to no done row."""
        known = "SELECT target FROM rows WHERE status = 'done'"
        return self._scalar(f"SELECT COUNT(*) FROM present WHERE target NOT IN ({known})")

    def rows(self, status: str) -> Iterator[LedgerRow]:
        """Yield all rows of that status, sorted by key."""
        return self._rows("WHERE status = ? ORDER BY key", status)

    def slowest(self, count: int) -> list[LedgerRow]:
        """Return the done rows that took longest, slowest first."""
        total = "seconds_read + seconds_restore + seconds_write"
        return list(self._rows(f"WHERE status = 'done' ORDER BY {total} DESC, key LIMIT ?", count))

    def failures(self, count: int) -> list[LedgerRow]:
        """Return the first failed rows, sorted by key."""
        return list(self._rows("WHERE status = 'failed' ORDER BY key LIMIT ?", count))

    def sample(self, count: int) -> list[LedgerRow]:
        """Return a random sample of the done rows."""
        return list(self._rows("WHERE status = 'done' ORDER BY RANDOM() LIMIT ?", count))

    def precision(self) -> str | None:
        """Return the precision of most results; None where there is none."""
        query = "SELECT precision FROM rows WHERE status = 'done' AND precision IS NOT NULL"
        found = self._mirror.execute(f"{query} GROUP BY precision ORDER BY COUNT(*) DESC LIMIT 1").fetchone()
        return None if found is None else str(found[0])

    def count(self, status: str | None = None) -> int:
        """Return how many inputs have a row, or a row of that status."""
        if status is None:
            return self._scalar("SELECT COUNT(*) FROM rows")
        return self._scalar("SELECT COUNT(*) FROM rows WHERE status = ?", status)

    def results(self) -> Iterator[LedgerRow]:
        """Yield all rows with a result, also an earlier one than that which failed, sorted by key."""
        return self._rows("WHERE sha256 IS NOT NULL ORDER BY key")

    def totals(self) -> dict[str, float]:
        """Return sums over the done rows: megapixels, source_bytes, bytes, and the seconds of each stage."""
        names = ("megapixels", "source_bytes", "bytes", "seconds_read", "seconds_restore", "seconds_write")
        sums = "SUM(1e-6 * width * height), " + ", ".join(f"SUM({name})" for name in names[1:])
        (values,) = self._mirror.execute(f"SELECT {sums} FROM rows WHERE status = 'done'")
        return {name: float(value or 0) for name, value in zip(names, values, strict=True)}

    def throughput(self, since: int, bins: int) -> list[tuple[float, int]]:
        """Return (start in seconds, photos finished) of `bins` equal spans; since: as `LedgerRow.finished`."""
        last = self._scalar("SELECT MAX(finished) FROM rows WHERE finished >= ?", since) or since
        width = max(last - since + 1, bins) / bins
        query = (
            "SELECT CAST((finished - ?) / ? AS INTEGER), COUNT(*) FROM rows WHERE finished >= ? GROUP BY 1"
        )
        counted = dict(self._mirror.execute(query, (since, width, since)))
        return [(i * width / 1000, counted.get(i, 0)) for i in range(bins)]

    def _rows(self, where: str, *values: Any) -> Iterator[LedgerRow]:
        cursor = self._mirror.execute(f"SELECT {_COLUMNS} FROM rows {where}", values)
        while found := cursor.fetchmany(ROWS_AT_ONCE):
            yield from (LedgerRow(**dict(zip(SCHEMA.names, row, strict=True))) for row in found)

    def _scalar(self, query: str, *values: Any) -> int:
        return self._mirror.execute(query, values).fetchone()[0]

    def _old_parts(self) -> list[str]:
        # Listing a local folder that does not exist would be an error.
        if not storage.exists(self.folder):
            return []
        return sorted(uri for uri, _ in storage.list_files(self.folder) if uri.endswith(".parquet"))

    def _write_part(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        columns = zip(*rows, strict=True)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
        with storage.writing(storage.join(self.folder, name)) as temporary:
            pq.write_table(pa.table(arrays, schema=SCHEMA), temporary, compression="zstd")


def _read(part: str) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows of a part in chunks; raises `UserError` where the file is not a part of a ledger."""
    file_system, path = storage.arrow_file_system(part)
    try:
        with storage.translated_errors(part, "read"), pq.ParquetFile(path, filesystem=file_system) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=SCHEMA.names):
                columns = batch.set_column(
                    batch.schema.get_field_index("finished"),
                    "finished",
                    batch["finished"].cast(pa.int64()),
                )
                if batch["key"].null_count:
                    raise KeyError("a row has no key")
                yield list(zip(*(columns[name].to_pylist() for name in SCHEMA.names), strict=True))
    except (pa.ArrowInvalid, KeyError) as error:
        raise UserError(
            f"{part} is not a ledger ({str(error).splitlines()[0]}): restore into another OUT, or delete it and "
            "give --overwrite"
        ) from error


def _is_sorted(generation: str) -> bool:
    return generation.startswith(_SORTED)


def now() -> int:
    """Return the time in the unit of `LedgerRow.finished`."""
    return int(time.time() * 1000)
