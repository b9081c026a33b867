"""The ledger of an output: one row for each input, in Parquet below `_diffuir/ledger/`.

A run appends a part every so often, after the results that it tells of are written, so that a part never promises
what is not there. At its end all parts become one sorted set with one row for each input. While a run goes on, its
process mirrors the ledger in a SQLite file on its own disk: what is looked up, counted and sorted there never has
to fit into memory.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq

from diffuir_core.errors import UserError

from .. import storage
from ..text import is_utf8

FOLDER = "ledger"
ROWS_OF_A_PART = 10_000
"""After which a part is written, or after SECONDS_OF_A_PART: what a killed run at most does again."""
SECONDS_OF_A_PART = 20.0
SECONDS_OF_THE_FIRST_PART = 0.5
"""Each one after it waits twice as long, so that a run that is killed soon has something to go on from."""
ROWS_AT_ONCE = 10_000

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
"""key: of the input, below IN. status: done or failed, with the reason. source, offset, source_bytes,
source_version: the file that was read (ETag or time of change), or the member of a tar. target: below OUT. bytes,
sha256: of the result. attempt: how often it was tried. settings: the fingerprint of the settings of the run."""

_SQL_TYPES = {pa.string(): "TEXT", pa.float32(): "REAL"}
_COLUMNS = ", ".join(f'"{name}"' for name in SCHEMA.names)
_PLACES = ", ".join("?" for _ in SCHEMA.names)
_NEWEST = (
    f"INSERT INTO rows ({_COLUMNS}) VALUES ({_PLACES}) ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f'"{name}" = excluded."{name}"' for name in SCHEMA.names if name != "key")
    + " WHERE excluded.finished >= rows.finished"
)
_RAW = "%raw/"
_SORTED = "sorted-"
"""What the names of the parts of a set begin with that is sorted and has one row for each input."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the ledger; SCHEMA says what its columns mean. Text is as `as_text` gives it."""

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
    """Milliseconds since 1970, UTC."""
    settings: str = ""


assert {field.name for field in fields(Row)} == set(SCHEMA.names)


_values = attrgetter(*SCHEMA.names)


def as_text(name: str) -> str:
    """A name as text that Parquet and SQLite take: names on disk may hold bytes that are no text (PEP 383)."""
    if name.startswith(_RAW) or not is_utf8(name):
        return _RAW + quote(os.fsencode(name))
    return name


def from_text(text: str) -> str:
    """The name that `as_text` made `text` of."""
    return os.fsdecode(unquote_to_bytes(text.removeprefix(_RAW))) if text.startswith(_RAW) else text


