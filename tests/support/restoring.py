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
SECONDS = 0.05
"""Time that a photo takes, seconds."""


class Cheap:
    """A restorer without a network, which adds a little of the noise drawn from the photo's content."""

    precision = "float32"

    def __init__(self, weights: Path | None) -> None: ...

    def restorations(self, images: Sequence[np.ndarray]) -> list[Restoration]:
        restored = []
        for image in images:
            if tuple(image[0, 0]) == POISON:
                os.kill(os.getpid(), signal.SIGKILL)
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
    """Restore with `Cheap`, two attempts for each photo, `changes` of the options, and `more` for `restore`."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    options = RestoreOptions(**{"address": address, "models": models, "attempts": 2} | dict(changes))
    return restore(source, target, options, restorer=Cheap, **more)  # type: ignore[arg-type]


if __name__ == "__main__":
    source, target, address, models = sys.argv[1:]
    summary = run(source, target, address or None, int(models))
    print("\n".join(summary.lines()), flush=True)
    sys.exit(summary.exit_code)
