"""The inputs of a restore and where the result of each goes, listed one by one in bounded memory.

    IN                              the inputs it stands for; the key of each
    a folder, s3://bucket/prefix    the photos below it, by their endings; the path below it
    a pattern, s3://bucket/*/a?.png the files it matches: * and ? within a name, ** across folders; the path below
                                    the last folder without a wildcard
    shards/*.tar, one.tar           the photos inside (WebDataset); the tar's key, then the path in it
    list.txt                        a path or a URI on each line that is not empty and does not begin with #; the
                                    absolute path or URI
    table.parquet                   the paths or URIs in its column `--column`; the absolute path or URI

Hidden files and folders that programs keep for themselves (`storage.is_hidden`) are skipped, and so are links that
lead out of a folder.
"""

from __future__ import annotations

import codecs
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from fsspec.utils import glob_translate

from diffuir_core.errors import UserError
from diffuir_core.imaging import FORMAT_OF_SUFFIX

from .. import storage
from ..storage import Entry
from .names import LIST_SUFFIXES, is_photo, result_format, result_name
from .refusals import TABLE_SUFFIX, TAR_SUFFIX, WILDCARD, check_folder

_HEADER_BYTES = 64 * 2**10
"""Bytes fetched of a tar at a time to find its next header."""
_ROWS_AT_ONCE = 4096
HIDDEN, NOT_CHOSEN, NO_ENDING, OTHER = "hidden", "not chosen", "without an ending", "of other kinds"
"""Kinds of files that are ignored, beside those named by their ending."""
OUTSIDE, SPECIAL = "links out of the folder", "links to nothing or special files"
MAX_KINDS = 1000
"""Most kinds of ignored files that are counted one by one."""
_LONGEST_ENDING = 12
"""Longest ending that is taken for a kind of file, characters; a dot may also stand in the middle of a name."""


