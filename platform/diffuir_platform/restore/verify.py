"""`diffuir restore --verify`: what is in an output, against its ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from diffuir_core.errors import UserError

from .. import storage
from ..text import counted, one_line
from .ledger import Ledger, Row, as_text, from_text, results_in

READERS = 32
NAMED_AT_MOST = 1000


@dataclass
class Verified:
    """What a check found. wrong: key to reason, the first NAMED_AT_MOST."""

    right: int = 0
    failed: int = 0
    """Inputs that have no result, as the ledger says."""
    bad: int = 0
    wrong: dict[str, str] = field(default_factory=dict)
    unknown: int = 0
    """Files that the ledger does not know."""

    def lines(self) -> list[str]:
        """For a person, a line each."""
        lines = [f"{counted(self.right, 'result')} as the ledger says, {self.bad:,} not"]
        lines += [f"  {one_line(key)}: {reason}" for key, reason in self.wrong.items()]
        if self.failed:
            lines.append(f"{counted(self.failed, 'input')} failed and without a result")
        if self.unknown:
            lines.append(f"{counted(self.unknown, 'other file')} in the output, not known to the ledger")
        return lines


def verify(target: str) -> Verified:
    """Read every result of the output `target` and compare its hash; raises `UserError` where it has no ledger."""
    target = storage.absolute(target)
    found = Verified()
    with Ledger(storage.join(target, storage.OWN_FOLDER)) as ledger, ThreadPoolExecutor(READERS) as readers:
        if not ledger.load():
            raise UserError(f"{target} has no ledger: nothing was restored into it, or a single photo")
        found.failed = ledger.count("failed")
        for row, reason in _checked(ledger.rows("done"), target, readers):
            if reason is None:
                found.right += 1
                continue
            found.bad += 1
            if len(found.wrong) < NAMED_AT_MOST:
                found.wrong[from_text(row.key)] = reason
        ledger.note_present((as_text(name), size) for name, size in results_in(target))
        found.unknown = ledger.count_unknown()
    return found


def _checked(
    rows: Iterable[Row], target: str, readers: ThreadPoolExecutor
) -> Iterator[tuple[Row, str | None]]:
    rows = iter(rows)
    while batch := list(islice(rows, 8 * READERS)):
        yield from zip(batch, readers.map(lambda row: _reason(row, target), batch), strict=True)


def _reason(row: Row, target: str) -> str | None:
    """Why a result is not as its row says; None where it is."""
    try:
        data = storage.read_bytes(storage.join(target, from_text(row.target)))
    except storage.NotThere:
        return "its result is missing"
    if hashlib.sha256(data).hexdigest() != row.sha256:
        return "its result was changed"
    return None
