"""What pacing Ray Data's loop saves: CPU time of the process that waits, with enough loaded already.

python tests/benchmarks/pacing.py prints the CPU seconds that each second of waiting costs with and without
`diffuir_platform.pacing`, in turns in one process, and their ratio.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import ray
import ray.data

from diffuir_platform.runtime import ray_session
from diffuir_platform.runtime.pacing import pace

SECONDS = 4.0
TURNS = 3


def waiting_cost(paced: bool) -> float:
    """CPU seconds per second of a consumer that takes one row and then nothing, while loading is held back."""
    context = ray.data.DataContext.get_current()
    context.custom_execution_callback_classes.clear()
    if paced:
        pace(context)
    options = context.execution_options
    options.resource_limits = options.resource_limits.copy(object_store_memory=16 * 2**20)
    rows = ray.data.range(4000, override_num_blocks=1000).map(lambda row: {"x": np.zeros(2**18, np.uint8)})
    taken = iter(rows.iter_rows())
    next(taken)
    time.sleep(2)
    began = time.process_time()
    time.sleep(SECONDS)
    cost = (time.process_time() - began) / SECONDS
    del taken
    return cost


def main() -> None:
    """Measure in turns and print."""
    with ray_session(data=True):
        turns = []
        for _ in range(TURNS):
            without, paced = waiting_cost(paced=False), waiting_cost(paced=True)
            turns.append((without, paced))
            ratio = without / paced
            print(
                f"without: {without:.3f} CPU s/s  paced: {paced:.3f} CPU s/s  ratio {ratio:.1f}", flush=True
            )
    print(f"median ratio {statistics.median(a / b for a, b in turns):.1f}")


if __name__ == "__main__":
    main()
