"""Sorted pairs and mismatches from a listing of files, in bounded memory whatever their number.

The names go into a SQLite database in a temporary file, which sorts them and finds counterparts; only a few names
are in memory at a time.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

from diffuir_core.errors import UserError
from diffuir_core.imaging import FORMAT_OF_SUFFIX

from .. import storage
from ..text import is_utf8
from . import mat
from .layouts import Part, key_of

INSERTED_AT_ONCE = 10_000
"""Rows inserted into the database at a time."""

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE files (
    split INT, side TEXT, key TEXT, path TEXT, size INT, twin TEXT, PRIMARY KEY (split, side, key, path)
) WITHOUT ROWID;
CREATE INDEX twins ON files (split, twin);
CREATE TABLE mismatches (split INT, path TEXT, reason TEXT, PRIMARY KEY (split, path)) WITHOUT ROWID;
"""
_CLEAN_ALONE = """
INSERT OR IGNORE INTO mismatches
SELECT split, path, 'there is no degraded file for the key ' || key FROM files AS clean
WHERE split = ? AND side = 'clean'
    AND NOT EXISTS (SELECT 1 FROM files WHERE split = clean.split AND twin = clean.key)
"""


@dataclass(frozen=True)
class File:
    """One side of a pair: its path below ROOT and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class Candidate:
    """Files that belong together by their names; one side is None in parts without pairs."""

    part: Part
    key: str
    degraded: File | None
    clean: File | None


@dataclass(frozen=True)
class Mismatch:
    """A file (its path below ROOT) without a place in the index, and the reason."""

    part: Part
    path: str
    reason: str


@contextmanager
def translated_database_errors() -> Iterator[None]:
    """Turn errors of a `Matcher`'s database into a `UserError` about the disk that it is on."""
    try:
        yield
    except sqlite3.Error as error:
        where = f"can't keep the names of the files in {tempfile.gettempdir()} ({error})"
        raise UserError(f"{where}: make room there, or name another folder with TMPDIR") from error


