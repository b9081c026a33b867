"""Rain, snow, haze, low light and blur made from a clean photo, each a pure function of photo and seed."""

from collections.abc import Callable, Mapping

from ._fields import Photo
from .blur import BlurParams, blur
from .haze import HazeParams, haze
from .low_light import LowLightParams, low_light
from .rain import RainParams, StreakLayer, rain
from .snow import FlakeLayer, SnowParams, snow

TASKS: tuple[str, ...] = ("haze", "rain", "snow", "low_light", "blur")
DEGRADATIONS: Mapping[str, Callable[[Photo, int], Photo]] = {
    "haze": haze,
    "rain": rain,
    "snow": snow,
    "low_light": low_light,
    "blur": blur,
}


def degrade(task: str, clean: Photo, seed: int) -> Photo:
    """`clean`, uint8 (H, W, 3) RGB, degraded by one of TASKS with parameters drawn from seed >= 0.

    ValueError for an unknown task, or if `clean` is no such photo.
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
