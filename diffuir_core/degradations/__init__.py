"""Synthetic rain, snow, haze, low light and blur, each a pure function of a clean photo and a seed.

Two of them may fall on one photo, and a camera's own traces on all of it; pictures with nothing wrong are drawn.
platform/EXTENDING.md shows how to add a degradation.
"""

from collections.abc import Callable, Mapping

import numpy as np

from ..pixels import Pixels
from .blur import BlurParams, blur
from .camera import CameraParams, camera
from .good import good_picture
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


_FROM_SCENE_TO_SENSOR = ("haze", "snow", "rain", "blur", "low_light")
"""The order in which two degradations of one photo happen."""


def degrade(task: str, clean: Pixels, seed: int, *, second: float = 0.0, traces: float = 0.0) -> Pixels:
    """Degrade a photo with parameters drawn from `seed`; the same arguments give the same bytes.

    task: one of TASKS. clean: uint8 (H, W, 3) RGB. seed: >= 0. second: probability of a second degradation.
    traces: probability of a camera's own traces. Returns uint8 (H, W, 3). Raises ValueError for an unknown task or
    another array.
    """
    if task not in DEGRADATIONS:
        raise ValueError(f"there is no degradation {task!r}; choose one of {', '.join(TASKS)}")
    rng = np.random.default_rng((seed, 3))
    others = [other for other in TASKS if other != task]
    tasks = [task, others[int(rng.integers(len(others)))]] if rng.random() < second else [task]
    photo = clean
    for number, each in enumerate(sorted(tasks, key=_order)):
        # A task's own draw depends neither on a second one nor on its place.
        photo = DEGRADATIONS[each](photo, seed if each == task else seed + 1 + number)
    return camera(photo, seed) if rng.random() < traces else photo


def _order(task: str) -> int:
    # Degradations that were added to the table happen last.
    known = _FROM_SCENE_TO_SENSOR
    return known.index(task) if task in known else len(known)


__all__ = [
    "DEGRADATIONS",
    "TASKS",
    "BlurParams",
    "CameraParams",
    "FlakeLayer",
    "HazeParams",
    "LowLightParams",
    "RainParams",
    "SnowParams",
    "StreakLayer",
    "blur",
    "camera",
    "degrade",
    "good_picture",
    "haze",
    "low_light",
    "rain",
    "snow",
]
