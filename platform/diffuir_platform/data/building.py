"""Making an index: list the files, match them by the layout's rule, read their headers, write the rows."""

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
from pydantic import Field

from diffuir_core.errors import UserError
from diffuir_core.imaging import ImageError, check_bytes, inspect

from .. import storage
from ..config import Config
from ..storage import retry
from ..text import is_utf8, one_line
from . import mat
from .index import EQUALISE, Row, open_index, write_index
from .layouts import Layout, find_layout, with_names
from .matching import Candidate, File, Matcher, room_for_names
from .packing import pack

READERS = 32
"""Headers read at once: a store takes its time to answer, and answers many at once."""
READ_AHEAD = 8 * READERS
SIZES_KEPT = 4096
"""Clean photos whose size is remembered: several degraded ones, near each other in order, share one."""
SHOWN_AT_MOST = 10

Split = tuple[str, str, str]
"""Task, data set, split."""
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class IndexOptions(Config):
    """What an index is made of, besides where the files are."""

    layout: str
    """How the files lie below ROOT."""
    task: str | None = None
    """Of layouts that leave it open."""
    dataset: str | None = None
    """Its name, of layouts that leave it open; None: the name of ROOT."""
    split: str | None = None
    """Its name, of layouts that leave it open."""
    equalise: bool = False
    """Low light: note that the degraded side's histogram is to be equalised before the network sees it."""
    mismatched: float = Field(default=0.01, ge=0, le=1)
    """The largest share of a split's files that may be without a match."""
    pack: str | None = None
    """A folder for packed files, which the index then points into."""


@dataclass
class Counts:
    """What came of the files of one split."""

    pairs: int = 0
    unpaired: int = 0
    mismatched: int = 0
    first_mismatch: tuple[str, str] = ("", "")
    """(path below ROOT, reason)."""

    @property
    def mismatched_share(self) -> float:
        return self.mismatched / (self.pairs + self.unpaired + self.mismatched or 1)


@dataclass
class IndexSummary:
    """What came of making an index."""

    uri: str
    fingerprint: str = ""
    splits: dict[Split, Counts] = field(default_factory=dict)
    ignored: int = 0
    """Image files that the layout does not look for."""
    mismatches_uri: str = ""
    """The list of what did not match, a JSON object a line."""
    mismatches: list[tuple[str, str]] = field(default_factory=list)
    """(path below ROOT, reason) of the first SHOWN_AT_MOST of them."""

    def counts(self, split: Split) -> Counts:
        return self.splits.setdefault(split, Counts())


def build_index(
    root: str, out: str, options: IndexOptions, notify: Callable[[int], None] = lambda done: None
) -> IndexSummary:
    """Make the index `out` of the files below `root`, and beside it `out`.mismatches.jsonl.

    notify: called with the number of rows that are done. Raises UserError, with nothing at `out` changed, where no
    file matches or more of a split do not than `options.mismatched`, and before anything is read where `out` can't
    be written or holds something else.
    """
    root, out = storage.absolute(root), storage.absolute(out)
    for uri in (root, out, options.pack or ""):
        if not is_utf8(uri):
            raise UserError(f"the name {one_line(uri)} is not UTF-8: rename it")
    layout = _resolved(root, options)
    _check_out(out)
    for folder in filter(None, (out.rpartition("/")[0] or "/", options.pack)):
        storage.check_writable(folder)
    summary = IndexSummary(out, mismatches_uri=f"{out}.mismatches.jsonl")
    with room_for_names(), Matcher(root, layout.parts) as matcher, warnings.catch_warnings():
        # Of a TIFF whose directory lies behind the beginning that is read first.
        warnings.filterwarnings("ignore", message="Corrupt EXIF data")
        matcher.add(_below(root))
        summary.ignored = matcher.ignored
        rows = _rows(
            matcher, layout, EQUALISE if options.equalise else "", options.mismatched, summary, notify
        )
        written = write_index(out, rows if options.pack is None else pack(rows, options.pack))
    summary.fingerprint = written.fingerprint
    return summary


def _resolved(root: str, options: IndexOptions) -> Layout:
    name = PurePosixPath(root).name
    layout = find_layout(options.layout)
    dataset = (options.dataset or name) if layout.named_by_user else options.dataset
    layout = with_names(layout, options.task, dataset, options.split)
    if options.equalise and any(part.task != "low_light" for part in layout.parts):
        raise UserError(f"the layout {layout.name!r} is not one of low light: leave --equalise out")
    return layout


