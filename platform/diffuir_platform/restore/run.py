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
from .inputs import Inputs, Item, prepare_output
from .ledger import Ledger, Row, as_text, from_text, now, results_in
from .metrics import Metrics
from .names import LISTS, name_in
from .progress import Progress
from .record import Record
from .report import write_report
from .settings import RestoreOptions
from .stages import Photo, read, write
from .stages import restore as restore_photos
from .summary import Summary

LISTED_AHEAD = 2_000
"""Inputs that a listing may be ahead of the work."""
LOOKED_UP_AT_ONCE = 500


def restore(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: RestoreOptions | None = None,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    restorer: Callable[[Path | None], RestoresPixels] | None = None,
) -> Summary:
    """Restore what is at `source` into `target`; show progress on stderr; return what came of it.

    A single photo is restored here, in this process. Of more a ledger is kept below `target`'s `_diffuir/`, and
    the same call again does what is not done yet. restart: begin anew, whatever the output holds of an earlier
    run. retry_failed: only what failed before. restorer: makes another restorer than that of `options`, given the
    weights' file. Everything that a user can put right is checked before the work begins and raises UserError;
    photos that fail are in the summary and stop nothing. A Ray that this process has already started is used.
    """
    options = options or RestoreOptions()
    source, target = os.fspath(source), os.fspath(target)
    weights = fetch_weights(options.weights)
    check_device(options)
    if is_single_photo(source):
        return _restore_one(source, target, options, weights, restorer)
    inputs = Inputs(source, target, options.format, options.choice)
    prepare_output(inputs.target)
    run = Run(inputs, target, options, weights, restorer)
    return run.run(restart, retry_failed)


