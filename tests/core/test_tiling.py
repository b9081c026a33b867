from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from diffuir_core.tiling import GRID, Tiling


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 64), (200, 333), (71, 500)])
@pytest.mark.parametrize(("tile", "overlap"), [(16, 8), (64, 0), (64, 32), (128, 24)])
def test_tiles_cover_the_image_and_overlap(size: tuple[int, int], tile: int, overlap: int) -> None:
    covered = np.zeros(size, int)
    tiling = Tiling(*size, tile, overlap)
    for rows, columns in tiling.windows:
        assert rows.start % GRID == columns.start % GRID == 0
        assert rows.stop - rows.start <= tile
        assert columns.stop - columns.start <= tile
        covered[rows, columns] += 1
    assert covered.min() == 1 or overlap > 0
    assert covered.min() >= 1
    for side, spans in zip(size, zip(*tiling.windows, strict=True), strict=True):
        ordered = sorted({(span.start, span.stop) for span in spans})
        assert ordered[0][0] == 0
        assert ordered[-1][1] == side
        assert all(a[1] - b[0] >= overlap for a, b in itertools.pairwise(ordered))


def test_no_more_tiles_than_needed() -> None:
    assert len(Tiling(100, 100, 128, 64)) == 1
    assert len(Tiling(128, 129, 128, 64)) == 2
    assert len(Tiling(192, 192, 128, 64)) == 4
    assert len(Tiling(193, 192, 128, 64)) == 6


@pytest.mark.parametrize("overlap", [0, 8, 32])
def test_tiles_of_one_picture_blend_to_that_picture(overlap: int) -> None:
    picture = torch.rand(1, 3, 150, 203)
    blended = Tiling(150, 203, 64, overlap).blend(lambda rows, columns: picture[..., rows, columns], picture)
    torch.testing.assert_close(blended, picture)


def test_tiles_that_differ_meet_without_a_step() -> None:
    """Tiles of one constant each: the blend rises steadily from one to the next over the overlap."""
    tiling = Tiling(64, 160, 64, 32)
    values = {columns.start: float(i) for i, (_, columns) in enumerate(tiling.windows)}
    like = torch.zeros(1, 1, 64, 160)
    blended = tiling.blend(
        lambda rows, columns: torch.full(
            (1, 1, rows.stop - rows.start, columns.stop - columns.start), values[columns.start]
        ),
        like,
    )[0, 0, 0]
    steps = blended.diff()
    assert float(steps.min()) >= 0
    assert float(steps.max()) < 2 * 1.6 / 32


@pytest.mark.parametrize(
    ("tile", "overlap", "name"),
    [(100, 8, "tile"), (0, 0, "tile"), (64, 40, "overlap"), (64, 7, "overlap"), (64, -8, "overlap")],
)
def test_impossible_tiles_are_refused(tile: int, overlap: int, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Tiling(200, 200, tile, overlap)