class Ledger:
    """The ledger in the folder `folder` of an output; a context manager, for one process at a time.

    Raises `UserError` where the folder holds what is no ledger.
    """

    def __init__(self, folder: str) -> None:
        self.folder = storage.join(folder, FOLDER)
        self._name = uuid.uuid4().hex[:12]
        self._parts = 0
        self._is_changed = False
        """Whether the mirror has fewer rows than the parts."""
        self._buffer: list[Row] = []
        self._written = time.monotonic()
        self._pause = SECONDS_OF_THE_FIRST_PART
        self._scratch = tempfile.TemporaryDirectory(prefix="diffuir-ledger-")
        self._mirror = sqlite3.connect(Path(self._scratch.name) / "mirror.sqlite", isolation_level=None)
        columns = ", ".join(f'"{f.name}" {_SQL_TYPES.get(f.type, "INTEGER")}' for f in SCHEMA)
        # Scratch: it is made anew from the parts, so nothing of it has to survive.
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

    def __exit__(self, *_: object) -> None:
        self._mirror.close()
        self._scratch.cleanup()

    def load(self) -> int:
        """Mirror the parts that are there; of several rows for one input the newest counts. Returns how many."""
        for part in self._old_parts():
            for rows in _read(part):
                self._mirror.executemany(_NEWEST, rows)
        return self.count()

    def add(self, row: Row) -> None:
        """Enter what came of one input, after its result is written."""
        self._buffer.append(row)
        since = time.monotonic() - self._written
        if len(self._buffer) >= ROWS_OF_A_PART or since > min(self._pause, SECONDS_OF_A_PART):
            self.flush()

    def flush(self) -> None:
        """Write what was entered since the last part as a part."""
        if self._buffer:
            self._write_buffer()
        # Not before the write: a store that takes longer than the pause would get a part for each row.
        self._written = time.monotonic()

    def _write_buffer(self) -> None:
        rows = [_values(row) for row in self._buffer]
        self._write_part(f"part-{self._name}-{self._parts:06d}.parquet", rows)
        self._parts += 1
        self._pause = min(2 * self._pause, SECONDS_OF_A_PART)
        self._mirror.execute("BEGIN")
        self._mirror.executemany(f"INSERT OR REPLACE INTO rows ({_COLUMNS}) VALUES ({_PLACES})", rows)
        self._mirror.execute("COMMIT")
        self._buffer.clear()

    def compact(self) -> None:
        """Make all parts one sorted set with one row for each input. Killed on the way, it can be done again."""
        self.flush()
        old = self._old_parts()
        generations = {part.rpartition("/")[2].rpartition("-")[0] for part in old}
        if not self._is_changed and len(generations) <= 1 and all(map(_is_sorted, generations)):
            return
        prefix = f"{_SORTED}{uuid.uuid4().hex[:12]}"
        cursor = self._mirror.execute(f"SELECT {_COLUMNS} FROM rows ORDER BY key")
        for number in itertools.count():
            if not (rows := cursor.fetchmany(ROWS_OF_A_PART)):
                break
            self._write_part(f"{prefix}-{number:06d}.parquet", rows)
        for part in old:
            storage.remove_file(part)
        self._is_changed = False

    def clear(self) -> None:
        """Remove the ledger."""
        storage.remove_folder(self.folder)
        self._mirror.execute("DELETE FROM rows")

    def forget_unlisted_failures(self) -> None:
        """Drop the failed rows of inputs that are there no more, once a listing is complete."""
        unlisted = "status = 'failed' AND key NOT IN (SELECT key FROM listed)"
        self._is_changed |= self._mirror.execute(f"DELETE FROM rows WHERE {unlisted}").rowcount > 0

    def claim(self, names: Sequence[tuple[str, str]]) -> list[bool]:
        """For each (key, target) of a listing whether it is the first of that key and of that target."""
        self._mirror.execute("BEGIN")
        first = [
            self._mirror.execute("INSERT OR IGNORE INTO listed VALUES (?, ?)", name).rowcount > 0
            for name in names
        ]
        self._mirror.execute("COMMIT")
        return first

    def is_listed(self, key: str) -> bool:
        """Whether a listing has had this key."""
        return self._one("SELECT COUNT(*) FROM listed WHERE key = ?", key) > 0

    def standing(self, keys: Sequence[str]) -> dict[str, Row]:
        """The rows of those of `keys` that have one; flushed ones only."""
        places = ", ".join("?" for _ in keys)
        return {row.key: row for row in self._rows(f"WHERE key IN ({places})", *keys)}

    def note_present(self, targets: Iterable[tuple[str, int]]) -> None:
        """Remember which results are there, and of how many bytes; then `is_present` tells."""
        self._mirror.execute("BEGIN")
        self._mirror.executemany("INSERT OR REPLACE INTO present VALUES (?, ?)", targets)
        self._mirror.execute("COMMIT")

    def is_present(self, row: Row) -> bool:
        """Whether the result that `row` tells of was there, as long as it says."""
        return (
            self._one("SELECT COUNT(*) FROM present WHERE target = ? AND bytes = ?", row.target, row.bytes)
            > 0
        )

    def count_unknown(self) -> int:
        """How many of those that are present no done row tells of."""
        known = "SELECT target FROM rows WHERE status = 'done'"
        return self._one(f"SELECT COUNT(*) FROM present WHERE target NOT IN ({known})")

    def rows(self, status: str) -> Iterator[Row]:
        """All rows of that status, by their keys."""
        return self._rows("WHERE status = ? ORDER BY key", status)

    def slowest(self, count: int) -> list[Row]:
        """The done ones that took the longest, the slowest first."""
        total = "seconds_read + seconds_restore + seconds_write"
        return list(self._rows(f"WHERE status = 'done' ORDER BY {total} DESC, key LIMIT ?", count))

    def failures(self, count: int) -> list[Row]:
        """The first of the failed ones."""
        return list(self._rows("WHERE status = 'failed' ORDER BY key LIMIT ?", count))

    def sample(self, count: int) -> list[Row]:
        """Some of the done ones, any."""
        return list(self._rows("WHERE status = 'done' ORDER BY RANDOM() LIMIT ?", count))

    def count(self, status: str | None = None) -> int:
        """How many inputs have a row, or a row of that status."""
        if status is None:
            return self._one("SELECT COUNT(*) FROM rows")
        return self._one("SELECT COUNT(*) FROM rows WHERE status = ?", status)

    def totals(self) -> dict[str, float]:
        """Sums over the done ones: megapixels, source_bytes, bytes, and seconds of each stage."""
        names = ("megapixels", "source_bytes", "bytes", "seconds_read", "seconds_restore", "seconds_write")
        sums = "SUM(1e-6 * width * height), " + ", ".join(f"SUM({name})" for name in names[1:])
        (values,) = self._mirror.execute(f"SELECT {sums} FROM rows WHERE status = 'done'")
        return {name: float(value or 0) for name, value in zip(names, values, strict=True)}

    def throughput(self, since: int, bins: int) -> list[tuple[float, int]]:
        """(seconds since `since`, photos finished) in `bins` equal spans; since: as `Row.finished`."""
        last = self._one("SELECT MAX(finished) FROM rows WHERE finished >= ?", since) or since
        width = max(last - since + 1, bins) / bins
        query = (
            "SELECT CAST((finished - ?) / ? AS INTEGER), COUNT(*) FROM rows WHERE finished >= ? GROUP BY 1"
        )
        counted = dict(self._mirror.execute(query, (since, width, since)))
        return [(i * width / 1000, counted.get(i, 0)) for i in range(bins)]

    def _rows(self, where: str, *values: Any) -> Iterator[Row]:
        cursor = self._mirror.execute(f"SELECT {_COLUMNS} FROM rows {where}", values)
        while found := cursor.fetchmany(ROWS_AT_ONCE):
            yield from (Row(**dict(zip(SCHEMA.names, row, strict=True))) for row in found)

    def _one(self, query: str, *values: Any) -> int:
        return self._mirror.execute(query, values).fetchone()[0]

    def _old_parts(self) -> list[str]:
        # A prefix or a folder without a ledger: a local one would be an error to list.
        if not storage.exists(self.folder):
            return []
        return sorted(uri for uri, _ in storage.list_files(self.folder) if uri.endswith(".parquet"))

    def _write_part(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        columns = zip(*rows, strict=True)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
        with storage.writing(storage.join(self.folder, name)) as temporary:
            pq.write_table(pa.table(arrays, schema=SCHEMA), temporary, compression="zstd")


def _read(part: str) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a part in pieces; raises `UserError` where it is none."""
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
            f"{part} is no part of a ledger ({str(error).splitlines()[0]}): restore into another OUT, or --restart"
        ) from error


def _is_sorted(generation: str) -> bool:
    return generation.startswith(_SORTED)


def results_in(output: str) -> Iterator[tuple[str, int]]:
    """(name, bytes) of every file of an output but its own records."""
    prefix = output.rstrip("/") + "/"
    for uri, size in storage.list_files(output):
        name = uri.removeprefix(prefix)
        if not name.startswith(f"{storage.OWN_FOLDER}/"):
            yield name, size


def now() -> int:
    """The time, as `Row.finished` has it."""
    return int(time.time() * 1000)
