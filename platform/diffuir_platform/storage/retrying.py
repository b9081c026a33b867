"""Asking a store again that failed one request of millions: hours of work must not end for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_chain, wait_random

from .errors import Busy

PAUSES = (0.2, 1.0, 4.0, 15.0)
"""Shortest pauses between two attempts, seconds; each is up to twice as long, at random. The store's own client
has retried before."""

ResultT = TypeVar("ResultT")


def retry(run: Callable[[], ResultT], failing: tuple[type[Exception], ...] = (Busy,)) -> ResultT:
    """What `run` returns; where it raises one of `failing`, it is called again after each of PAUSES.

    Errors that would be the same the next time are not retried: no such file, no rights, no photo.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(failing),
        wait=wait_chain(*(wait_random(pause, 2 * pause) for pause in PAUSES)),
        stop=stop_after_attempt(len(PAUSES) + 1),
        reraise=True,
    )
    return attempts(run)
