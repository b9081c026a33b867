"""Packs small files into large ones: their bytes unchanged, one after another, to be read by offset and length.

A store takes as long for a few kilobytes as for a megabyte, and minutes to list millions of objects; a few hundred
packed files are listed and copied at once. A packed file is named by the hash of its content, so building an index
again never changes a file that an older index points into.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from diffuir_core.errors import UserError
from diffuir_core.imaging import ImageError

from .. import storage
from ..storage import retry
from .index import IndexRow, read_image

SHARD_BYTES = 256 * 2**20
"""Size at which a packed file is complete, bytes."""
FILES_PER_SHARD = 50_000
"""Most files in a packed file, which bounds the rows that wait in memory for its name."""
READERS = 32
"""Files read at the same time."""
READ_AHEAD = 2 * READERS
"""Most rows whose files are read before their turn."""
SHARED_KEPT = 4096
"""Photos whose place is cached: several degraded ones, near each other in an index, share one clean one."""


@dataclass
class _Shard:
    """A packed file in the making; its URI is known once it is complete."""

    uri: str = ""


@dataclass
class _Place:
    """The place of one file: its bytes until they are written, then where they are in which shard."""

    data: Future[bytes] | None
    shard: _Shard | None = None
    offset: int = 0
    length: int = 0


@dataclass(frozen=True)
class _PendingRow:
    """A row and the place of each of its sides."""

    row: IndexRow
    places: dict[str, _Place]

    def packed(self) -> IndexRow:
        """Return the row with its sides in packed files, once these are complete."""
        changes: dict[str, Any] = {}
        for side, place in self.places.items():
            assert place.shard is not None
            changes[f"{side}_uri"] = place.shard.uri
            changes[f"{side}_offset"], changes[f"{side}_length"] = place.offset, place.length
        return replace(self.row, **changes)


def pack(rows: Iterable[IndexRow], folder: str, shard_bytes: int = SHARD_BYTES) -> Iterator[IndexRow]:
    """Yield the same rows pointing into packed files of about `shard_bytes`, which are written into `folder`.

    Raises `UserError` where a file can't be read or written.
    """
    folder = storage.absolute(folder)
    pending: list[_PendingRow] = []
    with tempfile.TemporaryDirectory(prefix="diffuir-pack-") as scratch:
        shard = _Writer(Path(scratch) / "shard")
        for row in _read_ahead(rows):
            for place in row.places.values():
                if place.shard is None:
                    shard.append(place)
            pending.append(row)
            if shard.length >= shard_bytes or shard.files >= FILES_PER_SHARD:
                shard.finish(folder)
                yield from (done.packed() for done in pending)
                pending.clear()
                shard = _Writer(Path(scratch) / "shard")
        shard.finish(folder)
        yield from (done.packed() for done in pending)


class _Writer:
    """Writes one packed file, on the local disk until it is complete."""

    def __init__(self, scratch: Path) -> None:
        self.files = 0
        self.length = 0
        self._scratch = scratch
        self._file = scratch.open("wb")
        self._digest = hashlib.sha256()
        self._shard = _Shard()

    def append(self, place: _Place) -> None:
        """Append the bytes of a file, and note where they are."""
        assert place.data is not None
        data = place.data.result()
        place.data, place.shard, place.offset, place.length = None, self._shard, self.length, len(data)
        with storage.translated_errors(str(self._scratch), "write"):
            self._file.write(data)
        self._digest.update(data)
        self.files += 1
        self.length += len(data)

    def finish(self, folder: str) -> None:
        """Move the file into `folder` under its name; nothing where it is empty."""
        with storage.translated_errors(str(self._scratch), "write"):
            self._file.close()
        if self.files:
            self._shard.uri = storage.join(folder, f"{self._digest.hexdigest()[:32]}.pack")
            with storage.writing(self._shard.uri) as temporary:
                shutil.move(self._scratch, temporary)


def _read(uri: str, offset: int | None, length: int | None) -> bytes:
    try:
        return retry(partial(read_image, uri, offset, length))
    except ImageError as error:
        raise UserError(f"{uri}: {error}") from error


def _read_ahead(rows: Iterable[IndexRow]) -> Iterator[_PendingRow]:
    """Yield the rows in order, with their files read ahead by threads; a file that rows share is read once."""
    known: LRUCache[tuple[str, int | None], _Place] = LRUCache(SHARED_KEPT)
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="pack")

    def place(uri: str, offset: int | None, length: int | None) -> _Place:
        if (uri, offset) not in known:
            known[uri, offset] = _Place(pool.submit(_read, uri, offset, length))
        return known[uri, offset]

    ahead: deque[_PendingRow] = deque()
    try:
        for row in rows:
            places = {}
            if row.degraded_uri is not None:
                places["degraded"] = place(row.degraded_uri, row.degraded_offset, row.degraded_length)
            if row.clean_uri is not None:
                places["clean"] = place(row.clean_uri, row.clean_offset, row.clean_length)
            ahead.append(_PendingRow(row, places))
            if len(ahead) > READ_AHEAD:
                yield ahead.popleft()
        yield from ahead
    finally:
        pool.shutdown(cancel_futures=True)
