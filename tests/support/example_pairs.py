"""Makes the degraded side of the example pairs from their clean side.

python tests/support/example_pairs.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from diffuir_core.degradations import TASKS
from diffuir_core.imaging import Pixels, decode
from diffuir_platform.data.examples import DRAWS, PAIRS_FOLDER, typical


def degraded_pairs() -> Iterator[tuple[Path, Pixels]]:
    """Each degraded photo of the pairs: its path, and its pixels as they are made from the clean one."""
    for task in TASKS:
        for place, clean in enumerate(sorted((PAIRS_FOLDER / task / "clean").iterdir())):
            pixels = decode(clean.read_bytes()).pixels
            yield PAIRS_FOLDER / task / "degraded" / clean.name, typical(task, pixels, seed=place * DRAWS)


def main() -> None:
    for path, pixels in degraded_pairs():
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, quality=95, subsampling=0, optimize=True)


if __name__ == "__main__":
    main()
