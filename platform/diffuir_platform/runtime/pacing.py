"""Ray Data's scheduling loop, kept from spinning.

In Ray 2.60 the loop of `StreamingExecutor` waits for tasks, and where none may be started because enough is
loaded already it goes round without a pause: it takes a whole core, and in a training worker, whose process it
runs in, the interpreter lock as well. Waiting costs 1.0 CPU seconds a second without a pause and 0.01 with one
(tests/benchmarks/pacing.py).
"""

from __future__ import annotations

import time

from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor

PAUSE_S = 0.05
"""Short against the time of a task, long against that of a round (1 ms, several on a busy machine)."""

LONGEST_PAUSE_S = 0.4
"""What the pause grows to, twice as long each time, while rounds find nothing to do: short against the time that
what is loaded ahead lasts."""


class Paced(ExecutionCallback):  # type: ignore[misc]
    """Pauses after every round of the loop."""

    def __init__(self) -> None:
        self._done: list[tuple[int, int]] = []
        self._pause = PAUSE_S
        self._resumed = time.monotonic()

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Ray Data calls this at the end of each round."""
        done = [
            (operator.metrics.num_tasks_submitted, operator.metrics.num_outputs_taken)
            for operator in executor._topology
        ]
        # A round that takes its time has waited for a task, and would start the next one at once.
        found_nothing = done == self._done and time.monotonic() - self._resumed < PAUSE_S
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S) if found_nothing else PAUSE_S
        self._done = done
        time.sleep(self._pause)
        self._resumed = time.monotonic()


def pace(context: DataContext) -> None:
    """Have every data set that is run under `context` pause between rounds."""
    if Paced not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Paced)
