"""Equalisation by the formula of OpenCV's `equalizeHist`, computed by hand."""

from __future__ import annotations

import numpy as np

from diffuir_core.equalise import equalise_histogram


def test_levels_become_shares_of_the_pixels_above_the_lowest() -> None:
    channel = np.array([[10, 10, 20, 20], [20, 30, 30, 40]], np.uint8)
    # 6 of 8 pixels are above the lowest level: 3 of them up to level 20, 5 up to 30, 6 up to 40.
    expected = np.array([[0, 0, 128, 128], [128, 212, 212, 255]], np.uint8)
    image = np.dstack([channel, channel + 5, np.full_like(channel, 77)])
    assert np.array_equal(equalise_histogram(image), np.dstack([expected, expected, image[..., 2]]))


def test_a_full_range_of_equal_counts_stays() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.array_equal(equalise_histogram(ramp), ramp)


def test_the_input_is_left_as_it_was() -> None:
    image = np.random.default_rng(0).integers(0, 40, (9, 7, 3), dtype=np.uint8)
    before = image.copy()
    assert equalise_histogram(image).max() == 255
    assert np.array_equal(image, before)
