"""CPU time that pauses in Ray Data's loop save in a process that waits while enough is loaded.

python tests/benchmarks/pacing.py [--seconds 4] [--turns 3] [--json FILE]

Prints the CPU seconds per second of waiting with and without `diffuir_platform.runtime.pacing`, in turns in one
process, and their ratio.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import ray
import ray.data
from options import benchmark_parser, write_figures

from diffuir_platform.runtime import ray_session
from diffuir_platform.runtime.pacing import pause_between_rounds


def waiting_cost(paced: bool, seconds: float) -> float:
    """CPU seconds per second of a consumer that takes one row and then none, while loading is throttled."""
    context = ray.data.DataContext.get_current()
    context.custom_execution_callback_classes.clear()
    if paced:
        pause_between_rounds(context)
    options = context.execution_options
    options.resource_limits = options.resource_limits.copy(object_store_memory=16 * 2**20)
    rows = ray.data.range(4000, override_num_blocks=1000).map(lambda row: {"x": np.zeros(2**18, np.uint8)})
    taken = iter(rows.iter_rows())
    next(taken)
    time.sleep(2)
    began = time.process_time()
    time.sleep(seconds)
    cost = (time.process_time() - began) / seconds
    del taken
    return cost


def main() -> None:
    """Measure in turns and print."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a measurement, seconds")
    parser.add_argument("--turns", type=int, default=3, help="measurements of each side")
    options = parser.parse_args()
    with ray_session(data=True):
        turns = []
        for _ in range(options.turns):
            without, paced = (waiting_cost(side, options.seconds) for side in (False, True))
            turns.append((without, paced))
            ratio = without / paced
            print(
                f"without: {without:.3f} CPU s/s  paced: {paced:.3f} CPU s/s  ratio {ratio:.1f}", flush=True
            )
    print(f"median ratio {statistics.median(a / b for a, b in turns):.1f}")
    write_figures(options, vars(options) | {"cpu_seconds_without_and_paced": turns})


if __name__ == "__main__":
    main()
