"""PSNR and SSIM agree with published values under each protocol, and refuse images that can't be compared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from diffuir_core.errors import UserError
from diffuir_core.metrics import (
    DEFAULT_PROTOCOL,
    PROTOCOLS,
    MetricError,
    Protocol,
    ProtocolName,
    find_protocol,
    grey,
    luma,
    psnr,
    ssim,
)
from diffuir_core.pixels import Pixels

# PSNR on RGB and SSIM on rounded grey of TID2013 pairs, as pyiqa publishes them from the authors' MATLAB code.
# The photos may not be redistributed, so they are compared only where they are at hand.
TID2013 = {
    "I03": (21.11, 0.6993),
    "I04": (20.99, 0.9978),
    "I06": (27.01, 0.9989),
    "I08": (23.30, 0.9669),
    "I19": (21.62, 0.6519),
}
# Mean SSIM of the inputs of a few test pairs by the published code: on Y, and on RGB as on UDC.
RELEASED = {
    "gopro": (2, 0.7836, 0.8468),
    "lol_eval15": (5, 0.4498, 0.1758),
    "rain100h": (4, 0.3942, 0.5069),
    "rain100l": (3, 0.8896, 0.9511),
    "sots_outdoor": (1, 0.8757, 0.7989),
}


def photo(seed: int, height: int = 24, width: int = 31) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(level: int, size: int = 32) -> Pixels:
    return np.full((size, size, 3), level, dtype=np.uint8)


def open_rgb(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_every_protocol_is_in_the_table_under_its_name() -> None:
    assert tuple(PROTOCOLS) == get_args(ProtocolName)
    assert [protocol.name for protocol in PROTOCOLS.values()] == list(PROTOCOLS)
    assert PROTOCOLS[DEFAULT_PROTOCOL].channel == "y"
    assert find_protocol(PROTOCOLS["rgb"]) is PROTOCOLS["rgb"]
    assert len({(p.channel, p.rounded, p.borders, p.window, p.crop) for p in PROTOCOLS.values()}) == len(
        PROTOCOLS
    )


@pytest.mark.parametrize("name", TID2013)
def test_published_values_of_tid2013_pairs(shared: Path, name: str) -> None:
    folder = shared / "metric_reference" / "pyiqa_tid2013"
    clean, degraded = (open_rgb(folder / side / f"{name}.bmp") for side in ("ref_dir", "dist_dir"))
    expected_psnr, expected_ssim = TID2013[name]
    assert psnr(degraded, clean, "rgb") == pytest.approx(expected_psnr, abs=0.005)
    assert ssim(degraded, clean, "gray") == pytest.approx(expected_ssim, abs=5.1e-5)


@pytest.mark.parametrize("name", RELEASED)
def test_values_of_the_published_code_on_test_pairs(shared: Path, name: str) -> None:
    folder = shared / "photos" / "pairs" / name
    degraded = sorted((folder / "degraded").iterdir())
    pairs = [(open_rgb(file), open_rgb(next((folder / "clean").glob(f"{file.stem}.*")))) for file in degraded]
    images, on_y, on_rgb = RELEASED[name]
    assert len(pairs) == images
    for protocol, expected in (("released-y", on_y), ("rgb-3d", on_rgb)):
        assert np.mean([ssim(*pair, protocol) for pair in pairs]) == pytest.approx(expected, abs=5.1e-5)


def test_published_values_of_constant_images() -> None:
    """The values in MMagic's tests for images of ones and twos, on RGB and on Y."""
    assert psnr(flat(1), flat(2), "rgb") == pytest.approx(48.1308036, abs=1e-7)
    assert psnr(flat(1), flat(2), "released-y") == pytest.approx(49.4527218, abs=5e-6)
    for protocol in ("rgb", "rgb-3d"):
        assert ssim(flat(1), flat(2), protocol) == pytest.approx(0.9130623, abs=1e-7)
    assert ssim(flat(1), flat(2), "released-y") == pytest.approx(0.9987801, abs=1e-7)


def test_luma_of_primaries_is_matlabs() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    np.testing.assert_allclose(luma(colours)[0], [16, 235, 81.481, 144.553, 40.966], atol=1e-9)
    np.testing.assert_array_equal(luma(colours, rounded=True)[0], [16, 235, 81, 145, 41])
    np.testing.assert_array_equal(grey(colours)[0], [0, 255, 76, 150, 29])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_equal_images_are_perfect_and_order_does_not_matter(protocol: str) -> None:
    a, b = photo(1), photo(2)
    assert math.isinf(psnr(a, a, protocol))
    assert ssim(a, a, protocol) == pytest.approx(1.0)
    assert psnr(a, b, protocol) == psnr(b, a, protocol)
    assert ssim(a, b, protocol) == pytest.approx(ssim(b, a, protocol))


