"""The index: one Parquet file that lists photos, which of them are pairs, and where they are.

Columns: task, dataset, split, key; degraded_uri (null for clean photos alone) and clean_uri (null for degraded
photos without ground truth); width and height of the upright photo in pixels; preprocessing ("" or "equalise");
and for photos in packed files (`packing.py`) the offset and length in bytes of each side. Rows are sorted by data
set, split and key, so an index depends on the files alone and not on the order in which a store lists them.

The fingerprint of an index is the SHA-256 of its rows without URIs, offsets and lengths: the same photos have the
same fingerprint in a folder, in a bucket and packed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffuir_core.errors import UserError
from diffuir_core.imaging import DEFAULT_LIMITS, Limits, OverLimitError, check_bytes

from .. import storage
from . import mat

ROWS_PER_GROUP = 10_000
"""Rows written or read at a time."""

EQUALISE = "equalise"
"""Value of `preprocessing` for photos whose histogram is equalised before the network sees them."""

FORMAT, FINGERPRINT, APART_FROM = b"diffuir.index", b"diffuir.fingerprint", b"diffuir.apart_from"
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
class IndexRow:
    """One row of an index: a pair, or one photo alone; the module's docstring describes the columns."""

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
    """An index on disk or in a store; its rows are read on demand."""

    uri: str
    fingerprint: str
    """64 hexadecimal digits, the same for the same photos wherever they are."""
    count: int
    """Number of rows."""
    apart_from: tuple[str, ...] = ()
    """Fingerprints of the test indexes of which no photo is in this one."""

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order, ROWS_PER_GROUP at a time; columns: names of those to read, None for all."""
        with storage.translated_errors(self.uri, "read"), _opened(self.uri) as file:
            yield from file.iter_batches(ROWS_PER_GROUP, columns=None if columns is None else list(columns))

    def rows(self) -> Iterator[IndexRow]:
        """Yield all rows in order."""
        for batch in self.batches():
            for values in batch.to_pylist():
                yield IndexRow(**values)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows as one table; columns: as for `batches`."""
        batches = list(self.batches(columns))
        schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
        return pa.Table.from_batches(batches, schema=schema)


def open_index(uri: str) -> Index:
    """Open the index at `uri`; raises `UserError` where there is none, or a file of another kind."""
    uri = storage.absolute(uri)
    with storage.translated_errors(uri, "read"), _opened(uri) as file:
        metadata = file.metadata.metadata or {}
        if metadata.get(FORMAT) != VERSION:
            raise UserError(f"{uri} is not an index of this version: make it with diffuir index")
        apart_from = tuple(metadata.get(APART_FROM, b"").decode().split())
        return Index(uri, metadata[FINGERPRINT].decode(), file.metadata.num_rows, apart_from)


def write_index(uri: str, rows: Iterable[IndexRow], apart_from: Sequence[str] = ()) -> Index:
    """Write rows, already sorted as in an index, as they arrive; the file appears whole at the end.

    apart_from: as in `Index`.
    """
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
        facts = {FORMAT: VERSION, FINGERPRINT: digest.hexdigest(), APART_FROM: " ".join(apart_from)}
        writer.add_key_value_metadata(facts)
    return Index(uri, digest.hexdigest(), count, tuple(apart_from))


def fingerprint(rows: Iterable[IndexRow]) -> str:
    """Return the fingerprint of an index of these rows."""
    digest = hashlib.sha256()
    _digest(digest, rows)
    return digest.hexdigest()


def read_image(
    uri: str, offset: int | None = None, length: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> bytes:
    """Return the bytes of a side of a row: a file, a part of a packed file, or a MATLAB file's photo as PNG.

    Raises `ImageError` for an empty file and, without reading it, for one with more bytes than `limits`
    allow.
    """
    if offset is not None and length is not None:
        check_bytes(length, limits)
        return storage.read_range(uri, offset, length)
    if mat.is_element(uri):
        return mat.read_png(uri)
    if not storage.is_remote(uri):
        check_bytes(storage.entry(uri).size, limits)
        return storage.read_bytes(uri)
    data = storage.read_head(uri, limits.max_bytes + 1)  # one request, where the size would be another
    check_bytes(len(data) if len(data) <= limits.max_bytes else storage.entry(uri).size, limits)
    return data


@contextmanager
def photo_limits(max_pixels: int) -> Iterator[Limits]:
    """Limits for photos of up to `max_pixels`; the error of a larger one in the block names the setting."""
    try:
        yield Limits.for_pixels(max_pixels)
    except OverLimitError as error:
        raise OverLimitError(f"{error}: raise max_pixels") from error


def _digest(digest: Any, rows: Iterable[IndexRow]) -> None:
    for row in rows:
        sides = [row.degraded_uri is not None, row.clean_uri is not None]
        what = [row.task, row.dataset, row.split, row.key, *sides, row.width, row.height, row.preprocessing]
        digest.update(json.dumps(what).encode() + b"\n")


def _opened(uri: str) -> pq.ParquetFile:
    storage.exists(uri)  # raises if the store does not answer, which pyarrow takes for a missing file
    file_system, path = storage.arrow_file_system(uri)
    try:
        return pq.ParquetFile(path, filesystem=file_system)
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri} is not a Parquet file: make an index with diffuir index") from error
