"""`diffuir restore --verify`: compares the files of an output with its ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from diffuir_core.errors import UserError

from .. import storage
from ..text import counted, one_line
from .ledger import Ledger, LedgerRow
from .names import as_text, from_text
from .writing import READERS, results_in

NAMED_AT_MOST = 1000
"""Most wrong results that are kept by name."""


@dataclass
class Verification:
    """Counts of an output's files compared with its ledger."""

    right: int = 0
    """Results that are as the ledger says."""
    failed: int = 0
    """Inputs that failed, and so have no result, by the ledger."""
    bad: int = 0
    """Results that are missing or changed."""
    wrong: dict[str, str] = field(default_factory=dict)
    """Key -> what is wrong, of the first NAMED_AT_MOST results that are missing or changed."""
    unknown: int = 0
    """Files of the output that no done row of the ledger names."""

    def lines(self) -> list[str]:
        """Return the counts as lines for a person."""
        lines = [f"as the ledger says: {counted(self.right, 'result')}; missing or changed: {self.bad:,}"]
        lines += [f"  {one_line(key)}: {reason}" for key, reason in self.wrong.items()]
        if self.failed:
            lines.append(f"failed, so without a result: {counted(self.failed, 'input')}")
        if self.unknown:
            lines.append(f"in the output but not in the ledger: {counted(self.unknown, 'other file')}")
        return lines


def verify(target: str) -> Verification:
    """Read every result of the output `target` and compare its hash; raises `UserError` where it has no ledger."""
    target = storage.absolute(target)
    found = Verification()
    with Ledger(storage.join(target, storage.OWN_FOLDER)) as ledger, ThreadPoolExecutor(READERS) as readers:
        if not ledger.load():
            raise UserError(f"{target} has no ledger: give the OUT of a restore of more than one photo")
        found.failed = ledger.count("failed")
        for row, reason in _check_rows(ledger.rows("done"), target, readers):
            if reason is None:
                found.right += 1
                continue
            found.bad += 1
            if len(found.wrong) < NAMED_AT_MOST:
                found.wrong[from_text(row.key)] = reason
        ledger.note_present((as_text(name), size) for name, size in results_in(target))
        found.unknown = ledger.count_unknown()
    return found


def _check_rows(
    rows: Iterable[LedgerRow], target: str, readers: ThreadPoolExecutor
) -> Iterator[tuple[LedgerRow, str | None]]:
    """Yield each row with what is wrong with its result; None where nothing is."""
    rows = iter(rows)
    while batch := list(islice(rows, 8 * READERS)):
        yield from zip(batch, readers.map(lambda row: _check_result(row, target), batch), strict=True)


def _check_result(row: LedgerRow, target: str) -> str | None:
    """Return what is wrong with a result; None where it is as its row says."""
    try:
        data = storage.read_bytes(storage.join(target, from_text(row.target)))
    except storage.NotThere:
        return "its result is missing"
    if hashlib.sha256(data).hexdigest() != row.sha256:
        return "its result was changed"
    return None