@dataclass(frozen=True)
class Item:
    """One input: its key, what to read, and the name of its result below OUT."""

    key: str
    source: str
    """A path or URI."""
    target: str
    format: str | None = None
    """The format to write, one of `diffuir_core.imaging.FORMATS`; None keeps the photo's own."""
    size: int | None = None
    """Size in bytes; None where the listing does not say it."""
    version: str | None = None
    """ETag or time of the last change; None where the listing does not say it."""
    offset: int | None = None
    """For a member of a tar, where its `size` bytes begin in the tar."""
    reason: str | None = None
    """Why it can't be restored, where the listing alone shows it."""
    replaces: str | None = None
    """SHA-256 of an earlier result of this input, which the new one may replace; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Filter of inputs by their keys, and the column of a table of inputs."""

    include: tuple[str, ...] = ()
    """Patterns of the keys to restore; none for all. As in `aws s3`, * also matches /."""
    exclude: tuple[str, ...] = ()
    """Patterns of the keys to leave out."""
    column: str = "uri"
    """Column of a Parquet table that holds paths or URIs."""

    def takes(self, key: str) -> bool:
        """Whether the input with this key is to be restored."""
        included = not self.include or any(fnmatchcase(key, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(key, pattern) for pattern in self.exclude)


class Inputs:
    """The inputs at `source`, with results below `target`; can be iterated once.

    Raises `UserError` where there is no such source or where results would replace originals; during the
    iteration, where a listing fails or finds no photo.
    """

    def __init__(
        self, source: str, target: str, format: str | None = None, choice: Choice | None = None
    ) -> None:
        self.source = storage.absolute(source)
        self.target = storage.absolute(target)
        self.root: str | None = None
        """The folder that keys are relative to; None where they are whole URIs."""
        self.may_repeat = True
        """Whether two inputs may have the same key, or results of the same name; False for a folder."""
        self.ignored_kinds: Counter[str] = Counter()
        """Files and folders skipped so far, by kind: an ending such as ".xmp", "hidden", "not chosen", ..."""
        self._shown = source
        self._format = format.upper() if format else None
        self._choice = choice or Choice()
        self._find = self._finder()
        check_folder(source, target)

    @property
    def ignored(self) -> int:
        """Files and folders skipped so far."""
        return self.ignored_kinds.total()

    def __iter__(self) -> Iterator[Item]:
        found = False
        for item in self._find():
            # A folder that can't be listed is reported whatever was chosen: it may hold chosen inputs.
            if item.reason is not None or self._choice.takes(item.key):
                found = True
                format = result_format(self._format, item.target)
                yield replace(item, target=result_name(self._format, item.target), format=format)
            else:
                self._ignore(NOT_CHOSEN)
        if not found:
            endings = f"{' '.join(FORMAT_OF_SUFFIX)} and RAW (.dng .nef ...)"
            raise UserError(
                f"no photos in {self._shown} ({self.ignored} other files ignored): looked for {endings}"
            )

    def _ignore(self, kind: str) -> None:
        is_known = kind in self.ignored_kinds or len(self.ignored_kinds) < MAX_KINDS
        self.ignored_kinds[kind if is_known else OTHER] += 1

    def _finder(self) -> Callable[[], Iterator[Item]]:
        """Return the listing for this kind of source; raises for what can be refused before it is listed."""
        name = self.source.rpartition("/")[2]
        kind = name.lower()
        if WILDCARD.search(self.source) and not storage.exists(self.source):
            folder, matches = self._pattern()
            self._keep_apart(folder)
            return lambda: self._matching(folder, matches)
        if kind.endswith((*LIST_SUFFIXES, TABLE_SUFFIX, TAR_SUFFIX)) and storage.is_file(self.source):
            if _is_tar(name):
                self.root = self.source.rpartition("/")[0]
                return lambda: self._in_tar(storage.entry(self.source), name)
            return self._in_list if kind.endswith(LIST_SUFFIXES) else self._in_table
        if "://" in self.source or os.path.isdir(self.source):
            self._keep_apart(self.source)
            self.may_repeat = False
            return lambda: self._in_folder(self.source)
        if os.path.exists(self.source):
            raise UserError(f"{self._shown} is neither a photo nor a folder: give one of the two")
        raise UserError(f"{self._shown} does not exist: give a photo or a folder of photos")

    def _keep_apart(self, folder: str) -> None:
        """Raise `UserError` where results could replace inputs below `folder`, which becomes their root."""
        self.root = folder
        source, target = _real(folder), _real(self.target)
        if source == target or is_same_place(source, target):
            raise UserError(f"{self._shown} would be replaced by its own results: choose another OUT")
        if source.startswith(target.rstrip("/") + "/"):
            raise UserError(
                f"results could lie among the photos of {self._shown}, which is inside of OUT: choose another OUT"
            )

    def _pattern(self) -> tuple[str, Callable[[str], object]]:
        """Return the folder before the first part of a pattern with a wildcard, and the matching function."""
        parts = self.source.split("/")
        first = next(i for i, part in enumerate(parts) if WILDCARD.search(part))
        folder = "/".join(parts[:first]) or "/"
        if folder.endswith(":/"):
            raise UserError(
                f"{self._shown} names no bucket: write s3://bucket/PATTERN, with wildcards after the bucket only"
            )
        try:
            matches = re.compile(glob_translate(self.source)).match
        except (ValueError, re.error) as error:
            raise UserError(f"{self._shown} is not a valid pattern ({error}): use *, ? and **/") from error
        if set(parts[-1]) <= {"*"}:  # a last part * or ** stands for every photo and tar
            return folder, lambda uri: matches(uri) and (is_photo(uri.rpartition("/")[2]) or _is_tar(uri))
        return folder, matches

    # Each of these yields items whose target is still their key; `__iter__` makes it a name.

    def _in_folder(self, folder: str) -> Iterator[Item]:
        for item in self._files(folder):
            name = item.key.rpartition("/")[2]
            if item.reason is not None or is_photo(name):
                yield item
            else:
                self._ignore(_kind_of(name))

    def _matching(self, folder: str, matches: Callable[[str], object]) -> Iterator[Item]:
        for item in self._files(folder):
            if item.reason is None and not matches(item.source):
                continue
            if item.reason is None and _is_tar(item.key):
                yield from self._in_tar(Entry(item.source, item.size or 0, item.version or ""), item.key)
            else:
                yield item

    def _files(self, folder: str) -> Iterator[Item]:
        """Yield every file below `folder` that is neither hidden nor a result."""
        return self._in_store(folder) if "://" in folder else self._on_disk(folder)

    def _in_store(self, folder: str) -> Iterator[Item]:
        results = self.target + "/"
        for entry in storage.list_entries(folder):
            key = entry.uri.removeprefix(folder.rstrip("/") + "/")
            if storage.is_hidden(key):
                self._ignore(HIDDEN)
            elif not entry.uri.startswith(results):
                yield Item(key, entry.uri, key, None, entry.size, entry.version)

    def _on_disk(self, root: str) -> Iterator[Item]:
        real_root, results = os.path.realpath(root), os.path.realpath(self.target)
        waiting = [""]
        while waiting:
            below = waiting.pop()
            try:
                with os.scandir(os.path.join(root, below)) as entries:
                    for entry in entries:
                        key = f"{below}{entry.name}"
                        if entry.is_dir(follow_symlinks=False) and not storage.is_hidden(entry.name):
                            if os.path.join(real_root, key) != results:
                                waiting.append(f"{key}/")
                        elif isinstance(status := _status(entry, real_root), str):
                            self._ignore(status)
                        else:
                            version = str(status.st_mtime_ns)
                            yield Item(key, entry.path, key, None, status.st_size, version)
            except OSError as error:
                if not below:
                    message = f"{self._shown} cannot be listed ({error.strerror}): check its permissions"
                    raise UserError(message) from error
                reason = f"the folder cannot be listed ({error.strerror})"
                yield Item(below[:-1], os.path.join(root, below[:-1]), below[:-1], reason=reason)

    def _in_tar(self, tar: Entry, key: str) -> Iterator[Item]:
        """Yield the photos in a tar, found by its headers alone; each is later read at its offset."""
        with storage.open_file(tar.uri, block_size=_HEADER_BYTES) as file:
            try:
                with (
                    storage.translated_errors(tar.uri, "read"),
                    tarfile.open(fileobj=file, mode="r:") as opened,
                ):
                    while (member := opened.next()) is not None:
                        opened.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them in memory
                        path = member.name.removeprefix("./")
                        if member.isreg() and is_photo(path) and not storage.is_hidden(path):
                            name = f"{key}/{path}"
                            size, offset = member.size, member.offset_data
                            yield Item(name, tar.uri, name, None, size, tar.version, offset)
                        elif not member.isdir():
                            self._ignore(_kind_of(path) if member.isreg() else SPECIAL)
                    # tarfile takes a damaged header for the end; the real end is a block of zeros.
                    file.seek(opened.offset)
                    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                        raise tarfile.ReadError("it is damaged, or cut off")
            except tarfile.TarError as error:
                yield Item(key, tar.uri, key, reason=f"not all of this tar can be read ({error})")

    def _in_list(self) -> Iterator[Item]:
        with storage.translated_errors(self.source, "read"), storage.open_file(self.source) as file:
            for line in file:
                if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise UserError(f"{self._shown} is in UTF-16: save it as UTF-8")
                named = os.fsdecode(line.removeprefix(codecs.BOM_UTF8).strip())
                if named and not named.startswith("#"):
                    yield from self._named(named)

    def _in_table(self) -> Iterator[Item]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file_system, path = storage.arrow_file_system(self.source)
        column = self._choice.column
        try:
            with (
                storage.translated_errors(self.source, "read"),
                pq.ParquetFile(path, filesystem=file_system) as file,
            ):
                if column not in file.schema_arrow.names:
                    names = ", ".join(file.schema_arrow.names)
                    raise UserError(f"{self._shown} has no column {column!r}: set --column to one of {names}")
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                    for named in batch[column].to_pylist():
                        if named:
                            yield from self._named(os.fsdecode(named))
        except pa.ArrowInvalid as error:
            raise UserError(
                f"{self._shown} is not a Parquet table ({str(error).splitlines()[0]}): write it again"
            ) from error

    def _named(self, named: str) -> Iterator[Item]:
        """Yield one input of a list, whatever its ending; whether it exists shows when it is read."""
        try:
            if "\0" in named:
                raise UserError("it holds a zero byte, which no path can: correct the list")
            uri = storage.absolute(named)
        except UserError as error:
            shown = storage.without_credentials(named.replace("\0", "\N{REPLACEMENT CHARACTER}"))
            yield Item(shown, shown, shown, reason=str(error))
            return
        yield Item(uri, uri, uri.partition("://")[2] or uri.lstrip("/"))


def check_output(target: str | Path) -> None:
    """Raise `UserError` where no file can be written into the folder `target`, by writing a probe file."""
    folder = str(target)
    if "://" not in folder and os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"{folder} is a file: for the photos of a folder give a folder as OUT")
    try:
        storage.check_writable(folder)
    except storage.StoreError:
        raise
    except UserError as error:
        raise UserError(f"cannot write into {folder} ({error}): choose another OUT") from error


