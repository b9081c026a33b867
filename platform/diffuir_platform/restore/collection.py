"""A restore of a collection, with its lock, ledger and report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain

from diffuir_core.errors import UserError
from diffuir_core.files import TEMPORARY_PREFIX

from .. import storage
from ..inference import FetchedWeights, fetch_model
from ..runtime import cluster_address
from ..storage import Lock
from . import journal
from .dispatch import Dispatch, starts_here
from .inputs import Inputs, Item, check_output
from .ledger import Ledger, LedgerRow, now
from .listing import BackgroundListing
from .local import RestorerFactory
from .names import as_text, from_text
from .progress import Progress, ProgressFile
from .record import Record
from .report import write_report
from .settings import RestoreOptions
from .stages import CONTINUES, Photo
from .summary import Summary
from .worker_process import begun_process, end_begun_process
from .writing import remove_results, results_in

LOOKUP_CHUNK = 500
"""Inputs that are looked up in the ledger at a time."""


def restore_collection(
    source: str,
    target: str,
    options: RestoreOptions,
    *,
    restart: bool,
    retry_failed: bool,
    make: RestorerFactory | None,
    progress_file: ProgressFile,
    seconds_without_ray: float,
) -> Summary:
    """Restore the photos of a collection; the arguments are those of `restore`, and `make` is its `restorer`."""
    inputs = Inputs(source, target, options.format, options.choice)
    if not (is_here := starts_here(options)):
        end_begun_process()
    with begun_process() if is_here else nullcontext() as process:
        # Before anything is written, model and device are checked: by the process, so that only it loads torch,
        # or here where there is no such process or torch is loaded already. What ships needs no check, and what
        # others wrote is loaded by no process that must live.
        checks = not is_here or "torch" in sys.modules
        weights = fetch_model(options.restorer, options.weights, check=checks)
        dispatch = Dispatch(inputs.target, options, weights, make, process, seconds_without_ray)
        is_checked_by_process = options.weights is not None or options.device == "cuda"
        if options.restorer is not None or (not checks and is_checked_by_process):
            dispatch.check()
        elif cluster_address(options.address) is None:
            options.check_device()
        check_output(inputs.target)
        try:
            return Run(inputs, target, options, weights, dispatch).run(restart, retry_failed, progress_file)
        except storage.Unwritable as error:
            raise UserError(f"{error}; {CONTINUES}") from error


class Run:
    """One restore of a collection, with its lock, ledger and report."""

    def __init__(
        self, inputs: Inputs, shown: str, options: RestoreOptions, weights: FetchedWeights, dispatch: Dispatch
    ) -> None:
        self._inputs = inputs
        self._options = options
        self._dispatch = dispatch
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
            inputs = iter(self._inputs)
            if restart:
                inputs = chain((next(inputs),), inputs)  # nothing is removed for an IN without photos
                self._discard_results(ledger)
            elif found is not None:
                self._record.check(found, self._summary.target)
            self._record.write(self._own)
            self._is_resumed = ledger.load() > 0
            self._dispatch.keep_precision(ledger.precision())
            if found is not None:
                ledger.note_present(self._result_files())
            began = now()
            listing = None if retry_failed else BackgroundListing(inputs)
            with Progress(self._summary, listing, ledger.count("failed"), self._dispatch.at_work) as progress:
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
                if is_complete:
                    journal.clear(self._inputs.target)
            if self._had_retries:
                self._remove_leftovers()
            self._summary.ignored_kinds = self._inputs.ignored_kinds
            self._summary.finish()
            statistics = self._dispatch.statistics
            write_report(self._own, self._inputs, ledger, self._summary, self._record, began, statistics)
        return self._summary

    def _restore_items(
        self,
        items: Iterator[Item | None],
        ledger: Ledger,
        lock: Lock,
        progress: Progress,
    ) -> None:
        progress.announce()
        for finished in self._dispatch.finished_photos(items, progress.left):
            self._had_retries |= finished.attempt > 1
            row = self._ledger_row(finished.photo, finished.attempt)
            self._record_row(row, ledger, finished.photo.journal)
            self._dispatch.count(row)
            lock.check()
            progress.update()
        self._summary.remarks = self._dispatch.remarks

    def _pending_items(self, ledger: Ledger, listing: BackgroundListing) -> Iterator[Item | None]:
        """Yield the listed inputs that have to be restored; None where the next one is not listed yet."""
        is_claimed = self._inputs.may_repeat or self._is_resumed
        while (chunk := listing.take_available(LOOKUP_CHUNK)) is not None:
            names = [(as_text(item.key), as_text(item.target)) for item in chunk]
            known = ledger.rows_of([key for key, _ in names]) if self._is_resumed else {}
            first = ledger.claim(names) if is_claimed else [True] * len(names)
            for item, (key, _), is_first in zip(chunk, names, first, strict=True):
                row = known.get(key)
                item = item if row is None else replace(item, replaces=row.sha256)
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
        """Whether an earlier run finished an input: its result is still there, or it would fail again."""
        if row.is_blocked:
            return ledger.is_taken(row) and not self._options.overwrite
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
            format = self._options.format and self._options.format.upper()
            if self._options.choice.takes(key):
                version, offset, sha256 = row.source_version, row.offset, row.sha256
                yield Item(key, source, target, format, size, version, offset, replaces=sha256)

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
            sha256=photo.sha256 if reason is None else item.replaces,
            seconds_read=photo.seconds_read,
            seconds_restore=photo.seconds_restore,
            seconds_write=photo.seconds_write,
            precision=photo.precision,
            attempt=attempt,
            finished=now(),
            settings=self._record.fingerprint,
        )

    def _record_row(self, row: LedgerRow, ledger: Ledger, entry: str | None = None) -> None:
        ledger.add(row, entry)
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
        """Remove results of earlier runs, unless changed since, then the ledger: killed, it can be repeated."""
        ledger.load()
        for name in remove_results(self._inputs.target, self._earlier_results(ledger)):
            self._summary.note(name, "its result was changed since an earlier run made it, and stays")
        ledger.clear()
        self._remove_leftovers()

    def _earlier_results(self, ledger: Ledger) -> Iterator[tuple[str, set[str]]]:
        """Yield (name, each SHA-256 that it may have) of the results of earlier runs, killed ones included."""
        unrecorded = journal.noted(self._inputs.target)
        for row in ledger.results():
            name = from_text(row.target)
            yield name, {str(row.sha256), *unrecorded.pop(name, ())}
        yield from unrecorded.items()


def _is_same_input(item: Item, row: LedgerRow) -> bool:
    """Whether a row is about this very file, not changed since as far as the listing says."""
    if as_text(item.source) != row.source or item.offset != row.offset:
        return False
    listed = (item.size, item.version)
    return listed == (None, None) or listed == (row.source_bytes, row.source_version)
