"""LOE counts changed orders, by both ways of sampling that circulate; no published value of it was found."""

from __future__ import annotations

import numpy as np
import pytest

from diffuir_core.errors import UserError
from diffuir_core.metrics import LOE_VARIANTS, MetricError, loe
from diffuir_core.metrics.resizing import imresize
from diffuir_core.pixels import Pixels


def photo(seed: int, height: int = 60, width: int = 75) -> Pixels:
    return np.random.default_rng(seed).integers(20, 200, (height, width, 3), dtype=np.uint8)


def local_maximum(lightness: np.ndarray, row: int, column: int) -> int:
    """The maximum of the 15x15 pixels around one, of those that are in the image."""
    top, left = max(row - 7, 0), max(column - 7, 0)
    return int(lightness[top : row + 8, left : column + 8].max())


def samples(image: Pixels, variant: str) -> list[int]:
    """The samples of each definition, written out."""
    lightness = image.max(axis=2)
    height, width = lightness.shape
    if variant == "loe-resize":
        ratio = 50 / min(height, width)
        return [int(v) for v in imresize(lightness, round(height * ratio), round(width * ratio)).ravel()]
    step = min(height, width) // 50
    return [
        local_maximum(lightness, (row + 1) * step - 1, (column + 1) * step - 1)
        for row in range(height // step)
        for column in range(width // step)
    ]


def by_definition(enhanced: Pixels, original: Pixels, variant: str) -> float:
    after, before = (np.array(samples(image, variant)) for image in (enhanced, original))
    changed = [np.count_nonzero((after[i] >= after) != (before[i] >= before)) for i in range(len(after))]
    return float(np.mean(changed))


@pytest.mark.parametrize("variant", LOE_VARIANTS)
@pytest.mark.parametrize(("height", "width"), [(60, 78), (120, 101)])
def test_it_is_the_definition_written_out(variant: str, height: int, width: int) -> None:
    a, b = photo(1, height, width), photo(2, height, width)
    b = (b // 2 + a // 2).astype(np.uint8)
    assert loe(a, b, variant) == pytest.approx(by_definition(a, b, variant))
    assert loe(a, b, variant) > 10


@pytest.mark.parametrize("variant", LOE_VARIANTS)
def test_an_enhancement_that_keeps_the_order_has_none(variant: str) -> None:
    image = photo(3) // 2
    assert loe(image, image, variant) == 0
    assert loe(image + np.uint8(40), image, variant) == 0
    # A resize rounds, so that an order within half a level is not kept.
    allowed = 0 if variant == "loe-local-max" else 0.03 * loe(photo(4), image, variant)
    assert loe(image * np.uint8(2), image, variant) <= allowed


@pytest.mark.parametrize("variant", LOE_VARIANTS)
def test_it_is_symmetric_and_grows_to_all_other_samples_when_the_order_turns(variant: str) -> None:
    image = photo(5)
    assert loe(photo(6), image, variant) == loe(image, photo(6), variant)
    ramp = np.repeat(np.arange(50 * 50).reshape(50, 50, 1) * 255 // 2499, 3, axis=2).astype(np.uint8)
    turned = loe((255 - ramp).astype(np.uint8), ramp, variant)
    assert 0.8 * 2500 < turned <= 2500


def test_the_two_ways_of_sampling_differ() -> None:
    a, b = photo(1, 160, 210), photo(2, 160, 210)
    assert loe(a, b, "loe-local-max") != pytest.approx(loe(a, b, "loe-resize"), rel=0.05)


def test_images_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(MetricError, match=r"loe-local-max needs images of at least 50x50 pixels, .* 75x49"):
        loe(photo(1, 49), photo(2, 49))
    assert loe(photo(1, 20, 30), photo(2, 20, 30), "loe-resize") > 0
    with pytest.raises(MetricError, match="differ in size"):
        loe(photo(1), photo(1, 61))
    with pytest.raises(UserError, match="no 'loe': choose one of loe-local-max, loe-resize"):
        loe(photo(1), photo(1), "loe")