def test_protocols_are_different_measurements() -> None:
    a = photo(7)
    b = np.clip(a.astype(int) + photo(8) % 40, 0, 255).astype(np.uint8)
    assert len({round(ssim(a, b, protocol), 5) for protocol in PROTOCOLS}) == len(PROTOCOLS)
    # PSNR knows no borders and no window.
    assert psnr(a, b, "rgb") == psnr(a, b, "rgb-3d")
    assert len({psnr(a, b, protocol) for protocol in PROTOCOLS}) == len(PROTOCOLS) - 1


Window = NDArray[np.float64]


def by_definition(x: Window, y: Window, weights: Window) -> Window:
    """Wang et al.'s Eq. 13 written out for each window of the shape of `weights` that lies inside the levels."""
    windows_x, windows_y = (
        np.lib.stride_tricks.sliding_window_view(levels, weights.shape) for levels in (x, y)
    )
    inside = tuple(range(x.ndim, 2 * x.ndim))

    def mean(values: Window) -> Window:
        return (values * weights).sum(axis=inside)

    mx, my = mean(windows_x), mean(windows_y)
    vx, vy = mean(windows_x**2) - mx**2, mean(windows_y**2) - my**2
    covariance = mean(windows_x * windows_y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


TAP = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
SQUARE = np.multiply.outer(TAP, TAP) / TAP.sum() ** 2
CUBE = np.multiply.outer(SQUARE, TAP / TAP.sum())


def test_ssim_is_the_mean_of_the_definition_over_all_windows() -> None:
    a, b = photo(5), (photo(5) // 2 + photo(6) // 2).astype(np.uint8)
    inside = by_definition(luma(a, rounded=True), luma(b, rounded=True), SQUARE)
    assert inside.shape == (14, 21)
    assert ssim(a, b, "matlab-y") == pytest.approx(inside.mean(), abs=1e-9)
    channels = [by_definition(a[..., c] / 1.0, b[..., c] / 1.0, SQUARE).mean() for c in range(3)]
    assert ssim(a, b, "rgb") == pytest.approx(np.mean(channels), abs=1e-9)
    over_borders = by_definition(*(np.pad(luma(image), 5, mode="edge") for image in (a, b)), SQUARE)
    assert over_borders.shape == (24, 31)
    assert ssim(a, b, "released-y") == pytest.approx(over_borders.mean(), abs=1e-9)
    volume = by_definition(*(np.pad(image / 1.0, 5, mode="edge") for image in (a, b)), CUBE)
    assert volume.shape == (24, 31, 3)
    assert ssim(a, b, "rgb-3d") == pytest.approx(volume.mean(), abs=1e-9)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_a_crop_cuts_the_images_first(protocol: Protocol) -> None:
    a, b = photo(3), photo(4)
    for measure in (psnr, ssim):
        assert measure(a, b, replace(protocol, crop=4)) == measure(a[4:-4, 4:-4], b[4:-4, 4:-4], protocol)
    with pytest.raises(MetricError, match="31x24 pixels are too few"):
        psnr(a, b, replace(protocol, crop=12))


def test_no_border_is_cropped_from_psnr() -> None:
    a = flat(100)
    b = a.copy()
    b[0, 0] = 0
    assert psnr(a, b, "rgb") == pytest.approx(10 * math.log10(255**2 / (100**2 / 32**2)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_images_smaller_than_the_window_are_refused(protocol: str) -> None:
    with pytest.raises(MetricError, match="at least 11x11 pixels, these are 31x10"):
        ssim(photo(1, 10), photo(2, 10), protocol)
    assert ssim(photo(1, 11, 11), photo(2, 11, 11), protocol) < 1
    assert psnr(photo(1, 1, 1), photo(2, 1, 1), protocol) > 0


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_images_that_cannot_be_compared_are_refused(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(MetricError, match="differ in size, 31x24 and 32x24 pixels"):
        measure(photo(1), photo(1, 24, 32))
    with pytest.raises(MetricError, match="uint8 RGB"):
        measure(photo(1) / 255.0, photo(1) / 255.0)
    with pytest.raises(MetricError, match="uint8 RGB"):
        measure(photo(1)[..., 0], photo(1)[..., 0])
    with pytest.raises(UserError, match="no protocol 'y': choose one of released-y, matlab-y"):
        measure(photo(1), photo(1), "y")
