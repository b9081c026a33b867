"""PSNR and SSIM agree with published values, and refuse images that can't be compared."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from diffuir_core.metrics import luma, psnr, ssim
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


def photo(seed: int, height: int = 24, width: int = 31) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(level: int, size: int = 32) -> Pixels:
    return np.full((size, size, 3), level, dtype=np.uint8)


def grey(pixels: Pixels) -> Pixels:
    """MATLAB's `rgb2gray` on uint8, repeated over three channels."""
    level = pixels @ np.array([0.298936021293775, 0.587043074451121, 0.114020904255103])
    return np.repeat(np.round(level).astype(np.uint8)[..., None], 3, axis=2)


def open_rgb(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", TID2013)
def test_published_values_of_tid2013_pairs(shared: Path, name: str) -> None:
    folder = shared / "metric_reference" / "pyiqa_tid2013"
    clean, degraded = (open_rgb(folder / side / f"{name}.bmp") for side in ("ref_dir", "dist_dir"))
    expected_psnr, expected_ssim = TID2013[name]
    assert psnr(degraded, clean, "rgb") == pytest.approx(expected_psnr, abs=0.005)
    assert ssim(grey(degraded), grey(clean), "rgb") == pytest.approx(expected_ssim, abs=5.1e-5)


def test_published_values_of_constant_images() -> None:
    """The values in MMagic's tests for images of ones and twos, on RGB and on Y."""
    assert psnr(flat(1), flat(2), "rgb") == pytest.approx(48.1308036, abs=1e-7)
    assert psnr(flat(1), flat(2), "y") == pytest.approx(49.4527218, abs=5e-6)
    assert ssim(flat(1), flat(2), "rgb") == pytest.approx(0.9130623, abs=1e-7)
    assert ssim(flat(1), flat(2), "y") == pytest.approx(0.9987801, abs=1e-7)


def test_luma_of_primaries_is_matlabs() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    np.testing.assert_allclose(luma(colours)[0], [16, 235, 81.481, 144.553, 40.966], atol=1e-9)


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_equal_images_are_perfect_and_order_does_not_matter(channel: str) -> None:
    a, b = photo(1), photo(2)
    assert math.isinf(psnr(a, a, channel))  # type: ignore[arg-type]
    assert ssim(a, a, channel) == pytest.approx(1.0)  # type: ignore[arg-type]
    assert psnr(a, b, channel) == psnr(b, a, channel)  # type: ignore[arg-type]
    assert ssim(a, b, channel) == pytest.approx(ssim(b, a, channel))  # type: ignore[arg-type]


def test_ssim_equals_the_definition_on_one_window() -> None:
    """On 11x11 pixels there is a single window inside the image."""
    a, b = photo(3, 11, 11), photo(4, 11, 11)
    tap = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(tap, tap) / tap.sum() ** 2
    x, y = luma(a), luma(b)
    mean_x, mean_y = (window * x).sum(), (window * y).sum()
    var_x, var_y = (window * x**2).sum() - mean_x**2, (window * y**2).sum() - mean_y**2
    covariance = (window * x * y).sum() - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)


def test_ssim_is_the_mean_of_the_definition_over_all_windows() -> None:
    """On a larger pair: Wang et al.'s Eq. 13 written out for each window that lies inside the images."""
    a, b = photo(5), (photo(5) // 2 + photo(6) // 2).astype(np.uint8)
    tap = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(tap, tap) / tap.sum() ** 2
    x, y = (np.lib.stride_tricks.sliding_window_view(luma(image), (11, 11)) for image in (a, b))

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.einsum("rchw,hw->rc", values, weights)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert expected.shape == (14, 21)
    assert ssim(a, b) == pytest.approx(float(expected.mean()), abs=1e-9)


def test_no_border_is_cropped_from_psnr() -> None:
    a = flat(100)
    b = a.copy()
    b[0, 0] = 0
    assert psnr(a, b, "rgb") == pytest.approx(10 * math.log10(255**2 / (100**2 / 32**2)))


def test_images_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 11x11 pixels, these are 31x10"):
        ssim(photo(1, 10), photo(2, 10))
    assert psnr(photo(1, 1, 1), photo(2, 1, 1)) > 0


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_images_that_cannot_be_compared_are_refused(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match="differ in shape"):
        measure(photo(1), photo(1, 24, 32))
    with pytest.raises(ValueError, match="uint8 RGB"):
        measure(photo(1) / 255.0, photo(1) / 255.0)
    with pytest.raises(ValueError, match="uint8 RGB"):
        measure(photo(1)[..., 0], photo(1)[..., 0])
    with pytest.raises(ValueError, match="channel is"):
        measure(photo(1), photo(1), "grey")
