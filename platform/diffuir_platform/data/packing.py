"""Small files into large ones: their bytes as they are, one after another, to be read by offset and length.

A store answers a request for a few kilobytes as slowly as one for a megabyte, and lists millions of objects in
minutes; a few hundred packed files are listed and copied at once. A packed file is named after its content, so
making an index again never changes a file that an older one points into.
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

from .. import storage
from ..storage import retry
from .index import Row, read_image

SHARD_BYTES = 256 * 2**20
FILES_PER_SHARD = 50_000
"""Rows wait for the name of their packed file; this bounds how many."""
READERS = 32
READ_AHEAD = 2 * READERS
"""Rows whose files are read before their turn."""
SHARED_KEPT = 4096
"""Photos remembered: several degraded ones, near each other in the order of an index, share one clean one."""


@dataclass
class _Shard:
    """A packed file that is being made; its URI is known when it is whole."""

    uri: str = ""


@dataclass
class _Place:
    """Where one file goes: its bytes until they are written, and then the shard that they are in."""

    data: Future[bytes] | None
    shard: _Shard | None = None
    offset: int = 0
    length: int = 0


@dataclass(frozen=True)
class _Waiting:
    """A row with the place of each of its sides."""

    row: Row
    places: dict[str, _Place]

    def packed(self) -> Row:
        changes: dict[str, Any] = {}
        for side, place in self.places.items():
            assert place.shard is not None
            changes[f"{side}_uri"] = place.shard.uri
            changes[f"{side}_offset"], changes[f"{side}_length"] = place.offset, place.length
        return replace(self.row, **changes)


def pack(rows: Iterable[Row], folder: str, shard_bytes: int = SHARD_BYTES) -> Iterator[Row]:
    """The same rows, pointing into packed files of about `shard_bytes` that are written into `folder` on the way.

    Raises UserError as reading and writing do.
    """
    folder = storage.absolute(folder)
    waiting: list[_Waiting] = []
    with tempfile.TemporaryDirectory(prefix="diffuir-pack-") as scratch:
        shard = _Writer(Path(scratch) / "shard")
        for one in _read_ahead(rows):
            for place in one.places.values():
                if place.shard is None:
                    shard.append(place)
            waiting.append(one)
            if shard.length >= shard_bytes or shard.files >= FILES_PER_SHARD:
                shard.finish(folder)
                yield from (done.packed() for done in waiting)
                waiting.clear()
                shard = _Writer(Path(scratch) / "shard")
        shard.finish(folder)
        yield from (done.packed() for done in waiting)


class _Writer:
    """One packed file in the making, on the local disk."""

    def __init__(self, scratch: Path) -> None:
        self.files = 0
        self.length = 0
        self._scratch = scratch
        self._file = scratch.open("wb")
        self._digest = hashlib.sha256()
        self._shard = _Shard()

    def append(self, place: _Place) -> None:
        assert place.data is not None
        data = place.data.result()
        place.data, place.shard, place.offset, place.length = None, self._shard, self.length, len(data)
        with storage.translated_errors(str(self._scratch), "write"):
            self._file.write(data)
        self._digest.update(data)
        self.files += 1
        self.length += len(data)

    def finish(self, folder: str) -> None:
        """Give the file its name in `folder`; nothing where it is empty."""
        with storage.translated_errors(str(self._scratch), "write"):
            self._file.close()
        if self.files:
            self._shard.uri = storage.join(folder, f"{self._digest.hexdigest()[:32]}.pack")
            with storage.writing(self._shard.uri) as temporary:
                shutil.move(self._scratch, temporary)


def _read_ahead(rows: Iterable[Row]) -> Iterator[_Waiting]:
    """The rows in order, their files being read by several threads before their turn; a shared one once."""
    known: LRUCache[tuple[str, int | None], _Place] = LRUCache(SHARED_KEPT)
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="pack")

    def place(uri: str, offset: int | None, length: int | None) -> _Place:
        if (uri, offset) not in known:
            known[uri, offset] = _Place(pool.submit(retry, partial(read_image, uri, offset, length)))
        return known[uri, offset]

    ahead: deque[_Waiting] = deque()
    try:
        for row in rows:
            places = {}
            if row.degraded_uri is not None:
                places["degraded"] = place(row.degraded_uri, row.degraded_offset, row.degraded_length)
            if row.clean_uri is not None:
                places["clean"] = place(row.clean_uri, row.clean_offset, row.clean_length)
            ahead.append(_Waiting(row, places))
            if len(ahead) > READ_AHEAD:
                yield ahead.popleft()
        yield from ahead
    finally:
        pool.shutdown(cancel_futures=True)