class Matcher:
    """Sorts and matches the names of a data set's files; a context manager with a temporary database.

    Parts whose listing does not exist are left out. Several parts of one split are alternative places of its
    files, and give candidates and mismatches of one split.
    """

    def __init__(self, root: str, parts: Sequence[Part]) -> None:
        self.root = root
        name = root.rpartition("/")[2]
        # Templates may begin with ROOT's own name, unless ROOT holds a folder of that name: where ROOT is called
        # clean, clean/clean and clean/degraded are the two sides, and not both the clean one.
        self._root_name = None if storage.is_folder(storage.join(root, name)) else name
        listings = {part: self._read_listing(part) for part in parts}
        self._listings = listings
        self._parts = [part for part in parts if part.listing is None or listings[part] is not None]
        by_split = {(part.dataset, part.split): part for part in self._parts}
        self._splits = [by_split[name] for name in sorted(by_split)]
        self._number = {name: number for number, name in enumerate(sorted(by_split))}
        self.ignored = 0
        """Image files in no place that a part looks at."""
        self._folder = tempfile.TemporaryDirectory(prefix="diffuir-index-")
        self._names = sqlite3.connect(Path(self._folder.name) / "names.db")
        self._names.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._names.close()
        self._folder.cleanup()

    def add(self, files: Iterable[tuple[str, int]]) -> None:
        """Add files as (path below ROOT, size in bytes), in any order."""
        rows: list[tuple[object, ...]] = []
        for path, size in files:
            rows += self._rows(path, size)
            if len(rows) >= INSERTED_AT_ONCE:
                self._insert(rows)
                rows = []
        self._insert(rows)

    def candidates(self) -> Iterator[Candidate]:
        """Yield matching files, sorted by data set, split and key, and note the others as mismatches."""
        for number, part in enumerate(self._splits):
            first = part.sides[0][0]
            files = self._names.execute(
                "SELECT key, path, size, twin FROM files WHERE split = ? AND side = ? ORDER BY key, path",
                (number, first),
            )
            for key, group in groupby(files, key=lambda row: row[0]):
                rows = list(group)
                if len(rows) > 1:
                    for _, path, _, _ in rows:
                        self.add_mismatch(
                            part, path, f"{len(rows)} {first} files have the key {key}: keep one"
                        )
                    continue
                _, path, size, twin = rows[0]
                file = File(path, size)
                if not part.is_unpaired:
                    clean = self._find_clean(part, path, twin)
                    if clean is not None:
                        yield Candidate(part, key, file, clean)
                else:
                    yield Candidate(part, key, *((file, None) if first == "degraded" else (None, file)))
            self._note_unmatched(number, part)

    def add_mismatch(self, part: Part, path: str, reason: str) -> None:
        """Note a file that has no place in the index; the first reason for a file is kept."""
        self._names.execute(
            "INSERT OR IGNORE INTO mismatches VALUES (?, ?, ?)", (self._split_number(part), path, reason)
        )

    def mismatches(self) -> Iterator[Mismatch]:
        """Yield the mismatches, sorted by data set, split and path; complete once all candidates are taken."""
        found = self._names.execute("SELECT split, path, reason FROM mismatches ORDER BY split, path")
        return (Mismatch(self._splits[number], path, reason) for number, path, reason in found)

    def _insert(self, rows: list[tuple[object, ...]]) -> None:
        self._names.executemany("INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _rows(self, path: str, size: int) -> list[tuple[object, ...]]:
        """Return a row of the database for each part and side that has the file."""
        stem, ending = os.path.splitext(path)
        image = ending.lower() in FORMAT_OF_SUFFIX
        if not (image or ending == ".mat") or storage.is_hidden(path):
            return []
        rows: list[tuple[object, ...]] = []
        taken = False
        for part in self._parts:
            for side, template in part.sides:
                key = self._key(template, stem) if image != bool(part.arrays) else None
                if key is None or (side == "degraded" and not self._is_listed(part, key)):
                    continue
                taken = True
                if not is_utf8(path):
                    shown = path.encode(errors="surrogateescape").decode(errors="replace")
                    self.add_mismatch(part, shown, "its name is not UTF-8: rename it")
                    continue
                # Unpaired, a.jpg and a.png are two photos; in a pair, each may match the other side's a.
                for each_key, place in self._keys(
                    part, side, key + ending if part.is_unpaired else key, path
                ):
                    twin = part.twin(each_key) if side == "degraded" and not part.is_unpaired else None
                    rows.append((self._split_number(part), side, each_key, place, size, twin))
        self.ignored += image and not taken
        return rows

    def _keys(self, part: Part, side: str, key: str, path: str) -> Iterator[tuple[str, str]]:
        """Yield (key, path) of the photos in a file: the file itself, or each photo of a MATLAB file."""
        if part.arrays is None:
            yield key, path
            return
        array = part.arrays[0 if side == "degraded" else 1]
        for number, element in enumerate(mat.elements(storage.join(self.root, path), array)):
            yield f"{number:04d}", path + element

    def _find_clean(self, part: Part, degraded: str, key: str) -> File | None:
        """Return the one clean file with that key; where there are none or two, note `degraded` as a mismatch."""
        files = self._files_with_key(part, "clean", key)
        if len(files) == 1:
            return files[0]
        reason = f"two clean files have its key {key}: keep one" if files else f"there is no clean file {key}"
        self.add_mismatch(part, degraded, reason)
        return None

    def _note_unmatched(self, number: int, part: Part) -> None:
        """Note clean files without a degraded one, and files that a listing names but that do not exist."""
        if not part.is_unpaired and not part.spare_clean:
            self._names.execute(_CLEAN_ALONE, (number,))
        for key, path in sorted((self._listings[part] or {}).items()):
            if not self._files_with_key(part, "degraded", key):
                self.add_mismatch(part, path, f"{part.listing} names it, but it does not exist")

    def _files_with_key(self, part: Part, side: str, key: str) -> list[File]:
        found = self._names.execute(
            "SELECT path, size FROM files WHERE split = ? AND side = ? AND key = ? LIMIT 2",
            (self._split_number(part), side, key),
        )
        return [File(*row) for row in found]

    def _read_listing(self, part: Part) -> dict[str, str] | None:
        """Read {degraded key: degraded path} from the part's listing; None where it has none or there is none."""
        if part.listing is None:
            return None
        uri = storage.join(self.root, part.listing)
        if not storage.exists(uri):
            return None
        listed = {}
        for number, line in enumerate(storage.read_bytes(uri).decode("utf-8", "replace").splitlines(), 1):
            if not line.strip():
                continue
            clean, degraded = ([*line.split(), "", ""])[:2]
            keys = [
                self._key(template, os.path.splitext(path)[0])
                for (_, template), path in zip(part.sides, (degraded, clean), strict=True)
            ]
            if keys[0] is None or part.twin(keys[0]) != keys[1]:
                what = f"a pair of {part.dataset} (CLEAN DEGRADED, paths below ROOT)"
                raise UserError(f"line {number} of {uri} is not {what}: correct it")
            listed[keys[0]] = degraded
        return listed

    def _key(self, template: str, stem: str) -> str | None:
        """Return the key of a path without its ending, with a template from ROOT or from ROOT's own name on."""
        key = key_of(template, stem)
        return (
            key
            if key is not None or self._root_name is None
            else key_of(template, f"{self._root_name}/{stem}")
        )

    def _split_number(self, part: Part) -> int:
        return self._number[part.dataset, part.split]

    def _is_listed(self, part: Part, key: str) -> bool:
        listing = self._listings[part]
        return listing is None or key in listing
