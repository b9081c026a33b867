"""The listing of a restore's inputs: all at once for a sample, or in a thread while photos are restored."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from .inputs import Inputs, Item
from .refusals import is_single_photo
from .settings import RestoreOptions
from .single_photo import single_item

MAX_LISTED_AHEAD = 2_000
"""Inputs that the listing may be ahead of the restoring."""


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
        return iter((single_item(source, target, options.format, options.overwrite)[0],))
    return iter(Inputs(source, target, options.format, options.choice))
