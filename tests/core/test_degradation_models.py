"""Each degradation follows the model it names: streaks, flakes, scattering, exposure, camera paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from diffuir_core.degradations import (
    BlurParams,
    FlakeLayer,
    HazeParams,
    LowLightParams,
    RainParams,
    SnowParams,
    StreakLayer,
    blur,
    haze,
    low_light,
    rain,
    snow,
)
from diffuir_core.degradations._fields import from_linear, to_linear
from diffuir_core.degradations.blur import _by_fourier, _by_shifts, camera_kernel
from diffuir_core.degradations.haze import depth
from diffuir_core.pixels import Pixels

STREAKS = StreakLayer(angle=10, spread=2, length=20, width=1.5, coverage=0.3, intensity=0.6)
RAIN = RainParams(layers=(STREAKS,), screen=0, unevenness=0, tint=(1, 1, 1), veil=0, airlight=1)
FLAKES = FlakeLayer(radius=1.5, coverage=0.1, opacity=0.9, motion=4, angle=20, softness=0.5)
SNOW = SnowParams(layers=(FLAKES,), colour=(1, 1, 1), veil=0, airlight=1)
HAZE = HazeParams(
    beta=1, airlight=(0.8, 0.9, 1), near=0.2, far=0.9, gradient=1, relief=0.3, regions=0.5, horizon=0.2
)
DARK = LowLightParams(
    ev=-3,
    gamma=1,
    cast=(1, 1, 1),
    unevenness=0,
    photons=1e7,
    read_noise=0,
    gains=(1, 1, 1),
    smoothing=0,
)
BLUR = BlurParams(extent=9, second_extent=-1, shake=0.5, in_levels=False, defocus=0, noise=0)


def flat(level: int, height: int = 40, width: int = 60) -> Pixels:
    return np.full((height, width, 3), level, np.uint8)


@pytest.mark.parametrize(
    ("params", "name", "value"),
    [
        (STREAKS, "angle", 81),
        (STREAKS, "spread", -1),
        (STREAKS, "length", 0.5),
        (STREAKS, "width", 13),
        (STREAKS, "coverage", 3.1),
        (STREAKS, "intensity", 1.1),
        (RAIN, "layers", ()),
        (RAIN, "screen", 1.5),
        (RAIN, "tint", (1, 0.5, 1)),
        (RAIN, "veil", 0.9),
        (FLAKES, "radius", 0.1),
        (FLAKES, "softness", float("nan")),
        (SNOW, "layers", ()),
        (SNOW, "colour", (1, 1, 1.2)),
        (HAZE, "beta", -0.1),
        (HAZE, "airlight", (0.1, 1, 1)),
        (HAZE, "unevenness", 1.5),
        (HAZE, "glow", 3),
        (RAIN, "glow", 2),
        (HAZE, "far", 0.1),
        (DARK, "ev", 1),
        (DARK, "photons", 0),
        (DARK, "gains", (0.5, 1, 1)),
        (BLUR, "extent", 64),
        (BLUR, "noise", -1),
    ],
)
def test_a_parameter_out_of_its_range_is_refused_by_name(params: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{type(params).__name__}\.{name} must"):
        replace(params, **{name: value})


def test_rain_without_intensity_and_veil_is_the_clean_photo(photo: Pixels) -> None:
    none = replace(RAIN, layers=(replace(STREAKS, intensity=0),))
    assert np.array_equal(rain(photo, 0, none), photo)


def test_rain_adds_light_where_streaks_are_and_leaves_the_rest() -> None:
    wet = rain(flat(60, 120, 160), 0, RAIN)
    assert wet.min() == 60
    assert 0.1 < np.mean(wet[..., 0] > 64) < 0.6
    assert wet.max() - 60 > 255 * 0.3


def test_streaks_run_along_their_angle() -> None:
    wide = np.zeros((200, 200, 3), np.uint8)
    for angle in (0, 60):
        layer = replace(STREAKS, angle=angle, spread=0, coverage=0.1, length=25)
        wet = rain(wide, 1, replace(RAIN, layers=(layer,)))[..., 0].astype(np.float64)
        wet -= wet.mean()
        step = np.rint(6 * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])).astype(int)
        along = np.mean(wet[: 200 - step[0], : 200 - step[1]] * wet[step[0] :, step[1] :])
        across = np.mean(wet[: 200 - step[1], step[0] :] * wet[step[1] :, : 200 - step[0]])
        assert along > 5 * max(across, 0)


def test_a_screened_streak_adds_nothing_to_white_and_less_to_bright() -> None:
    screened = replace(RAIN, screen=1)
    assert np.array_equal(rain(flat(255), 0, screened), flat(255))
    added = [float(rain(flat(level), 0, screened).mean()) - level for level in (0, 80, 160)]
    assert added[0] > added[1] > added[2] > 0


def test_the_streaks_light_depends_on_coverage_and_not_on_width() -> None:
    black = np.zeros((300, 300, 3), np.uint8)
    means = []
    for width in (1.0, 2.0, 4.0):
        layer = replace(STREAKS, width=width, length=40, coverage=0.05)
        wet = np.stack([rain(black, seed, replace(RAIN, layers=(layer,))) for seed in range(12)])
        means.append(float(wet.mean()))
    assert max(means) < 1.2 * min(means)


def test_the_veil_pulls_towards_its_airlight() -> None:
    none = replace(STREAKS, intensity=0)
    veiled = rain(flat(50), 0, replace(RAIN, layers=(none,), veil=0.5, airlight=0.8)).astype(float)
    # The opacity is 70 to 100% of what is asked for, over the photo.
    assert veiled.min() >= 50 + 0.35 * (204 - 50) - 1
    assert veiled.max() <= 50 + 0.5 * (204 - 50) + 1


# --- snow ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [1.5, 8.0], ids=["small", "large"])
def test_snow_lies_between_the_photo_and_the_flakes_colour(radius: float) -> None:
    layer = replace(FLAKES, radius=radius)
    snowy = snow(flat(70, 150, 200), 0, replace(SNOW, layers=(layer,), colour=(0.9, 0.9, 0.9)))
    assert snowy.min() == 70
    assert snowy.max() <= round(0.9 * 255)
    assert 0.02 < np.mean(snowy[..., 0] > 80) < 0.35


@pytest.mark.parametrize("radius", [1.5, 8.0], ids=["small", "large"])
def test_snow_without_opacity_is_the_clean_photo(radius: float, photo: Pixels) -> None:
    layer = replace(FLAKES, radius=radius, opacity=0)
    assert np.array_equal(snow(photo, 0, replace(SNOW, layers=(layer,))), photo)


@pytest.mark.parametrize("radius", [1.0, 8.0], ids=["small", "large"])
def test_more_coverage_is_more_snow(radius: float) -> None:
    means = [
        snow(flat(0, 200, 200), 0, replace(SNOW, layers=(replace(FLAKES, radius=radius, coverage=c),))).mean()
        for c in (0.02, 0.1, 0.4)
    ]
    assert means[0] < means[1] < means[2]


# --- haze ----------------------------------------------------------------------------------------------------


def test_haze_over_a_flat_scene_is_the_scattering_equation(photo: Pixels) -> None:
    params = replace(HAZE, near=0.6, far=0.6, beta=1.3)
    transmission = np.exp(-1.3 * 0.6)
    airlight = 255 * np.array(params.airlight)
    expected = photo * transmission + airlight * (1 - transmission)
    assert np.abs(haze(photo, 0, params) - expected).max() <= 0.51


def test_denser_haze_comes_closer_to_its_airlight(photo: Pixels) -> None:
    airlight = 255 * np.array(HAZE.airlight)
    distances = [np.abs(haze(photo, 0, replace(HAZE, beta=b)) - airlight).mean() for b in (0, 0.5, 1, 2, 5)]
    assert distances == sorted(distances, reverse=True)
    assert np.array_equal(haze(photo, 0, replace(HAZE, beta=0)), photo)


def test_depth_fills_its_range_and_grows_towards_the_top(photo: Pixels) -> None:
    made_up = depth(photo, replace(HAZE, relief=0, regions=0), np.random.default_rng(0))
    assert made_up.min() == pytest.approx(0.2, abs=1e-5)
    assert made_up.max() == pytest.approx(0.9, abs=1e-5)
    assert made_up[:20].mean() > made_up[-20:].mean() + 0.3


def test_depth_steps_where_the_photo_does() -> None:
    scene = flat(20, 96, 96)
    scene[:, 48:] = 230
    made_up = depth(scene, replace(HAZE, gradient=0, relief=0, regions=1), np.random.default_rng(0))
    step = np.abs(np.diff(made_up, axis=1)).mean(axis=0)
    assert step.argmax() == 47
    assert step[47] > 5 * np.median(step)


# --- low light -----------------------------------------------------------------------------------------------


def test_an_exposure_without_noise_is_exact_in_linear_light(photo: Pixels) -> None:
    expected = from_linear(to_linear(photo) / 8)
    assert np.abs(low_light(photo, 0, DARK) - expected).max() <= 1.6


def test_less_exposure_and_more_gamma_are_darker(photo: Pixels) -> None:
    by_exposure = [low_light(photo, 0, replace(DARK, ev=ev)).mean() for ev in (-1, -3, -5)]
    by_gamma = [low_light(photo, 0, replace(DARK, gamma=gamma)).mean() for gamma in (1, 1.5, 2)]
    assert by_exposure == sorted(by_exposure, reverse=True)
    assert by_gamma == sorted(by_gamma, reverse=True)


def test_the_noise_has_the_variance_of_the_model() -> None:
    params = replace(DARK, ev=0, photons=2000, read_noise=0.01, gains=(2, 1, 1))
    noisy = to_linear(low_light(flat(128, 300, 300), 0, params)).astype(np.float64)
    light = float(to_linear(flat(128))[0, 0, 0])
    for channel, gain in enumerate(params.gains):
        expected = np.sqrt(light * gain / 2000 + (gain * 0.01) ** 2)
        assert noisy[..., channel].std() == pytest.approx(expected, rel=0.05)
    assert noisy.mean() == pytest.approx(light, rel=0.02)


def test_smoothed_noise_keeps_its_variance_and_is_correlated() -> None:
    rough, smooth = (
        low_light(flat(128, 200, 200), 0, replace(DARK, ev=0, photons=500, smoothing=s)).astype(float)
        for s in (0, 1)
    )
    assert smooth.std() == pytest.approx(rough.std(), rel=0.05)

    def neighbours(noise: NDArray[np.float64]) -> float:
        return float(np.corrcoef(noise[:, 1:, 0].ravel(), noise[:, :-1, 0].ravel())[0, 1])

    assert abs(neighbours(rough)) < 0.05
    assert neighbours(smooth) > 0.4


# --- blur ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_levels", [False, True])
@pytest.mark.parametrize("level", [0, 1, 77, 200, 255])
def test_an_even_photo_stays_as_it_is(in_levels: bool, level: int) -> None:
    params = replace(BLUR, in_levels=in_levels, second_extent=5, defocus=1.5)
    difference = blur(flat(level), 4, params).astype(int) - level
    assert np.abs(difference).max() <= 1


def test_blur_keeps_the_light(photo: Pixels) -> None:
    light = to_linear(photo).mean()
    assert to_linear(blur(photo, 1, BLUR)).mean() == pytest.approx(light, rel=0.02)
    assert blur(photo, 1, replace(BLUR, in_levels=True)).mean() == pytest.approx(photo.mean(), rel=0.02)


def test_a_longer_path_is_blurrier_and_none_is_sharp(photo: Pixels) -> None:
    detail = [
        np.abs(np.diff(blur(photo, 2, replace(BLUR, extent=extent)).astype(float), axis=1)).mean()
        for extent in (0, 4, 12, 31)
    ]
    assert detail == sorted(detail, reverse=True)
    assert np.array_equal(blur(photo, 2, replace(BLUR, extent=0)), photo)


@pytest.mark.parametrize("extent", [0.0, 0.7, 9.0, 31.0])
@pytest.mark.parametrize("shake", [0.0, 0.5, 1.0])
def test_a_kernel_is_the_trace_of_its_path(extent: float, shake: float) -> None:
    for seed in range(5):
        kernel = camera_kernel(np.random.default_rng(seed), extent, shake, 0)
        assert kernel.min() >= 0
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        rows, columns = np.nonzero(kernel > 1e-6)
        side = max(np.ptp(rows), np.ptp(columns))
        assert extent - 0.01 <= side <= extent + 2
        offsets = np.arange(len(kernel)) - len(kernel) // 2
        centre = [float((kernel.sum(axis) * offsets).sum()) for axis in (0, 1)]
        assert centre == pytest.approx([0, 0], abs=1e-3)


def test_a_point_of_light_shows_the_kernel_by_both_ways_of_computing() -> None:
    kernel = camera_kernel(np.random.default_rng(3), 15, 0.8, 1)
    size = len(kernel)
    dark = np.zeros((3 * size - 2, 3 * size - 2, 3), np.float32)
    dark[size * 3 // 2 - 1, size * 3 // 2 - 1] = 1
    for way in (_by_shifts, _by_fourier):
        trace = way(dark, kernel)[:, :, 1]
        top = size * 3 // 2 - 1 - (size - 1)
        assert np.abs(trace[top : top + size, top : top + size] - kernel).max() < 1e-6
        assert trace.sum() == pytest.approx(1, abs=1e-4)
