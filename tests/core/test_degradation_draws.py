"""Two degradations at once, a camera's traces, and pictures with nothing wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffuir_core.degradations import (
    TASKS,
    BlurParams,
    CameraParams,
    HazeParams,
    LowLightParams,
    RainParams,
    StreakLayer,
    blur,
    camera,
    degrade,
    good_picture,
    haze,
    low_light,
    rain,
)
from diffuir_core.degradations._fields import clipped_lights
from diffuir_core.pixels import Pixels

NO_TRACES = CameraParams(photons=1e7, read_noise=0, smoothing=0, scale=1, sharpening=0, quality=100)


def difference(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(int) - b).mean())


def detail(picture: Pixels) -> float:
    return float(np.abs(np.diff(picture.astype(int), axis=1)).mean())


@pytest.mark.parametrize("task", TASKS)
def test_without_shares_a_photo_is_degraded_by_its_task_alone(task: str, photo: Pixels) -> None:
    alone = [degrade(task, photo, seed) for seed in range(8)]
    with_second = [degrade(task, photo, seed, second=1) for seed in range(8)]
    some = [degrade(task, photo, seed, second=0.5) for seed in range(8)]
    assert all(difference(a, b) > 0 for a, b in zip(alone, with_second, strict=True))
    assert {s.tobytes() for s in some} <= {p.tobytes() for p in (*alone, *with_second)}
    assert any(np.array_equal(a, b) for a, b in zip(alone, some, strict=True))


def test_a_second_degradation_makes_a_photo_worse(photo: Pixels) -> None:
    def harm(second: float) -> float:
        return float(
            np.mean([difference(degrade(t, photo, s, second=second), photo) for t in TASKS for s in range(8)])
        )

    assert harm(1) > 1.2 * harm(0)


def test_traces_come_on_top(photo: Pixels) -> None:
    assert np.array_equal(degrade("rain", photo, 4, traces=1), camera(degrade("rain", photo, 4), 4))


def test_a_camera_without_traces_changes_nothing(photo: Pixels) -> None:
    assert difference(camera(photo, 0, NO_TRACES), photo) < 0.1


def test_each_trace_is_what_it_says(photo: Pixels) -> None:
    noisy = camera(photo, 0, replace(NO_TRACES, photons=300))
    assert 3 < difference(noisy, photo) < 15
    assert detail(camera(photo, 0, replace(NO_TRACES, sharpening=1))) > 1.2 * detail(photo)
    assert detail(camera(photo, 0, replace(NO_TRACES, scale=0.5))) < 0.9 * detail(photo)
    by_quality = [difference(camera(photo, 0, replace(NO_TRACES, quality=q)), photo) for q in (95, 60, 20)]
    assert by_quality == sorted(by_quality)
    assert by_quality[0] > 0.2


def test_a_turning_camera_blurs_the_corners_more_than_the_middle() -> None:
    dots = np.zeros((201, 201, 3), np.uint8)
    dots[100, 100] = dots[10, 10] = 255
    params = BlurParams(
        extent=0, second_extent=-1, shake=0, in_levels=False, defocus=0, noise=0, rotation=8, highlights=0
    )
    turned = blur(dots, 0, params)
    middle, corner = turned[90:111, 90:111], turned[:40, :40]
    assert middle.max() > 200
    assert corner.max() < 150
    assert np.count_nonzero(corner.max(-1) > 20) > 8


def test_an_object_moves_before_a_still_background(photo: Pixels) -> None:
    params = BlurParams(
        extent=0, second_extent=25, shake=0, in_levels=False, defocus=0, noise=0, rotation=0, highlights=0
    )
    changed = np.abs(blur(photo, 3, params).astype(int) - photo).max(-1) > 1
    assert 0.02 < changed.mean() < 0.8


def test_lights_beyond_white_leave_bright_traces() -> None:
    night = np.full((80, 80, 3), 10, np.uint8)
    night[39:41, 39:41] = 255
    assert clipped_lights(night).sum() == 4
    assert clipped_lights(np.full((9, 9, 3), 255, np.uint8)).sum() == 0
    params = BlurParams(extent=20, second_extent=-1, shake=0, in_levels=False, defocus=0, noise=0)
    plain, bright = (blur(night, 0, replace(params, highlights=light)) for light in (0.0, 20.0))
    assert plain.max() < 140
    assert bright.max() == 255


def test_transparent_streaks_vanish_on_a_bright_sky() -> None:
    photo = np.full((120, 120, 3), 40, np.uint8)
    photo[:, :60] = 230
    layer = StreakLayer(angle=0, spread=1, length=30, width=2, coverage=0.4, intensity=0.8)
    params = RainParams(layers=(layer,), screen=0, unevenness=0, tint=(1, 1, 1), veil=0, airlight=1, glow=0.9)
    wet = rain(photo, 0, params).astype(int)
    assert np.abs(wet[:, :60] - 230).max() <= 1
    assert 40 < wet[:, 60:].max() <= 230


def test_drops_on_the_lens_show_the_scene_upside_down() -> None:
    photo = np.zeros((200, 200, 3), np.uint8)
    photo[100:] = 200
    wet = camera(photo, 1, replace(NO_TRACES, drops=30, drop_radius=15)).astype(int)
    assert wet[60:95].max() > 100, "above the horizon a drop shows the ground"
    assert wet[105:140].min() < 100


def test_uneven_haze_and_its_glow(photo: Pixels) -> None:
    params = HazeParams(
        beta=1, airlight=(0.3, 0.3, 0.3), near=0.5, far=0.5, gradient=0, relief=0, regions=0, horizon=0
    )
    even, uneven = (haze(photo, 2, replace(params, unevenness=u)).astype(int) for u in (0.0, 0.9))
    assert np.abs(uneven - even).max() > 20
    night = np.full((100, 100, 3), 5, np.uint8)
    night[48:52, 48:52] = 255
    dull, glowing = (haze(night, 2, replace(params, glow=g)).astype(int) for g in (0.0, 1.5))
    around, far = (slice(40, 60), slice(40, 60)), (slice(0, 10), slice(0, 10))
    assert (glowing - dull)[around].mean() > (glowing - dull)[far].mean() + 1


def test_lamps_light_a_part_of_a_dark_scene(photo: Pixels) -> None:
    params = LowLightParams(
        ev=-4, gamma=1, cast=(1, 1, 1), unevenness=0, photons=1e7, read_noise=0, gains=(1, 1, 1), smoothing=0
    )
    dark = low_light(photo, 3, params).astype(int)
    lit = low_light(photo, 3, replace(params, lamps=2, lamplight=4)).astype(int)
    assert (lit - dark).min() >= -1
    assert np.ptp(lit - dark) > 60


def test_good_pictures_are_of_many_kinds_and_pure() -> None:
    pictures = [good_picture(seed, 64, 96) for seed in range(60)]
    assert all(p.shape == (64, 96, 3) and p.dtype == np.uint8 for p in pictures)
    assert np.array_equal(pictures[7], good_picture(7, 64, 96))
    means = [p.mean() for p in pictures]
    assert min(means) < 15
    assert max(means) > 240
    assert sum(p.std() <= 2 for p in pictures) >= 2, "flat frames"
    assert len({p.tobytes() for p in pictures}) > 50


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (16, 16)])
def test_good_pictures_of_any_size(size: tuple[int, int]) -> None:
    for seed in range(40):
        assert good_picture(seed, *size).shape == (*size, 3)
