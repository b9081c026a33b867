"""Builds an index: lists the files, matches them by the layout's rule, reads their headers, writes the rows."""

from __future__ import annotations

import json
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import TypeVar

from cachetools import LRUCache

from diffuir_core.errors import UserError
from diffuir_core.imaging import ImageError, TooLargeError, check_bytes, inspect

from .. import storage
from ..storage import retry
from ..text import is_utf8, one_line, size_text
from . import mat
from .index import EQUALISE, IndexRow, open_index, photo_limits, write_index
from .layouts import Layout, find_layout, with_names
from .matching import Candidate, File, Matcher, translated_database_errors
from .overlap import TestPhotos, read_clean
from .packing import pack
from .settings import IndexOptions

READERS = 32
"""Headers read at the same time, since a store answers many requests at once but each one slowly."""
READ_AHEAD = 8 * READERS
"""Most files whose headers are read before their turn."""
SIZES_KEPT = 4096
"""Clean photos whose size is cached: several degraded ones, near each other in order, share one."""
SHOWN_AT_MOST = 10
"""Most mismatches that a summary names."""

Split = tuple[str, str, str]
"""(task, data set, split)"""
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass
class Counts:
    """Counts of one split."""

    pairs: int = 0
    """Rows with both sides."""
    unpaired: int = 0
    """Rows with one side."""
    mismatched: int = 0
    """Files without a place in the index."""
    first_mismatch: tuple[str, str] = ("", "")
    """(path below ROOT, reason) of one of them."""

    @property
    def mismatched_share(self) -> float:
        """Share of mismatched files among all rows and mismatches, [0, 1]."""
        return self.mismatched / (self.pairs + self.unpaired + self.mismatched or 1)


@dataclass
class IndexSummary:
    """Summary of building an index."""

    uri: str
    """The index."""
    fingerprint: str = ""
    """Fingerprint of the index, 64 hexadecimal digits."""
    splits: dict[Split, Counts] = field(default_factory=dict)
    """Counts of each split."""
    ignored: int = 0
    """Image files in no place that the layout looks at."""
    mismatches_uri: str = ""
    """The list of all mismatches, one JSON object a line."""
    mismatches: list[tuple[str, str]] = field(default_factory=list)
    """(path below ROOT, reason) of the first SHOWN_AT_MOST mismatches."""

    def counts(self, split: Split) -> Counts:
        """Return the counts of a split, which are added where they are missing."""
        return self.splits.setdefault(split, Counts())


def build_index(
    root: str, out: str, options: IndexOptions, notify: Callable[[int], None] = lambda done: None
) -> IndexSummary:
    """Build the index `out` of the files below `root`, and beside it the list `out`.mismatches.jsonl.

    notify: called with the number of rows done so far. Raises `UserError`, and leaves `out` as it was, where no
    file matches or where more than `options.mismatched` of a split's files do not; before anything is read, where
    `out` can't be written or is something other than an index.
    """
    root, out = storage.absolute(root), storage.absolute(out)
    for uri in (root, out, options.pack or ""):
        if not is_utf8(uri):
            raise UserError(f"the name {one_line(uri)} is not UTF-8: rename it")
    layout = _resolve_layout(root, options)
    tests = TestPhotos(options.apart_from, options.max_pixels) if options.apart_from else None
    _check_out(out)
    for folder in filter(None, (out.rpartition("/")[0] or "/", options.pack)):
        storage.check_writable(folder)
    summary = IndexSummary(out, mismatches_uri=f"{out}.mismatches.jsonl")
    with translated_database_errors(), Matcher(root, layout.parts) as matcher, warnings.catch_warnings():
        # The warning is about a TIFF whose directory comes after the part read first; such a file is read further.
        warnings.filterwarnings("ignore", message="Corrupt EXIF data")
        matcher.add(_list_below(root))
        summary.ignored = matcher.ignored
        rows = _rows(matcher, layout, options, summary, notify, tests)
        apart_from = () if tests is None else tests.fingerprints
        written = write_index(out, rows if options.pack is None else pack(rows, options.pack), apart_from)
    summary.fingerprint = written.fingerprint
    return summary


