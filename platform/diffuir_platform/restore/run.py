"""One run of `diffuir restore`, from the URIs to the summary."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from diffuir_core.errors import UserError
from diffuir_core.files import TEMPORARY_PREFIX
from diffuir_core.imaging import FORMAT_OF_SUFFIX

from .. import storage
from ..inference import FetchedWeights, RestoresPixels, fetch_weights
from ..runtime import cluster_address, cluster_resources, ray_session
from ..storage import Lock
from .inputs import Inputs, Item, check_output
from .ledger import Ledger, LedgerRow, as_text, from_text, now, results_in
from .metrics import Metrics
from .names import LIST_SUFFIXES, result_name
from .progress import Progress, ProgressFile, single_photo_counts
from .record import Record
from .report import write_report
from .settings import RestoreOptions
from .stages import Photo, read, write
from .stages import restore as restore_photos
from .summary import Summary

MAX_LISTED_AHEAD = 2_000
"""Inputs that the listing may be ahead of the restoring."""
LOOKUP_CHUNK = 500
"""Inputs that are looked up in the ledger at a time."""


def restore(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: RestoreOptions | None = None,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    restorer: Callable[[Path | None], RestoresPixels] | None = None,
    progress_file: str | None = None,
) -> Summary:
    """Restore the photos at `source` into `target`, with progress on stderr; returns the summary of the run.

    A single photo is restored in this process. For more than one, a ledger is kept in `_diffuir/` of `target`, and
    the same call again restores only what is not done yet. restart: remove the results of an earlier run first.
    retry_failed: restore only the inputs that failed before. restorer: makes a restorer from the weights file, in
    place of the one that `options` describe. Raises `UserError` before any work begins for everything that the
    user can put right; photos that fail are in the summary and stop nothing. Where this process has started Ray
    already, that Ray is used. progress_file: URI of a JSON file of `Counts` that is kept up to date during the
    run; it also gets the sentence of a `UserError` that ends the run.
    """
    options = options or RestoreOptions()
    source, target = os.fspath(source), os.fspath(target)
    with ProgressFile(progress_file) as written:
        weights = fetch_weights(options.weights)
        check_device(options)
        if is_single_photo(source):
            return _restore_one(source, target, options, weights, restorer, written)
        inputs = Inputs(source, target, options.format, options.choice)
        check_output(inputs.target)
        run = Run(inputs, target, options, weights, restorer)
        return run.run(restart, retry_failed, written)


class Run:
    """One restore of a collection, with its lock, ledger and report."""

    def __init__(
        self,
        inputs: Inputs,
        shown: str,
        options: RestoreOptions,
        weights: FetchedWeights,
        restorer: Callable[[Path | None], RestoresPixels] | None,
    ) -> None:
        self._inputs = inputs
        self._options = options
        self._weights = weights
        self._make = restorer or options.restorer
        self._own = storage.join(inputs.target, storage.OWN_FOLDER)
        self._record = Record.from_options(options, weights, inputs.root)
        self._summary = Summary(shown)
        self._is_resumed = False
        self._had_retries = False

    def run(self, restart: bool, retry_failed: bool, progress_file: ProgressFile) -> Summary:
        """Restore what is not done yet, write the report, and return the summary."""
        doing = f"restores into {self._summary.target}"
        with Lock(self._own, doing, "choose another OUT") as lock, Ledger(self._own) as ledger:
            found = None if restart else Record.read(self._own)
            if restart:
                self._discard_results(ledger)
            elif found is not None:
                self._record.check(found, self._summary.target)
            self._record.write(self._own)
            self._is_resumed = ledger.load() > 0
            if found is not None:
                ledger.note_present(self._result_files())
            began = now()
            listing = None if retry_failed else BackgroundListing(iter(self._inputs))
            with Progress(self._summary, listing) as progress:
                progress_file.follow(progress.counts)
                items = (
                    self._failed_items(ledger) if listing is None else self._pending_items(ledger, listing)
                )
                # Inputs that are missing or done already are found before Ray is started.
                first = next((item for item in items if item is not None), None)
                try:
                    if first is not None:
                        self._restore_items(chain((first,), items), ledger, lock, progress)
                finally:
                    ledger.flush()  # stopped or not, every result that is written has its row
                is_complete = listing is not None and not self._options.include and not self._options.exclude
                if is_complete and self._is_resumed:
                    ledger.forget_unlisted_failures()
                ledger.compact()
            if self._had_retries:
                self._remove_leftovers()
            self._summary.ignored = self._inputs.ignored
            self._summary.finish()
            write_report(self._own, self._inputs, ledger, self._summary, self._record, began)
        return self._summary

    def _restore_items(
        self,
        items: Iterator[Item | None],
        ledger: Ledger,
        lock: Lock,
        progress: Progress,
    ) -> None:
        from .models import ModelPool
        from .pipeline import Pipeline

        address, device = cluster_address(self._options.address), self._options.device
        with ray_session(address, device) as resources:
            metrics = Metrics()
            room = (lambda: resources) if address is None else (lambda: cluster_resources(device))
            options = self._options
            with ModelPool(self._make, self._weights, room, options.models, options.gpu_share) as models:
                pipeline = Pipeline(self._inputs.target, self._options, models)
                for finished in pipeline.finished_photos(items):
                    self._had_retries |= finished.attempt > 1
                    row = self._ledger_row(finished.photo, finished.attempt)
                    self._record_row(row, ledger)
                    metrics.count(row)
                    lock.check()
                    progress.update()
            metrics.record()

    def _pending_items(self, ledger: Ledger, listing: BackgroundListing) -> Iterator[Item | None]:
        """Yield the listed inputs that have to be restored; None where the next one is not listed yet."""
        is_claimed = self._inputs.may_repeat or self._is_resumed
        while (chunk := listing.take_available(LOOKUP_CHUNK)) is not None:
            names = [(as_text(item.key), as_text(item.target)) for item in chunk]
            known = ledger.rows_of([key for key, _ in names]) if self._is_resumed else {}
            first = ledger.claim(names) if is_claimed else [True] * len(names)
            for item, (key, _), is_first in zip(chunk, names, first, strict=True):
                row = known.get(key)
                if not is_first:
                    if not ledger.is_listed(key):
                        reason = f"its result would be named {item.target}, like the result of another input"
                        self._record_row(
                            self._ledger_row(Photo(item=replace(item, reason=reason)), 1), ledger
                        )
                elif row is not None and _is_same_input(item, row) and self._is_settled(row, ledger):
                    self._summary.skip(row)
                elif item.reason is not None:
                    self._record_row(self._ledger_row(Photo(item=item), 1), ledger)
                else:
                    yield item
            yield None

    def _is_settled(self, row: LedgerRow, ledger: Ledger) -> bool:
        """Whether an earlier run finished an input: it failed, or its result is still there."""
        return row.status == "failed" or ledger.is_present(row)

    def _failed_items(self, ledger: Ledger) -> Iterator[Item | None]:
        if not self._is_resumed:
            raise UserError(
                f"{self._summary.target} has no ledger of an earlier run to retry: leave out --retry-failed"
            )
        for row in ledger.rows("failed"):
            # A file may have changed its size since, so it is looked up again; a member of a tar is where it was.
            size = None if row.offset is None else row.source_bytes
            key, source, target = (from_text(text) for text in (row.key, row.source, row.target))
            format = self._options.format
            yield Item(key, source, target, format and format.upper(), size, row.source_version, row.offset)

    def _ledger_row(self, photo: Photo, attempt: int) -> LedgerRow:
        item = photo.item
        reason = photo.reason or item.reason
        return LedgerRow(
            key=as_text(item.key),
            status="done" if reason is None else "failed",
            reason=reason,
            notes=photo.notes or None,
            source=as_text(item.source),
            offset=item.offset,
            source_bytes=item.size,
            source_version=item.version,
            target=as_text(item.target),
            format=photo.format,
            width=photo.width,
            height=photo.height,
            bytes=photo.bytes if reason is None else None,
            sha256=photo.sha256 if reason is None else None,
            seconds_read=photo.seconds_read,
            seconds_restore=photo.seconds_restore,
            seconds_write=photo.seconds_write,
            precision=photo.precision,
            attempt=attempt,
            finished=now(),
            settings=self._record.fingerprint,
        )

    def _record_row(self, row: LedgerRow, ledger: Ledger) -> None:
        ledger.add(row)
        self._summary.add(row)

    def _result_files(self) -> Iterator[tuple[str, int]]:
        """Yield (name, size in bytes) of every file of the output, and remove what killed writers left there."""
        for name, size in results_in(self._inputs.target):
            if name.rpartition("/")[2].startswith(TEMPORARY_PREFIX):
                storage.remove_file(storage.join(self._inputs.target, name))
            else:
                yield as_text(name), size

    def _remove_leftovers(self) -> None:
        """Remove temporary files that killed writers left in the output."""
        for _ in self._result_files():
            pass

    def _discard_results(self, ledger: Ledger) -> None:
        """Remove an earlier run's results, then its ledger: killed on the way, it can be repeated."""
        ledger.load()
        for row in ledger.rows("done"):
            storage.remove_file(storage.join(self._inputs.target, from_text(row.target)))
        ledger.clear()
        self._remove_leftovers()