class Run:
    """A restore of many photos."""

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
        self._record = Record.of(options, weights, inputs.root)
        self._summary = Summary(shown)
        self._is_resumed = False
        self._was_disturbed = False

    def run(self, restart: bool, retry_failed: bool) -> Summary:
        """Do it."""
        doing = f"restores into {self._summary.target}"
        with Lock(self._own, doing, "choose another OUT") as lock, Ledger(self._own) as ledger:
            found = None if restart else Record.read(self._own)
            if restart:
                self._discard(ledger)
            elif found is not None:
                self._record.check(found, self._summary.target)
            self._record.write(self._own)
            self._is_resumed = ledger.load() > 0
            if found is not None:
                ledger.note_present(self._results())
            began = now()
            with Progress(self._summary) as progress:
                listing = None if retry_failed else Listing(iter(self._inputs))
                items = self._failed_ones(ledger) if listing is None else self._to_do(ledger, listing)
                # What is not there, or done already, is seen before anything is started.
                first = next((item for item in items if item is not None), None)
                try:
                    if first is not None:
                        self._work(chain((first,), items), ledger, lock, progress, listing)
                finally:
                    ledger.flush()  # stopped or not, what is written is told
                is_complete = listing is not None and not self._options.include and not self._options.exclude
                if is_complete and self._is_resumed:
                    ledger.forget_unlisted_failures()
                ledger.compact()
            if self._was_disturbed:
                for _ in self._results():
                    pass
            self._summary.ignored = self._inputs.ignored
            self._summary.finish()
            write_report(self._own, self._inputs, ledger, self._summary, self._record, began)
        return self._summary

    def _work(
        self,
        items: Iterator[Item | None],
        ledger: Ledger,
        lock: Lock,
        progress: Progress,
        listing: Listing | None,
    ) -> None:
        from .models import Models
        from .pipeline import Pipeline

        address, device = cluster_address(self._options.address), self._options.device
        with ray_session(address, device) as resources:
            metrics = Metrics()
            room = (lambda: resources) if address is None else (lambda: cluster_resources(device))
            options = self._options
            with Models(self._make, self._weights, room, options.models, options.gpu_share) as models:
                pipeline = Pipeline(self._inputs.target, self._options, models)
                for outcome in pipeline.outcomes(items):
                    self._was_disturbed |= outcome.attempt > 1
                    row = self._row(outcome.photo, outcome.attempt)
                    self._enter(row, ledger)
                    metrics.count(row)
                    lock.check()
                    progress.update(
                        None if listing is None else listing.count, listing is None or listing.ended
                    )
            metrics.record()

    def _to_do(self, ledger: Ledger, listing: Listing) -> Iterator[Item | None]:
        """What of the listing has to be done; None where nothing more is listed yet."""
        is_claimed = self._inputs.may_repeat or self._is_resumed
        while (chunk := listing.take(LOOKED_UP_AT_ONCE)) is not None:
            names = [(as_text(item.key), as_text(item.target)) for item in chunk]
            standing = ledger.standing([key for key, _ in names]) if self._is_resumed else {}
            first = ledger.claim(names) if is_claimed else [True] * len(names)
            for item, (key, _), is_first in zip(chunk, names, first, strict=True):
                row = standing.get(key)
                if not is_first:
                    if not ledger.is_listed(key):
                        reason = f"the name of its result, {item.target}, is that of another input's"
                        self._enter(self._row(Photo(item=replace(item, reason=reason)), 1), ledger)
                elif row is not None and _is_of(item, row) and self._stands(row, ledger):
                    self._summary.skip(row)
                elif item.reason is not None:
                    self._enter(self._row(Photo(item=item), 1), ledger)
                else:
                    yield item
            yield None

    def _stands(self, row: Row, ledger: Ledger) -> bool:
        """Whether what an earlier run made of an input is as its row says."""
        return row.status == "failed" or ledger.is_present(row)

    def _failed_ones(self, ledger: Ledger) -> Iterator[Item | None]:
        if not self._is_resumed:
            raise UserError(
                f"{self._summary.target} has no ledger of an earlier run: leave --retry-failed out"
            )
        for row in ledger.rows("failed"):
            # As large as it is by now; but a member of a tar lies where it lay.
            size = None if row.offset is None else row.source_bytes
            key, source, target = (from_text(text) for text in (row.key, row.source, row.target))
            format = self._options.format
            yield Item(key, source, target, format and format.upper(), size, row.source_version, row.offset)

    def _row(self, photo: Photo, attempt: int) -> Row:
        item = photo.item
        reason = photo.reason or item.reason
        return Row(
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

    def _enter(self, row: Row, ledger: Ledger) -> None:
        ledger.add(row)
        self._summary.add(row)

    def _results(self) -> Iterator[tuple[str, int]]:
        """(name, bytes) of every file of the output; what killed writers left there is removed on the way."""
        for name, size in results_in(self._inputs.target):
            if name.rpartition("/")[2].startswith(TEMPORARY_PREFIX):
                storage.remove_file(storage.join(self._inputs.target, name))
            else:
                yield as_text(name), size

    def _discard(self, ledger: Ledger) -> None:
        """Remove what an earlier run made, and its ledger last: killed on the way, it can be done again."""
        ledger.load()
        for row in ledger.rows("done"):
            storage.remove_file(storage.join(self._inputs.target, from_text(row.target)))
        ledger.clear()
        for _ in self._results():
            pass


class Listing:
    """Inputs that are found by a thread of their own, a bounded number ahead of the work."""

    def __init__(self, inputs: Iterator[Item]) -> None:
        self._queue: queue.Queue[Item | Exception | None] = queue.Queue(LISTED_AHEAD)
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
        except Exception as error:  # noqa: BLE001 - raised again by `take`, where it is of use
            self._queue.put(error)
            return
        self.ended = True
        self._queue.put(None)

    def take(self, most: int) -> list[Item] | None:
        """What is found by now, at most so many; None once all was taken. Raises what the listing raised."""
        taken: list[Item] = []
        while len(taken) < most:
            try:
                # A look a moment later, where there is nothing at all: this is called in a loop.
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
    """What a restore of `source` would restore, one photo or many; raises `UserError` as `restore` does."""
    if is_single_photo(source):
        return iter((single_item(source, target, options.format)[0],))
    return iter(Inputs(source, target, options.format, options.choice))


def is_single_photo(source: str) -> bool:
    """Whether `source` is one file, and no list, table or tar of many."""
    name = source.lower()
    if name.endswith((*LISTS, ".parquet", ".tar")):
        return False
    if "://" in source:
        return name.endswith(tuple(FORMAT_OF_SUFFIX)) and storage.is_file(source)
    return os.path.isfile(source)


def single_item(source: str, target: str, format: str | None) -> tuple[Item, str]:
    """The photo `source`, and the folder that its result goes to.

    It goes to `target` itself, in the format of its ending, unless that is a folder or ends in a slash. Raises
    `UserError` where the result would replace the photo, or where `target` has another format's ending.
    """
    format = format.upper() if format else None
    name = storage.absolute(source).rpartition("/")[2]
    if target.endswith(("/", os.sep)) or storage.is_folder(target):
        folder, result = storage.absolute(target), name_in(format, name)
    else:
        of_ending = FORMAT_OF_SUFFIX.get(os.path.splitext(target)[1].lower())
        if format and of_ending and format != of_ending:
            raise UserError(
                f"{target} has the ending of {of_ending}: leave --format out, or give {format}'s ending"
            )
        format = format or of_ending
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
) -> Summary:
    """One photo, here and without a ledger."""
    item, folder = single_item(source, target, options.format)
    prepare_output(folder)
    summary = Summary(target)
    photos = read([item], options.exif, options.truncated)
    if photos[0].image is not None:
        with weights.as_file() as file:
            photos = restore_photos(photos, (make or options.restorer)(file))
    (photo,) = write(photos, folder, options.quality)
    if photo.unreachable:
        raise UserError(str(photo.reason))
    summary.add_photo(photo)
    summary.finish()
    return summary


def check_device(options: RestoreOptions) -> None:
    """Raises UserError where the device that was asked for is not there."""
    import torch

    if options.device == "cuda" and options.address is None and not torch.cuda.is_available():
        raise UserError("this machine has no GPU that torch can use: leave --device out or say cpu")


def _is_of(item: Item, row: Row) -> bool:
    """Whether a row tells of this very input: the same file, not changed since, as far as the listing says."""
    if as_text(item.source) != row.source or item.offset != row.offset:
        return False
    told = (item.size, item.version)
    return told == (None, None) or told == (row.source_bytes, row.source_version)