def _check_out(out: str) -> None:
    """Raise UserError where `out` is something that an index must not take the place of."""
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
            f"{out} is there and can't be replaced, as it is no index: name another OUT"
        ) from error


def _below(root: str) -> Iterator[tuple[str, int]]:
    prefix = storage.join(root, "")
    return ((uri.removeprefix(prefix), size) for uri, size in storage.list_files(root))


def _rows(
    matcher: Matcher,
    layout: Layout,
    preprocessing: str,
    most_mismatched: float,
    summary: IndexSummary,
    notify: Callable[[int], None],
) -> Iterator[Row]:
    """The rows as their headers are read; raises at their end, so that the index is never written, as above."""
    look = _Looker(matcher.root, preprocessing)
    done = 0
    for candidate, seen in in_order(look, matcher.candidates()):
        part = candidate.part
        if isinstance(seen, str):
            path = (candidate.degraded or candidate.clean or File("", 0)).path
            matcher.mismatched(part, path, seen)
            continue
        counts = summary.counts((part.task, part.dataset, part.split))
        counts.unpaired += part.alone
        counts.pairs += not part.alone
        done += 1
        notify(done)
        yield seen
    _list_mismatches(matcher, summary)
    _judge(matcher.root, layout, most_mismatched, summary)


class _Looker:
    """Candidate -> itself with its row, or with the reason why it has none; called by several threads at once."""

    def __init__(self, root: str, preprocessing: str) -> None:
        self._root = root
        self._preprocessing = preprocessing
        self._clean_sizes: LRUCache[str, tuple[int, int]] = LRUCache(SIZES_KEPT)
        self._lock = threading.Lock()

    def __call__(self, candidate: Candidate) -> tuple[Candidate, Row | str]:
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
            return (
                candidate,
                f"it is {_by(width, height)} pixels, its clean twin {_by(*(clean_size or (0, 0)))}",
            )
        return candidate, Row(
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

    def _clean_size(self, file: File, is_twin: bool) -> tuple[int, int]:
        with self._lock:
            size = self._clean_sizes.get(file.path)
        if size is None:
            try:
                size = self._size(file)
            except ImageError as error:
                if not is_twin:
                    raise
                raise UserError(f"its clean twin {file.path}: {error}") from error
            with self._lock:
                self._clean_sizes[file.path] = size
        return size

    def _size(self, file: File) -> tuple[int, int]:
        """(width, height) of the upright photo, from as much of the file's beginning as that takes."""
        uri = storage.join(self._root, file.path)
        if mat.is_element(uri):
            return retry(lambda: mat.size(uri))
        check_bytes(file.size)
        length = storage.HEAD_BYTES
        while True:
            try:
                header = inspect(retry(partial(storage.read_head, uri, length)))
                return header.width, header.height
            except ImageError:
                # A large profile or preview comes before the size, and some TIFFs say theirs at the end.
                if length >= file.size:
                    raise
                length *= 8


def _by(width: int, height: int) -> str:
    return f"{width}x{height}"


def _list_mismatches(matcher: Matcher, summary: IndexSummary) -> None:
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


def _judge(root: str, layout: Layout, most: float, summary: IndexSummary) -> None:
    """Raises UserError where there is nothing, or too much that does not match."""
    if not summary.splits:
        listings = " and ".join(sorted({part.listing for part in layout.parts if part.listing}))
        needs = f", and it needs {listings} in ROOT" if listings else ""
        place = layout.parts[0].sides[0][1]
        raise UserError(
            f"no photo below {root} lies where the layout {layout.name!r} looks, such as {place}{needs}: give "
            "another ROOT or --layout (diffuir index --help shows all)"
        )
    for (_, dataset, split), counts in sorted(summary.splits.items()):
        if counts.mismatched_share > most:
            path, reason = map(one_line, counts.first_mismatch)
            raise UserError(
                f"{counts.mismatched:,} files of {dataset}, {split}, do not match ({counts.mismatched_share:.1%}, "
                f"more than {most:.1%}), such as {path} ({reason}): see {summary.mismatches_uri} and put them "
                "right, or allow more with --mismatched"
            )


def in_order(
    function: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    readers: int = READERS,
    ahead: int = READ_AHEAD,
) -> Iterator[ResultT]:
    """`map` by several threads, which run at most `ahead` items before what is taken."""
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
