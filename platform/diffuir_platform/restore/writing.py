"""Results of an output: writing one so that it replaces nothing but an earlier one, finding and removing them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from diffuir_core.errors import UserError

from .. import storage
from ..storage import retry

RETRIED = (storage.Busy, storage.StoreError)
"""Errors of the store that are retried. StoreError too: with many nodes at work, one may not reach the store for a
while."""
REMEDY = "move it, or give --overwrite"
"""End of the reason of a photo whose result would replace a file that is not an earlier result of its own."""
READERS = 32
"""Results read at the same time."""
_PIECE = 2**20


def write_result(
    uri: str, data: bytes, *, replaces: str | None, noted: Callable[[], Mapping[str, set[str]]], name: str
) -> None:
    """Write a result, whole or not at all, in place of nothing or of an earlier result of the same input.

    replaces: SHA-256 of the earlier result that the ledger names; None where it names none. noted: returns what
    the journal notes (`journal.noted`), called only where a file is there. name: the result's name in the journal.
    Raises `UserError`, which ends with REMEDY, where a file is in the way; it stays as it is.
    """
    found = None
    for _ in range(2):  # what is in the way may be gone when it is looked at
        if retry(partial(storage.write_new, uri, data), RETRIED):
            return
        found = retry(partial(_present, uri, data), RETRIED)
        if found is not None:
            break
    sha256, is_start = found or ("", False)
    if sha256 == hashlib.sha256(data).hexdigest():
        return
    earlier = {replaces} - {None}
    if sha256 not in earlier:
        earlier |= noted().get(name, set())
    # The start of this very result, cut off as the machine went down: nothing is in it that is not in the new one.
    if sha256 in earlier or (earlier and is_start):
        retry(partial(storage.write_bytes, uri, data), RETRIED)
        return
    wrong = (
        "its result was changed since it was made"
        if replaces
        else "a file that this command did not make is in the way"
    )
    raise UserError(f"{wrong} ({uri}): {REMEDY}")


def results_in(output: str) -> Iterator[tuple[str, int]]:
    """Yield (name, size in bytes) of every file of an output except those in its `_diffuir`."""
    prefix = output.rstrip("/") + "/"
    for uri, size in storage.list_files(output):
        name = uri.removeprefix(prefix)
        if not name.startswith(f"{storage.OWN_FOLDER}/"):
            yield name, size


def remove_results(folder: str, results: Iterable[tuple[str, Collection[str]]]) -> Iterator[str]:
    """Delete results below the URI `folder`; yields the names of those that were changed since, which stay.

    results: the name of each, and every SHA-256 that it may have. Several are read at a time.
    """

    def is_removed(result: tuple[str, Collection[str]]) -> bool:
        name, earlier = result
        uri = f"{folder}/{name}"
        found = retry(partial(_present, uri, b""), RETRIED)
        if found is not None and (found[0] in earlier or found[1]):  # or it is empty
            retry(partial(storage.remove_file, uri), RETRIED)
            return True
        return found is None

    results = iter(results)
    with ThreadPoolExecutor(READERS) as readers:
        while batch := list(islice(results, 8 * READERS)):
            removed = readers.map(is_removed, batch)
            yield from (name for (name, _), is_gone in zip(batch, removed, strict=True) if not is_gone)


def _present(uri: str, data: bytes) -> tuple[str, bool] | None:
    """Return the SHA-256 of a file and whether `data` begins with its bytes; None where there is no file.

    A file that may not be read has an empty SHA-256.
    """
    if not storage.is_file(uri):  # to open a pipe would wait for its writer
        return None
    digest, size, is_start = hashlib.sha256(), 0, True
    try:
        with storage.translated_errors(uri, "read"), storage.open_file(uri, block_size=_PIECE) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                is_start = is_start and data[size : size + len(piece)] == piece
                size += len(piece)
    except storage.NotThere:
        return None
    except (storage.Busy, storage.StoreError):
        raise
    except UserError:
        return "", False
    return digest.hexdigest(), is_start
