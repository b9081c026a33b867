"""Writing so that a name never stands for half a file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".diffuir-"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, whose folder is made where it is missing.

    What the block writes there takes the name `path` at its end, in one rename; where the block raises, `path` is
    as it was and nothing is left.
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
    """A hidden name that no other writer takes and that no run takes for a photo."""
    return f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:16]}.part"
