"""Properties of all five degradations: pure functions of photo and seed, with severities from faint to heavy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from diffuir_core import degradations
from diffuir_core.degradations import (
    DEGRADATIONS,
    TASKS,
    BlurParams,
    HazeParams,
    LowLightParams,
    RainParams,
    SnowParams,
    degrade,
)
from diffuir_core.degradations._fields import (
    NEARLY_NONE,
    from_linear,
    gaussian_blur,
    generators,
    splat,
    to_linear,
)
from diffuir_core.pixels import Pixels

PARAMS: dict[str, type[Any]] = {
    "haze": HazeParams,
    "rain": RainParams,
    "snow": SnowParams,
    "low_light": LowLightParams,
    "blur": BlurParams,
}


def psnr(a: Pixels, b: Pixels) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


def test_tasks_name_the_five_functions() -> None:
    assert TASKS == ("haze", "rain", "snow", "low_light", "blur")
    assert set(DEGRADATIONS) == set(TASKS)
    assert all(DEGRADATIONS[task] is getattr(degradations, task) for task in TASKS)
    with pytest.raises(ValueError, match=r"no degradation 'fog'.*haze, rain"):
        degrade("fog", np.zeros((9, 9, 3), np.uint8), 0)


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_bytes_and_another_seed_another_picture(task: str, photo: Pixels) -> None:
    before = photo.copy()
    pictures = [degrade(task, photo, seed) for seed in range(6)]
    for seed, picture in enumerate(pictures):
        assert picture.dtype == np.uint8
        assert picture.shape == photo.shape
        assert np.array_equal(picture, degrade(task, photo, seed))
    assert len({picture.tobytes() for picture in pictures}) == 6
    assert np.array_equal(photo, before)


@pytest.mark.parametrize("task", TASKS)
def test_other_random_generators_and_threads_change_nothing(task: str, photo: Pixels) -> None:
    expected = degrade(task, photo, 3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        torch.manual_seed(99)
        np.random.seed(99)
        assert np.array_equal(degrade(task, photo, 3), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("task", TASKS)
def test_drawn_parameters_can_be_given(task: str, photo: Pixels) -> None:
    params = PARAMS[task].draw(generators(7)[0])
    function: Callable[..., Pixels] = DEGRADATIONS[task]
    assert np.array_equal(function(photo, 7, params), function(photo, 7))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (41, 1), (2, 3), (33, 47)])
def test_any_size_is_taken(task: str, shape: tuple[int, int]) -> None:
    small = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for seed in range(12):
        assert degrade(task, small, seed).shape == small.shape


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_photos_are_taken(task: str, level: int) -> None:
    for seed in range(8):
        assert degrade(task, np.full((40, 60, 3), level, np.uint8), seed).shape == (40, 60, 3)


@pytest.mark.parametrize("task", TASKS)
def test_a_view_that_is_not_contiguous_gives_the_same_picture(task: str, photo: Pixels) -> None:
    view = photo[::2, ::-1]
    assert np.array_equal(degrade(task, view, 5), degrade(task, np.ascontiguousarray(view), 5))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[[0, 0, 0]]],
    ],
    ids=["float", "grey", "alpha", "empty", "list"],
)
def test_anything_but_a_photo_is_refused(task: str, bad: Any) -> None:
    with pytest.raises(ValueError, match="a photo must"):
        degrade(task, bad, 0)


@pytest.mark.parametrize("task", TASKS)
def test_two_thousand_draws_stay_within_their_ranges(task: str) -> None:
    rng = np.random.default_rng(0)
    assert len({PARAMS[task].draw(rng) for _ in range(2000)}) == 2000


@pytest.mark.parametrize(
    ("task", "heavy", "middle"),
    [
        ("haze", 14, (14, 24)),
        ("rain", 14, (16, 26)),
        ("snow", 16, (16, 25)),
        ("low_light", 8, (6, 14)),
        ("blur", 22, (21, 31)),
    ],
)
def test_severity_reaches_from_nearly_clean_to_heavy(
    task: str, heavy: float, middle: tuple[float, float], photo: Pixels
) -> None:
    values = [psnr(degrade(task, photo, seed), photo) for seed in range(60)]
    assert np.quantile(values, 0.1) <= heavy
    assert middle[0] <= np.median(values) <= middle[1]
    nearly_clean = 28 if task == "low_light" else 34
    share = np.mean(np.array(values) >= nearly_clean)
    assert 0.1 <= share <= 0.45


@pytest.mark.parametrize(
    ("task", "is_nearly_none"),
    [
        ("haze", lambda params: params.beta <= 0.15),
        ("low_light", lambda params: params.ev >= -0.15),
        ("blur", lambda params: params.extent < 1 and params.second_extent < 0),
    ],
)
def test_the_share_of_draws_that_hardly_change_the_photo(
    task: str, is_nearly_none: Callable[[Any], bool]
) -> None:
    rng = np.random.default_rng(1)
    share = np.mean([is_nearly_none(PARAMS[task].draw(rng)) for _ in range(4000)])
    assert share == pytest.approx(NEARLY_NONE, abs=0.02)


# --- their building blocks------------------------------------------------------------------------------------


def test_the_curve_and_its_inverse_agree_at_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8)
    assert np.abs(from_linear(to_linear(levels)) - levels).max() < 0.05
    assert to_linear(levels)[[0, 255]] == pytest.approx([0, 1])
    # Half of the light is level 187.5 (IEC 61966-2-1).
    assert from_linear(np.float32([0.5]))[0] == pytest.approx(187.52, abs=0.03)


def test_a_point_between_pixels_is_shared_by_area() -> None:
    canvas = splat(3, 4, np.array([1.25, -5.0]), np.array([2.5, 1.0]), np.array([8.0, 1.0]))
    expected = np.zeros((3, 4))
    expected[1, 2:] = 3
    expected[2, 2:] = 1
    assert np.allclose(canvas, expected)


def test_a_gaussian_blur_keeps_the_sum_and_has_its_width() -> None:
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1
    spread = gaussian_blur(point, 2)
    offsets = np.arange(41) - 20
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert np.sqrt((spread.sum(0) * offsets**2).sum()) == pytest.approx(2, rel=0.05)