class BackgroundListing:
    """A listing of inputs in a thread of its own, at most MAX_LISTED_AHEAD inputs ahead of its consumer."""

    def __init__(self, inputs: Iterator[Item]) -> None:
        self._queue: queue.Queue[Item | Exception | None] = queue.Queue(MAX_LISTED_AHEAD)
        self._inputs = inputs
        self.count = 0
        """Inputs found so far."""
        self.ended = False
        threading.Thread(target=self._list, daemon=True, name="diffuir-listing").start()

    def _list(self) -> None:
        try:
            for item in self._inputs:
                self.count += 1
                self._queue.put(item)
        except Exception as error:  # noqa: BLE001 - raised again by `take_available`, in the consumer's thread
            self._queue.put(error)
            return
        self.ended = True
        self._queue.put(None)

    def take_available(self, limit: int) -> list[Item] | None:
        """Return the inputs found by now, at most `limit`; None after the last. Raises the listing's error."""
        taken: list[Item] = []
        while len(taken) < limit:
            try:
                # With nothing to return, wait a moment: the caller calls this in a loop.
                found = self._queue.get(timeout=0.01) if not taken else self._queue.get_nowait()
            except queue.Empty:
                return taken
            if isinstance(found, Exception):
                raise found
            if found is None:
                self._queue.put(None)
                return taken or None
            taken.append(found)
        return taken


