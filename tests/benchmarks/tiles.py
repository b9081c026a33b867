"""Quality and time of restoring in tiles beside restoring whole, with norms of each tile or of the image.

python tests/benchmarks/tiles.py [--photos FOLDER] [--tiles 128 256 384] [--count 5] [--json FILE]

Restores the centres (up to 768x512) of `--count` photos of at least 400x400 pixels in 3 steps in float32. `dB`:
PSNR against the whole image's result, mean and least. `seam`: mean difference of neighbouring pixels across the
borders of tiles over that beside them, divided by the same ratio of the whole image's result; 1 for invisible
borders. `time`: relative to the whole image's.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
from options import benchmark_parser, write_figures
from photos import degraded_photos
from rich.console import Console
from rich.table import Table
from torch import Tensor

from diffuir_core import Restorer, norms
from diffuir_core.imaging import FORMAT_OF_SUFFIX, decode
from diffuir_core.metrics import psnr
from diffuir_core.pixels import Pixels
from diffuir_core.tiling import Tiling

HEIGHT, WIDTH = 512, 768
"""Largest part of a photo that is restored, pixels."""
LEAST_SIDE = 400
"""Least side of a photo that is used, pixels."""
BESIDE = 4
"""Distance from a border up to which pixels count as beside it."""


def seam(image: Pixels, tiling: Tiling) -> float:
    """The mean difference of neighbouring pixels across the borders of tiles, over that beside them."""
    across, beside = [], []
    for axis, side in ((0, tiling.height), (1, tiling.width)):
        steps = np.abs(np.diff(image.astype(np.float32), axis=axis)).mean(axis=(1 - axis, 2))
        spans = {window[axis].indices(side)[:2] for window in tiling.windows}
        borders = {border for span in spans for border in span} - {0, side}
        for border in borders:
            across.append(steps[border - 1])
            around = range(max(border - 1 - BESIDE, 0), min(border + BESIDE, len(steps)))
            beside += [steps[i] for i in around if i + 1 not in borders]
    return float(np.mean(across) / np.mean(beside))


@contextmanager
def own_statistics() -> Iterator[None]:
    """Norms with each tile's own statistics, without the pass that gathers the image's."""
    normed = norms.StepNorm._normed

    def normed_alone(self: norms.StepNorm, x: Tensor, step: norms.Step) -> Tensor:
        return normed(self, x, norms.Step(step.number))

    no_tiles = SimpleNamespace(windows=[])
    with (
        patch.object(norms.StepNorm, "_normed", normed_alone),
        patch.object(Tiling, "edge_to_edge", no_tiles),
    ):
        yield


def timed(restorer: Restorer, image: Pixels) -> tuple[Pixels, float]:
    """Restore an image; returns the result and the seconds it took."""
    began = time.perf_counter()
    (restored,) = restorer.restore([image])
    return restored, time.perf_counter() - began


def photos_in(folder: Path) -> list[Pixels]:
    """All photos below a folder, in the order of their names."""
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in FORMAT_OF_SUFFIX)
    return [decode(file.read_bytes()).pixels for file in files]


def centre(pixels: Pixels) -> Pixels:
    """The centre of a photo, at most `HEIGHT` x `WIDTH`."""
    top, left = max(pixels.shape[0] - HEIGHT, 0) // 2, max(pixels.shape[1] - WIDTH, 0) // 2
    return np.ascontiguousarray(pixels[top : top + HEIGHT, left : left + WIDTH])


def main() -> None:
    """Measure and print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--photos", type=Path, help="folder of photos; None for degraded ones of scikit-image"
    )
    parser.add_argument(
        "--tiles", nargs="+", type=int, default=[128, 256, 384], help="sides of tiles, pixels"
    )
    parser.add_argument("--count", type=int, default=5, help="number of photos")
    options = parser.parse_args()
    photos = photos_in(options.photos) if options.photos else degraded_photos()
    images = [centre(photo) for photo in photos if min(photo.shape[:2]) >= LEAST_SIDE]
    if not images:
        parser.error(f"{options.photos} holds no photo of at least {LEAST_SIDE}x{LEAST_SIDE} pixels")
    images = images[:: max(1, len(images) // options.count)][: options.count]
    whole = [timed(Restorer(precision="float32", guard=False), image) for image in images]
    table = Table("tile", "norms of", "dB", "least dB", "seam", "time")
    lines = []
    for tile, kind in itertools.product(options.tiles, ("each tile", "the image")):
        restorer = Restorer(precision="float32", tile=tile, guard=False)
        figures: dict[str, list[float]] = {"db": [], "seam": [], "time": []}
        for image, (expected, took) in zip(images, whole, strict=True):
            tiling = restorer.plan(*image.shape[:2]).tiling
            if tiling is None:  # one tile would cover the image
                continue
            if kind == "each tile":
                with own_statistics():
                    restored, seconds = timed(restorer, image)
            else:
                restored, seconds = timed(restorer, image)
            figures["db"].append(psnr(restored, expected, "rgb"))
            figures["seam"].append(seam(restored, tiling) / seam(expected, tiling))
            figures["time"].append(seconds / took)
        means = {name: statistics.mean(values) for name, values in figures.items()}
        lines.append({"tile": tile, "norms": kind, "photos": len(images), **figures})
        table.add_row(
            str(tile),
            kind,
            f"{means['db']:.1f}",
            f"{min(figures['db']):.1f}",
            f"{means['seam']:.3f}",
            f"{means['time']:.1f}",
        )
    Console().print(table)
    write_figures(options, lines)


if __name__ == "__main__":
    main()
