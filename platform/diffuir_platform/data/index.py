"""The index: one Parquet file that says which photos there are, which belong together, and where they lie.

Columns: task, dataset, split, key; degraded_uri (null for clean photos alone) and clean_uri (null for degraded
ones without ground truth); width and height of the upright photo in pixels; preprocessing ("" or "equalise"); and
for photos in packed files (`packing.py`) the offset and length in bytes of each side. Rows come by data set, split
and key, so an index depends on the files alone and not on the order in which a store lists them.

Its fingerprint is the SHA-256 of the rows without the places: the same photos have the same fingerprint in a
folder, in a bucket and packed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffuir_core.errors import UserError

from .. import storage
from . import mat

ROWS_PER_GROUP = 10_000
"""Rows written, and read, at a time."""

EQUALISE = "equalise"
"""Preprocessing of rows whose degraded photo's histogram is equalised before the network sees it."""

FORMAT, FINGERPRINT = b"diffuir.index", b"diffuir.fingerprint"
VERSION = b"1"

SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("degraded_uri", pa.string()),
        pa.field("clean_uri", pa.string()),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("preprocessing", pa.string(), nullable=False),
        pa.field("degraded_offset", pa.int64()),
        pa.field("degraded_length", pa.int64()),
        pa.field("clean_offset", pa.int64()),
        pa.field("clean_length", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One pair, or one photo alone."""

    task: str
    dataset: str
    split: str
    key: str
    degraded_uri: str | None
    clean_uri: str | None
    width: int
    height: int
    preprocessing: str = ""
    degraded_offset: int | None = None
    degraded_length: int | None = None
    clean_offset: int | None = None
    clean_length: int | None = None


@dataclass(frozen=True)
class Index:
    """An index that is there: what it says of itself, and its rows, which are read as they are asked for."""

    uri: str
    fingerprint: str
    """64 hexadecimal digits: the same for the same photos, wherever they lie."""
    count: int
    """Rows."""

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows in order, ROWS_PER_GROUP at a time; columns: which of them, or all."""
        with storage.translated_errors(self.uri, "read"), _opened(self.uri) as file:
            yield from file.iter_batches(ROWS_PER_GROUP, columns=None if columns is None else list(columns))

    def rows(self) -> Iterator[Row]:
        """All rows in order."""
        for batch in self.batches():
            for values in batch.to_pylist():
                yield Row(**values)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows at once."""
        batches = list(self.batches(columns))
        schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
        return pa.Table.from_batches(batches, schema=schema)


def open_index(uri: str) -> Index:
    """The index at `uri`; raises UserError where there is none, or a Parquet file of another kind."""
    uri = storage.absolute(uri)
    with storage.translated_errors(uri, "read"), _opened(uri) as file:
        metadata = file.metadata.metadata or {}
        if metadata.get(FORMAT) != VERSION:
            raise UserError(f"{uri} is no index of this version: make it with diffuir index")
        return Index(uri, metadata[FINGERPRINT].decode(), file.metadata.num_rows)


def write_index(uri: str, rows: Iterable[Row]) -> Index:
    """Write rows, which come in the order of an index, as they come; the file appears whole, at the end."""
    uri = storage.absolute(uri)
    digest = hashlib.sha256()
    count = 0
    remaining = iter(rows)
    with storage.writing(uri) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        while group := list(islice(remaining, ROWS_PER_GROUP)):
            _digest(digest, group)
            count += len(group)
            columns = {name: [getattr(row, name) for row in group] for name in SCHEMA.names}
            writer.write_table(pa.table(columns, schema=SCHEMA), row_group_size=ROWS_PER_GROUP)
        writer.add_key_value_metadata({FORMAT: VERSION, FINGERPRINT: digest.hexdigest()})
    return Index(uri, digest.hexdigest(), count)


def fingerprint(rows: Iterable[Row]) -> str:
    """The fingerprint of an index of these rows."""
    digest = hashlib.sha256()
    _digest(digest, rows)
    return digest.hexdigest()


def read_image(uri: str, offset: int | None = None, length: int | None = None) -> bytes:
    """The bytes of one side of a row: a file, a part of a packed one, or a photo of a MATLAB file as PNG."""
    if offset is not None and length is not None:
        return storage.read_range(uri, offset, length)
    return mat.read_png(uri) if mat.is_element(uri) else storage.read_bytes(uri)


def _digest(digest: Any, rows: Iterable[Row]) -> None:
    for row in rows:
        sides = [row.degraded_uri is not None, row.clean_uri is not None]
        what = [row.task, row.dataset, row.split, row.key, *sides, row.width, row.height, row.preprocessing]
        digest.update(json.dumps(what).encode() + b"\n")


def _opened(uri: str) -> pq.ParquetFile:
    storage.exists(uri)  # pyarrow would take a store that does not answer for a file that is not there
    file_system, path = storage.arrow_file_system(uri)
    try:
        return pq.ParquetFile(path, filesystem=file_system)
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri} is no Parquet file: make an index with diffuir index") from error