def _resolve_layout(root: str, options: IndexOptions) -> Layout:
    name = PurePosixPath(root).name
    layout = find_layout(options.layout)
    dataset = (options.dataset or name) if layout.named_by_user else options.dataset
    layout = with_names(layout, options.task, dataset, options.split)
    if options.equalise and any(part.task != "low_light" for part in layout.parts):
        raise UserError(f"the layout {layout.name!r} is not for low light: leave out --equalise")
    return layout


def _check_out(out: str) -> None:
    """Raise `UserError` where `out` is something that an index must not replace."""
    is_bucket = out.startswith("s3://") and out.count("/") == 2
    if is_bucket or storage.is_folder(out):
        raise UserError(
            f"{out} is a folder: name the index itself, such as {storage.join(out, 'index.parquet')}"
        )
    if not storage.is_file(out):
        return
    try:
        open_index(out)
    except (storage.Busy, storage.StoreError):
        raise
    except UserError as error:
        raise UserError(
            f"{out} exists and is not an index, so it is not replaced: name another OUT"
        ) from error


def _list_below(root: str) -> Iterator[tuple[str, int]]:
    prefix = storage.join(root, "")
    return ((uri.removeprefix(prefix), size) for uri, size in storage.list_files(root))


def _rows(
    matcher: Matcher,
    layout: Layout,
    options: IndexOptions,
    summary: IndexSummary,
    notify: Callable[[int], None],
    tests: TestPhotos | None,
) -> Iterator[IndexRow]:
    """Yield the rows as their headers are read; raises after the last one, before the index is renamed into place,
    where `_check_counts` does."""
    read_row = _RowReader(matcher.root, options, tests)
    done = 0
    for candidate, found in threaded_map(read_row, matcher.candidates()):
        part = candidate.part
        if isinstance(found, str):
            path = (candidate.degraded or candidate.clean or File("", 0)).path
            matcher.add_mismatch(part, path, found)
            continue
        counts = summary.counts((part.task, part.dataset, part.split))
        counts.unpaired += part.is_unpaired
        counts.pairs += not part.is_unpaired
        done += 1
        notify(done)
        yield found
    _write_mismatches(matcher, summary)
    _check_counts(matcher.root, layout, options.mismatched, summary)


