"""Synthetic rain, snow, haze, low light and blur, each a pure function of a clean photo and a seed.

platform/EXTENDING.md shows how to add one.
"""

from collections.abc import Callable, Mapping

from ..pixels import Pixels
from .blur import BlurParams, blur
from .haze import HazeParams, haze
from .low_light import LowLightParams, low_light
from .rain import RainParams, StreakLayer, rain
from .snow import FlakeLayer, SnowParams, snow

DEGRADATIONS: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    "haze": haze,
    "rain": rain,
    "snow": snow,
    "low_light": low_light,
    "blur": blur,
}
"""Task -> its degradation, a function of a clean photo and a seed."""
TASKS: tuple[str, ...] = tuple(DEGRADATIONS)
"""The tasks, in the order of tables and mixtures."""


def degrade(task: str, clean: Pixels, seed: int) -> Pixels:
    """Degrade a photo with parameters drawn from `seed`; the same arguments give the same bytes.

    task: one of TASKS. clean: uint8 (H, W, 3) RGB. seed: >= 0. Returns uint8 (H, W, 3). Raises ValueError for an
    unknown task or another array.
    """
    if task not in DEGRADATIONS:
        raise ValueError(f"there is no degradation {task!r}; choose one of {', '.join(TASKS)}")
    return DEGRADATIONS[task](clean, seed)


__all__ = [
    "DEGRADATIONS",
    "TASKS",
    "BlurParams",
    "FlakeLayer",
    "HazeParams",
    "LowLightParams",
    "RainParams",
    "SnowParams",
    "StreakLayer",
    "blur",
    "degrade",
    "haze",
    "low_light",
    "rain",
    "snow",
]