def items_at(source: str, target: str, options: RestoreOptions) -> Iterator[Item]:
    """List the inputs of a restore of `source`, one photo or many; raises `UserError` as `restore` does."""
    if is_single_photo(source):
        return iter((single_item(source, target, options.format)[0],))
    return iter(Inputs(source, target, options.format, options.choice))


def is_single_photo(source: str) -> bool:
    """Whether `source` is one photo, and not a folder, list, table or tar of many."""
    name = source.lower()
    if name.endswith((*LIST_SUFFIXES, ".parquet", ".tar")):
        return False
    if "://" in source:
        return name.endswith(tuple(FORMAT_OF_SUFFIX)) and storage.is_file(source)
    return os.path.isfile(source)


def single_item(source: str, target: str, format: str | None) -> tuple[Item, str]:
    """Return the item for the photo `source`, and the folder that its result goes to.

    The result is written to `target` itself, in the format of its ending, unless `target` is a folder or ends in a
    slash. Raises `UserError` where the result would replace the photo, or where the ending of `target` is that of
    another format than `format`.
    """
    format = format.upper() if format else None
    name = storage.absolute(source).rpartition("/")[2]
    if target.endswith(("/", os.sep)) or storage.is_folder(target):
        folder, result = storage.absolute(target), result_name(format, name)
    else:
        format_of_ending = FORMAT_OF_SUFFIX.get(os.path.splitext(target)[1].lower())
        if format and format_of_ending and format != format_of_ending:
            raise UserError(
                f"{target} has the ending of {format_of_ending}: leave out --format, or use an ending of {format}"
            )
        format = format or format_of_ending
        folder, _, result = storage.absolute(target).rpartition("/")
    paths = (storage.absolute(source), f"{folder}/{result}")
    if len({path if "://" in path else os.path.realpath(path) for path in paths}) == 1:
        raise UserError(f"{source} would be replaced by its own result: choose another OUT")
    return Item(name, paths[0], result, format), folder or "/"


def _restore_one(
    source: str,
    target: str,
    options: RestoreOptions,
    weights: FetchedWeights,
    make: Callable[[Path | None], RestoresPixels] | None,
    progress_file: ProgressFile,
) -> Summary:
    """Restore one photo in this process, without a ledger."""
    item, folder = single_item(source, target, options.format)
    check_output(folder)
    summary = Summary(target)
    progress_file.follow(lambda: single_photo_counts(summary))
    photos = read([item], options.exif, options.truncated)
    if photos[0].image is not None:
        with weights.as_file() as file:
            photos = restore_photos(photos, (make or options.restorer)(file))
    (photo,) = write(photos, folder, options.quality)
    if photo.unreachable:
        raise UserError(str(photo.reason))
    summary.add_photo(photo)
    summary.finish()
    if photo.reason is not None:
        progress_file.fail(f"{item.key}: {photo.reason}")
    return summary


def check_device(options: RestoreOptions) -> None:
    """Raise `UserError` where the device that `options` name is not available."""
    import torch

    if options.device == "cuda" and options.address is None and not torch.cuda.is_available():
        raise UserError(
            "this machine has no GPU that torch can use: leave out --device, or give --device cpu"
        )


def _is_same_input(item: Item, row: LedgerRow) -> bool:
    """Whether a row is about this very file, not changed since as far as the listing says."""
    if as_text(item.source) != row.source or item.offset != row.offset:
        return False
    listed = (item.size, item.version)
    return listed == (None, None) or listed == (row.source_bytes, row.source_version)
