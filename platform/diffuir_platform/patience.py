"""Asking a store again that failed one request of millions: hours of work must not end for it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from . import storage

PATIENCE = (0.2, 1.0, 4.0, 15.0)
"""Seconds between one attempt at the store and the next, each by chance up to twice as long: it is asked five
times, after what its own client tries."""

ResultT = TypeVar("ResultT")


def patiently(run: Callable[[], ResultT], failing: tuple[type[Exception], ...] = (storage.Busy,)) -> ResultT:
    """What `run` returns; where it raises one of `failing`, again after each of PATIENCE.

    What would be no other the next time is not tried again: no such file, no rights, no photo.
    """
    for pause in PATIENCE:
        try:
            return run()
        except failing:
            time.sleep(pause * (1 + random.random()))
    return run()
