"""Ray Data's scheduling loop, kept from spinning.

In Ray 2.60 the loop of `StreamingExecutor` waits for tasks, and where none may be started because enough is
loaded already it goes round without a pause: it takes a whole core, and in a training worker, whose process it
runs in, the interpreter lock as well. Waiting costs 1.0 CPU seconds a second without a pause and 0.025 with one
(tests/benchmarks/pacing.py).
"""

from __future__ import annotations

import time

from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

PAUSE_S = 0.05
"""Short against the time of a batch, long against that of a round (1 ms, several on a busy machine)."""


class Paced(ExecutionCallback):  # type: ignore[misc]
    """Pauses after every round of the loop."""

    def on_execution_step(self, executor: object) -> None:
        """Ray Data calls this at the end of each round."""
        time.sleep(PAUSE_S)


def pace(context: DataContext) -> None:
    """Have every data set that is run under `context` pause between rounds."""
    if Paced not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Paced)
