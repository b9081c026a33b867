"""Ray Data's scheduling loop, kept from spinning.

In Ray 2.60 the loop of `StreamingExecutor` waits for tasks, but where none may be started because enough data is
loaded already it goes round without a pause: it takes a whole core, and in a training worker, whose process it
runs in, the interpreter lock as well. Waiting costs 1.0 CPU seconds a second without a pause and 0.01 with one
(tests/benchmarks/pacing.py).
"""

from __future__ import annotations

import time
from typing import Any

from ray.data import DataContext

from .private import execution_callback, task_counts

PAUSE_S = 0.05
"""Pause after a round that found something to do, seconds: short against a task, long against a round (1 ms,
several on a busy machine)."""

LONGEST_PAUSE_S = 0.4
"""Longest pause, seconds; it doubles with each round that finds nothing to do. Short against the time that the
data loaded ahead lasts."""


class PausingCallback(execution_callback()):  # type: ignore[misc]
    """Pauses after every round of the loop."""

    def __init__(self) -> None:
        self._counts: list[tuple[int, int]] = []
        self._pause = PAUSE_S
        self._resumed = time.monotonic()

    def on_execution_step(self, executor: Any) -> None:
        """Pause; Ray Data calls this at the end of each round."""
        counts = task_counts(executor)
        # A round that takes its time has waited for a task, and would start the next one at once.
        found_nothing = counts == self._counts and time.monotonic() - self._resumed < PAUSE_S
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S) if found_nothing else PAUSE_S
        self._counts = counts
        time.sleep(self._pause)
        self._resumed = time.monotonic()


def pause_between_rounds(context: DataContext) -> None:
    """Have every data set that is run under `context` pause between rounds."""
    if PausingCallback not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(PausingCallback)
