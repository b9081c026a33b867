"""What tiles cost: restored in tiles beside restored whole, with each tile's own norms and with the whole image's.

python tests/benchmarks/tiles.py [--photos FOLDER] [--tiles 128 256 384] [--count 5] [--json FILE]

Over the centres (768x512) of `--count` photos, 3 steps, float32. `dB`: PSNR against the whole image's result, the
mean and the least. `seam`: the mean step between neighbouring pixels across the borders of tiles, relative to the
step beside them, over the same of the whole image's result: 1 where nobody could tell. `time`: over that of the
whole image.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor

from diffuir_core import Restorer, norms
from diffuir_core.imaging import FORMAT_OF_SUFFIX, decode
from diffuir_core.metrics import psnr
from diffuir_core.tiling import Tiling

HEIGHT, WIDTH = 512, 768
BESIDE = 4
"""Pixels from a border within which its surroundings lie."""


def seam(image: np.ndarray, tiling: Tiling) -> float:
    """Mean step across the borders of tiles over the mean step beside them; image: uint8 (H, W, 3)."""
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
    """Each tile with its own norms, as if there were no correction, and without the pass that it needs."""
    with_the_image = norms.StepNorm._normed

    def alone(self: norms.StepNorm, x: Tensor, step: norms.Step) -> Tensor:
        return with_the_image(self, x, norms.Step(step.number))

    no_tiles = SimpleNamespace(windows=[])
    with patch.object(norms.StepNorm, "_normed", alone), patch.object(Tiling, "edge_to_edge", no_tiles):
        yield


def timed(restorer: Restorer, image: np.ndarray) -> tuple[np.ndarray, float]:
    """The restored image and the seconds it took."""
    began = time.perf_counter()
    (restored,) = restorer.restore([image])
    return restored, time.perf_counter() - began


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos/real"))
    parser.add_argument("--tiles", nargs="+", type=int, default=[128, 256, 384])
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--json", help="write the figures here too")
    asked = parser.parse_args()
    files = sorted(f for f in asked.photos.rglob("*") if f.suffix.lower() in FORMAT_OF_SUFFIX)
    images = []
    for file in files:
        pixels = decode(file.read_bytes()).pixels
        if pixels.shape[0] >= 400 and pixels.shape[1] >= 400:
            top, left = max(pixels.shape[0] - HEIGHT, 0) // 2, max(pixels.shape[1] - WIDTH, 0) // 2
            images.append(np.ascontiguousarray(pixels[top : top + HEIGHT, left : left + WIDTH]))
    images = images[:: max(1, len(images) // asked.count)][: asked.count]
    whole = [timed(Restorer(precision="float32"), image) for image in images]
    table = Table("tile", "norms of", "dB", "least dB", "seam", "time")
    lines = []
    for tile, kind in itertools.product(asked.tiles, ("each tile", "the image")):
        restorer = Restorer(precision="float32", tile=tile)
        figures: dict[str, list[float]] = {"db": [], "seam": [], "time": []}
        for image, (expected, took) in zip(images, whole, strict=True):
            tiling = restorer.plan(*image.shape[:2]).tiling
            if tiling is None:
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
    if asked.json:
        Path(asked.json).write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
