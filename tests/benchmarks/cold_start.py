"""Time of `diffuir restore` for one photo, from the command to the file, beside that of the network alone.

python tests/benchmarks/cold_start.py [--turns 5] [--busy 0] [--avx2] [--compare active] [--json FILE]

The command, cold, and the network, warm in a process that has restored a photo before, take turns. Prints the
seconds until the command's first word and its end, those of the network, and the ratio of the two. With
`--compare active` the command's waiting threads spin every other turn, as OpenMP's do by default.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from options import benchmark_parser, write_figures
from PIL import Image

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""Environment in which torch uses the instructions of an older CPU only."""

WARM = """
import sys, time
import numpy
from PIL import Image
from diffuir_core import Restorer
pixels = numpy.asarray(Image.open(sys.argv[1]))
restorer = Restorer()
restorer.restore([pixels])
for _ in sys.stdin:
    began = time.perf_counter()
    restorer.restore([pixels])
    print(time.perf_counter() - began, flush=True)
"""


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """Inside, `count` other processes are busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def cold(photo: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds until the first word and until the end of the command."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "diffuir_platform.cli", "restore", str(photo), f"{folder}/"]
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert process.stderr is not None
        process.stderr.readline()
        first = time.perf_counter() - began
        process.communicate()
        assert process.returncode == 0
        return first, time.perf_counter() - began


def main() -> None:
    """Measure in turns and print."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--turns", type=int, default=5, help="measurements of each side")
    parser.add_argument("--busy", type=int, default=0, help="spinning processes beside it")
    parser.add_argument(
        "--avx2", action="store_true", help="let torch use the instructions of an older CPU only"
    )
    parser.add_argument("--compare", choices=["network", "active"], default="network", help="the other side")
    options = parser.parse_args()
    environment = {**os.environ, **(AVX2 if options.avx2 else {})}
    example = Path(__file__).parents[2] / "platform/diffuir_platform/data/examples/pairs/rain/degraded"
    turns = []
    with tempfile.TemporaryDirectory() as folder, spinning(options.busy):
        photo = Path(folder) / "photo.jpg"
        Image.open(min(example.iterdir())).convert("RGB").resize((600, 450)).save(photo, quality=92)
        warm = subprocess.Popen(
            [sys.executable, "-c", WARM, str(photo)],
            env={**environment, "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert warm.stdin is not None
        assert warm.stdout is not None
        for _ in range(options.turns):
            if options.compare == "network":
                warm.stdin.write("\n")
                other = float(warm.stdout.readline())
            else:
                _, other = cold(photo, {**environment, "OMP_WAIT_POLICY": "ACTIVE"})
            first, whole = cold(photo, environment)
            turns.append((first, whole, other))
            print(
                f"first word {first:.2f} s  command {whole:.2f} s  {options.compare} {other:.2f} s",
                flush=True,
            )
        warm.stdin.close()
        warm.wait()
    first, whole, other = (min(values) for values in zip(*turns, strict=True))
    ratio = statistics.median(command / beside for _, command, beside in turns)
    print(f"fastest: first word {first:.2f} s  command {whole:.2f} s  {options.compare} {other:.2f} s")
    print(f"median ratio {ratio:.2f}")
    write_figures(options, vars(options) | {"first_command_other": turns})


if __name__ == "__main__":
    main()
