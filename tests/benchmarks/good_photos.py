"""Good pictures through the restorer, with and without the guard, and what the guard costs degraded ones.

python tests/benchmarks/good_photos.py [--pairs FOLDER] [--weights FILE] [--steps 3] [--json FILE]

30 pictures that need nothing: drawn ones of 480x320 pixels with fixed seeds, those that scikit-image bundles, and
four of the examples. `off`, `on`: PSNR on Y to the picture, dB, without and with the guard; `inf` is the picture
itself. With --pairs, a folder as `diffuir evaluate` takes it: the mean PSNR of each set, without and with the
guard. Larger pictures are reduced to 600 pixels.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from options import benchmark_parser, write_figures
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from diffuir_core import Restorer
from diffuir_core.guard import Verdict, judge
from diffuir_core.imaging import decode
from diffuir_core.metrics import psnr
from diffuir_core.pixels import Pixels
from diffuir_core.restorer import interpolate
from diffuir_platform.data import find_pairs
from diffuir_platform.data.examples import PHOTOS_FOLDER

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.drawn_pictures import KINDS

DRAWN = (
    ("night_sky", 30), ("night_sky", 31), ("star_field", 30), ("moon", 30),
    ("flat", 0), ("flat", 1), ("flat", 2), ("flat", 3), ("gradient", 30), ("gradient", 31),
    ("text_on_white", 30), ("text_on_colour", 30), ("dark_mode", 30), ("scan", 30),
    ("screenshot", 30), ("screenshot", 31), ("line_drawing", 30), ("chart", 30), ("chart", 31),
    ("fence", 30), ("trunks", 30), ("spokes", 30), ("grass", 30),
)  # fmt: skip
"""Kind and seed of each drawn picture."""
BUNDLED = ("hubble_deep_field", "moon", "page")
"""Pictures of scikit-image."""
EXAMPLES = ("bison", "coast", "metro_station", "rooftops")
HEIGHT, WIDTH = 320, 480
LONGEST = 600
"""Longest side of a picture that is restored, pixels."""


@dataclass(frozen=True)
class Kept:
    """PSNR of a good picture to itself, dB, without and with the guard, and the guard's verdict."""

    name: str
    off: float
    on: float
    share: float
    kind: str
    note: str | None


@dataclass(frozen=True)
class Gained:
    """PSNR of a photo to its truth, dB: degraded, restored without and with the guard; the guard's share."""

    set_name: str
    name: str
    before: float
    off: float
    on: float
    share: float


class Timed:
    """A restorer that tells its result with and without the guard, and adds up the time of both."""

    def __init__(self, restorer: Restorer) -> None:
        self._restorer = restorer
        self.restoring = self.judging = 0.0
        self.pixels = 0

    def __call__(self, picture: Pixels) -> tuple[Pixels, Pixels, Verdict]:
        """The picture restored without and with the guard, and the guard's verdict."""
        began = time.perf_counter()
        (off,) = self._restorer.restore([picture])
        restored = time.perf_counter()
        verdict = judge(picture, off)
        on = interpolate(picture, off, verdict.share)
        self.restoring += restored - began
        self.judging += time.perf_counter() - restored
        self.pixels += math.prod(picture.shape[:2])
        return off, on, verdict


def reduced(picture: Pixels) -> Pixels:
    """The picture, uint8 (H, W, 3) RGB, with at most LONGEST pixels a side."""
    image = Image.fromarray(picture).convert("RGB")
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(image)


def good_pictures() -> Iterator[tuple[str, Pixels]]:
    """Name and pixels of each of the 30 pictures."""
    for kind, seed in DRAWN:
        yield f"{kind} {seed}", KINDS[kind](seed, HEIGHT, WIDTH)
    for name in BUNDLED:
        yield f"skimage {name}", reduced(getattr(data, name)())
    for name in EXAMPLES:
        yield f"example {name}", reduced(decode((PHOTOS_FOLDER / f"{name}.jpg").read_bytes()).pixels)


def measure_good(restorer: Timed) -> list[Kept]:
    """Measure the good pictures, and print a table of them and their median and minimum."""
    rows = []
    for name, picture in good_pictures():
        off, on, verdict = restorer(picture)
        rows.append(
            Kept(name, psnr(off, picture), psnr(on, picture), verdict.share, verdict.kind, verdict.note),
        )
    table = Table("picture", "off", "on", "made", "implausible for")
    for row in rows:
        table.add_row(
            row.name, f"{row.off:.1f}", f"{row.on:.1f}", f"{row.share:.0%}", row.kind if row.note else ""
        )
    for word, summary in (("median", statistics.median), ("minimum", min)):
        table.add_row(word, *(f"{summary(getattr(row, side) for row in rows):.1f}" for side in ("off", "on")))
    Console(width=160).print(table)
    silent = [row.name for row in rows if row.on < 35 and row.note is None]
    Console(width=160).print(f"under 35 dB without a note: {', '.join(silent) or 'none'}")
    return rows


def measure_pairs(restorer: Timed, folder: Path) -> list[Gained]:
    """Measure the pairs below a folder, and print a table of the means of their sets."""
    rows = []
    for pair in find_pairs(folder):
        degraded, clean = (reduced(decode(path.read_bytes()).pixels) for path in (pair.degraded, pair.clean))
        off, on, verdict = restorer(degraded)
        scores = (psnr(picture, clean) for picture in (degraded, off, on))
        rows.append(Gained(pair.set_name, pair.key, *scores, verdict.share))
    table = Table("set", "pairs", "before", "off", "on", "difference", "held back")
    for name in dict.fromkeys(row.set_name for row in rows):
        members = [row for row in rows if row.set_name == name]
        before, off, on = (
            statistics.fmean(getattr(row, side) for row in members) for side in ("before", "off", "on")
        )
        held = sum(row.share < 1 for row in members)
        figures = (f"{before:.2f}", f"{off:.2f}", f"{on:.2f}", f"{on - off:+.3f}", f"{held}")
        table.add_row(name, f"{len(members)}", *figures)
    Console(width=160).print(table)
    return rows


def main() -> None:
    """Measure and print."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--pairs", type=Path, metavar="FOLDER", help="folder of pairs to measure as well")
    parser.add_argument("--weights", help="weights; none for those that ship")
    parser.add_argument("--steps", type=int, default=3, help="sampling steps")
    options = parser.parse_args()
    restorer = Timed(Restorer(options.weights, precision="float32", steps=options.steps, guard=False))
    figures: dict[str, object] = {"good": [asdict(row) for row in measure_good(restorer)]}
    if options.pairs:
        figures["pairs"] = [asdict(row) for row in measure_pairs(restorer, options.pairs)]
    figures["guard_ms_per_megapixel"] = restorer.judging * 1e9 / restorer.pixels
    figures["guard_share_of_time"] = restorer.judging / (restorer.restoring + restorer.judging)
    print(
        f"the guard took {figures['guard_ms_per_megapixel']:.0f} ms a megapixel, "
        f"{figures['guard_share_of_time']:.2%} of the time"
    )
    write_figures(options, figures)


if __name__ == "__main__":
    main()
