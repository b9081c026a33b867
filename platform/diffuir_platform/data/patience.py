"""Asking a store again that failed one request of millions: hours of work must not end for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .. import storage

BUSY_WAITS = (1.0, 4.0, 15.0)
"""Seconds before each of the next attempts."""
FoundT = TypeVar("FoundT")


def patiently(read: Callable[[], FoundT]) -> FoundT:
    """What `read` gives; raises `storage.Busy` where it does so each time."""
    for wait in BUSY_WAITS:
        try:
            return read()
        except storage.Busy:
            time.sleep(wait)
    return read()
