"""A contact sheet shows photos pixel for pixel and keeps to its width."""

from __future__ import annotations

import numpy as np
import pytest

from diffuir_core.contact_sheet import SheetRow, contact_sheet
from diffuir_core.pixels import Pixels


def photo(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def contains(sheet: Pixels, tile: Pixels) -> bool:
    height, width = tile.shape[:2]
    starts = np.argwhere((sheet[: 1 - height, : 1 - width] == tile[0, 0]).all(axis=2))
    return any((sheet[y : y + height, x : x + width] == tile).all() for y, x in starts)


def test_photos_are_laid_out_pixel_for_pixel() -> None:
    rows = [
        SheetRow(images=[photo(20, 30, 1), photo(25, 28, 2)], captions=["a", "b"], heading="Haze"),
        SheetRow(images=[photo(21, 31, 3)]),
    ]
    sheet = np.asarray(contact_sheet(rows, "A title"))
    assert all(contains(sheet, image) for row in rows for image in row.images)


def test_a_wide_sheet_is_reduced_to_its_width_and_a_small_one_not_enlarged() -> None:
    wide = contact_sheet([SheetRow(images=[photo(90, 700, s) for s in range(3)])], max_width=1000)
    assert 900 < wide.width <= 1000
    small = contact_sheet([SheetRow(images=[photo(9, 50)])], max_width=1000)
    assert small.width < 150


def test_captions_are_drawn_below_their_photo_and_fit_their_column() -> None:
    images = [photo(20, 60, 1), photo(20, 60, 2)]
    plain = np.asarray(contact_sheet([SheetRow(images=images, captions=["", "x"])]))
    named = np.asarray(contact_sheet([SheetRow(images=images, captions=["a longish text", "x"])]))
    rows, columns = np.nonzero((plain != named).any(axis=2))
    assert rows.size > 0
    assert rows.min() >= 20 + 20
    assert columns.max() < 20 + 60


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([SheetRow(images=[])], "at least one photo"),
        ([SheetRow(images=[photo(5, 5)], captions=["a", "b"])], "1 photos but 2 captions"),
        ([SheetRow(images=[photo(5, 5)[..., 0]])], "uint8 RGB"),
        ([SheetRow(images=[photo(5, 5)] * 400)], "don't fit"),
    ],
)
def test_rows_that_cannot_be_laid_out_are_refused(rows: list[SheetRow], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contact_sheet(rows)
