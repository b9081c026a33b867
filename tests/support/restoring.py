"""A driver that tests kill: restores IN to OUT on the cluster at ADDRESS with a cheap restorer.

python restoring.py IN OUT ADDRESS MODELS
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray import cloudpickle

from diffuir_core.restorer import Restoration, content_noise
from diffuir_platform.restore import RestoreOptions, restore
from diffuir_platform.restore.summary import Summary

POISON = (250, 1, 250)
"""Colour of a photo's first pixel that kills the process restoring it, as the system does when memory runs out."""
POISONS: dict[str, tuple[int, int, int]] = {
    "killed": POISON,
    "exits": (250, 2, 250),
    "crashes": (250, 3, 250),
    "allocates": (250, 4, 250),
    "hangs": (250, 5, 250),
}
"""What becomes of the process that restores a photo, and the colour of the photo's first pixel."""
TIMEOUT = 10.0
"""Time after which a photo is given up, seconds."""
CHANGES = {"attempts": 2, "timeout": TIMEOUT}
"""Options for photos of which some are poisoned."""
SECONDS = 0.05
"""Time that a photo takes, seconds."""


def take_poison(colour: tuple[int, ...]) -> None:
    """End or hold up this process in the manner of `POISONS`, or do nothing for any other colour."""
    if colour == POISONS["killed"]:
        os.kill(os.getpid(), signal.SIGKILL)
    elif colour == POISONS["exits"]:
        os._exit(7)
    elif colour == POISONS["crashes"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif colour == POISONS["allocates"]:
        taken = []
        while True:
            taken.append(np.ones(2**23))
    elif colour == POISONS["hangs"]:
        while True:
            pass


class Cheap:
    """A restorer without a network, which adds a little of the noise drawn from the photo's content."""

    precision = "float32"

    def __init__(self, weights: Path | None) -> None: ...

    def restorations(self, images: Sequence[np.ndarray]) -> list[Restoration]:
        restored = []
        for image in images:
            take_poison(tuple(image[0, 0]))
            time.sleep(SECONDS)
            noise = content_noise(image[:64, :64], 0)[0].permute(1, 2, 0).numpy()
            pixels = image.copy()
            pixels[:64, :64] = np.clip(image[:64, :64] + 8 * noise, 0, 255).astype(np.uint8)
            restored.append(Restoration(pixels, None))
        return restored


def run(
    source: str,
    target: str,
    address: str | None,
    models: int,
    *,
    changes: Mapping[str, Any] = {},
    **more: bool,
) -> Summary:
    """Restore with `Cheap`, `CHANGES` and `changes` of the options, and `more` for `restore`."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    options = RestoreOptions(**CHANGES | {"address": address, "models": models} | dict(changes))
    return restore(source, target, options, restorer=Cheap, **more)  # type: ignore[arg-type]


if __name__ == "__main__":
    source, target, address, models = sys.argv[1:]
    summary = run(source, target, address or None, int(models))
    print("\n".join(summary.lines()), flush=True)
    sys.exit(summary.exit_code)