def _status(entry: os.DirEntry[str], root: str) -> os.stat_result | str:
    """Return the status of a file; its kind where it is hidden, gone, or a link that leads out of `root`."""
    if storage.is_hidden(entry.name):
        return HIDDEN
    try:
        if entry.is_symlink() and not os.path.realpath(entry.path).startswith(root.rstrip("/") + "/"):
            return OUTSIDE
        return entry.stat() if entry.is_file() else SPECIAL
    except OSError:
        return SPECIAL


def _kind_of(path: str) -> str:
    """Return the kind of an ignored file by its path."""
    ending = os.path.splitext(path)[1].lower()
    if storage.is_hidden(path):
        return HIDDEN
    if not ending:
        return NO_ENDING
    return ending if len(ending) <= _LONGEST_ENDING and " " not in ending else OTHER


def _is_tar(name: str) -> bool:
    return name.lower().endswith(TAR_SUFFIX)


def is_same_place(source: str, target: str) -> bool:
    """Whether two local paths lead to one file or folder: by links, a mount, or names that differ in case only."""
    are_here = (
        "://" not in source and "://" not in target and os.path.exists(source) and os.path.exists(target)
    )
    return are_here and os.path.samefile(source, target)


def _real(uri: str) -> str:
    return uri if "://" in uri else os.path.realpath(uri)
