"""Retries of requests that a store failed: one of millions must not end hours of work."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_random

from .errors import Busy, Unwritable

PAUSES = (0.2, 1.0, 4.0, 15.0)
"""Shortest pauses between the attempts, seconds; at random each is up to twice as long. The store's client has
done its own retries before."""

ResultT = TypeVar("ResultT")


def retry(run: Callable[[], ResultT], failing: tuple[type[Exception], ...] = (Busy,)) -> ResultT:
    """Call `run` and return its result; where it raises one of `failing`, call it again after each of PAUSES.

    Errors that would be the same the next time are not retried: a missing file, missing rights, a full disk, a
    file that is no photo.
    """
    return _attempts(failing)(run)


@cache
def _attempts(failing: tuple[type[Exception], ...]) -> Retrying:
    return Retrying(
        retry=retry_if_exception(lambda e: isinstance(e, failing) and not isinstance(e, Unwritable)),
        wait=wait_chain(*(wait_random(pause, 2 * pause) for pause in PAUSES)),
        stop=stop_after_attempt(len(PAUSES) + 1),
        reraise=True,
    )