class _RowReader:
    """Reads the headers of a candidate; returns it with its row or the reason for none. Thread-safe."""

    def __init__(self, root: str, options: IndexOptions, tests: TestPhotos | None) -> None:
        self._root = root
        self._preprocessing = EQUALISE if options.equalise else ""
        self._max_pixels = options.max_pixels
        self._tests = tests
        self._clean_sizes: LRUCache[str, tuple[int, int]] = LRUCache(SIZES_KEPT)
        self._lock = threading.Lock()

    def __call__(self, candidate: Candidate) -> tuple[Candidate, IndexRow | str]:
        part, degraded, clean = candidate.part, candidate.degraded, candidate.clean
        try:
            size = self._size(degraded) if degraded is not None else None
            clean_size = self._clean_size(clean, size is not None) if clean is not None else None
        except (storage.Busy, storage.StoreError):
            raise
        except UserError as error:
            return candidate, str(error)
        width, height = size or clean_size or (0, 0)
        if clean_size not in (None, (width, height)):
            ours, theirs = size_text(width, height), size_text(*(clean_size or (0, 0)))
            return candidate, f"it is {ours} pixels, its clean counterpart {theirs}"
        row = IndexRow(
            task=part.task,
            dataset=part.dataset,
            split=part.split,
            key=candidate.key,
            degraded_uri=None if degraded is None else storage.join(self._root, degraded.path),
            clean_uri=None if clean is None else storage.join(self._root, clean.path),
            width=width,
            height=height,
            preprocessing=self._preprocessing,
        )
        return candidate, self._test_photo(row) or row

    def _test_photo(self, row: IndexRow) -> str | None:
        """Say which test photo the row shows, or why that can't be told; None where it shows none."""
        if self._tests is None or row.clean_uri is None:
            return None
        try:
            other = self._tests.same_place(read_clean(row, self._max_pixels))
        except (storage.Busy, storage.StoreError):
            raise
        except UserError as error:
            return str(error)
        return None if other is None else f"it shows what the test photo {other} shows"

    def _clean_size(self, file: File, is_paired: bool) -> tuple[int, int]:
        with self._lock:
            size = self._clean_sizes.get(file.path)
        if size is None:
            try:
                size = self._size(file)
            except ImageError as error:
                if not is_paired:
                    raise
                raise UserError(f"its clean counterpart {file.path}: {error}") from error
            with self._lock:
                self._clean_sizes[file.path] = size
        return size

    def _size(self, file: File) -> tuple[int, int]:
        """Return (width, height) of the upright photo, reading only as much of the file as that takes."""
        uri = storage.join(self._root, file.path)
        if mat.is_element(uri):
            return retry(lambda: mat.size(uri))
        with photo_limits(self._max_pixels) as limits:
            check_bytes(file.size, limits)
            length = storage.HEAD_BYTES
            while True:
                try:
                    header = inspect(retry(partial(storage.read_head, uri, length)), limits)
                    return header.width, header.height
                except ImageError as error:
                    # A large profile or preview may come before the size, and some TIFFs have it at the end.
                    if length >= file.size or isinstance(error, TooLargeError):
                        raise
                    length *= 8


def _write_mismatches(matcher: Matcher, summary: IndexSummary) -> None:
    with storage.writing(summary.mismatches_uri) as temporary, temporary.open("w", encoding="utf-8") as file:
        for found in matcher.mismatches():
            part = found.part
            counts = summary.counts((part.task, part.dataset, part.split))
            counts.first_mismatch = counts.first_mismatch if counts.mismatched else (found.path, found.reason)
            counts.mismatched += 1
            if len(summary.mismatches) < SHOWN_AT_MOST:
                summary.mismatches.append((found.path, found.reason))
            where = {"dataset": part.dataset, "split": part.split, "path": found.path}
            print(json.dumps({**where, "reason": found.reason}, ensure_ascii=False), file=file)


def _check_counts(root: str, layout: Layout, limit: float, summary: IndexSummary) -> None:
    """Raise `UserError` where no file matched, or where more than `limit` of a split's files did not."""
    if not summary.splits:
        listings = " and ".join(sorted({part.listing for part in layout.parts if part.listing}))
        needs = f", and it needs {listings} in ROOT" if listings else ""
        place = layout.parts[0].sides[0][1]
        raise UserError(
            f"no photo below {root} is where the layout {layout.name!r} looks, such as {place}{needs}: give "
            "another ROOT or --layout (diffuir index --help shows all)"
        )
    for (_, dataset, split), counts in sorted(summary.splits.items()):
        if counts.mismatched_share > limit:
            path, reason = map(one_line, counts.first_mismatch)
            raise UserError(
                f"{counts.mismatched:,} files of {dataset}, {split}, do not match ({counts.mismatched_share:.1%}, "
                f"more than {limit:.1%}), such as {path} ({reason}): see {summary.mismatches_uri} and correct "
                "them, or allow more with --mismatched"
            )


def threaded_map(
    function: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    readers: int = READERS,
    ahead: int = READ_AHEAD,
) -> Iterator[ResultT]:
    """`map` in threads: results in order, with at most `ahead` items begun before they are needed."""
    pool = ThreadPoolExecutor(readers, thread_name_prefix="headers")
    pending: deque[Future[ResultT]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
