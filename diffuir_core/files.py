"""Atomic writes: a file appears under its name only when it is complete."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".diffuir-"
"""Start of the names of files that are still being written."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Replace the file `path` atomically by what the block writes to the temporary path that it is given.

    The temporary file is in the same folder, which is made if it is missing, and is renamed to `path` at the end
    of the block. If the block raises, `path` stays as it was and the temporary file is removed.
    """
    target = Path(path)
    if not os.path.isdir(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / temporary_name()
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_name() -> str:
    """A new hidden file name, unique among writers, with an ending that is no photo's."""
    return f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:16]}.part"
