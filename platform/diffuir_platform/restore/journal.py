"""The journal of an output: the SHA-256 of each result, noted before the result is written.

A row of the ledger follows its result, so a killed run leaves results without a row. By the journal the next run
knows that these are results, and that another file of the same name is not. A batch adds one small file to
`_diffuir/writing/`; the driver deletes it when the batch's rows are in the ledger, and the folder at the end.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from diffuir_core.errors import UserError

from .. import storage
from ..storage import retry

FOLDER = "writing"


def note(output: str, results: Mapping[str, str]) -> str:
    """Note results that are about to be written below the URI `output`; returns the URI of the entry.

    results: name of each result below `output` -> SHA-256 that it will have.
    """
    entry = f"{_folder(output)}/{uuid.uuid4().hex}.json"
    # ASCII, where bytes of names that are not UTF-8 are escaped like other characters.
    storage.write_bytes(entry, json.dumps(results).encode())
    return entry


def noted(output: str) -> dict[str, set[str]]:
    """Return all that the journal notes: name of a result -> each SHA-256 that it was to have."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for entry in _entries(output):
        try:
            results = json.loads(storage.read_bytes(entry))
        except storage.NotThere:  # its rows were recorded meanwhile
            continue
        for name, sha256 in results.items():
            found[name].add(sha256)
    return dict(found)


def forget(entries: Sequence[str]) -> None:
    """Delete entries whose results are in the ledger now; one that can't be deleted does no harm."""
    with suppress(UserError):
        retry(partial(storage.remove_files, entries))


def clear(output: str) -> None:
    """Delete all entries."""
    storage.remove_folder(_folder(output))


def _folder(output: str) -> str:
    return storage.join(output, f"{storage.OWN_FOLDER}/{FOLDER}")


def _entries(output: str) -> list[str]:
    # Listing a local folder that does not exist would be an error.
    folder = _folder(output)
    if not storage.exists(folder):
        return []
    return [uri for uri, _ in storage.list_files(folder) if uri.endswith(".json")]
