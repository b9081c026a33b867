from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffuir_core import Restorer, UNet, UserError, save_weights
from diffuir_core.memory_plan import (
    BASE_BYTES,
    available_memory,
    halved_tiles,
    is_out_of_memory,
    overlapping_tiles,
    plan,
)
from diffuir_core.pixels import Pixels
from diffuir_core.schedule import Schedule
from diffuir_core.variants import VARIANTS

T, L = VARIANTS["T"], VARIANTS["L"]
GIB = 2**30


@pytest.fixture(scope="module")
def weights(tiny: UNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(file, tiny, Schedule.release())
    return file


def photo(height: int, width: int) -> Pixels:
    """A smooth photo, of which every part looks alike."""
    rows, columns = np.mgrid[:height, :width]
    levels = np.stack((rows + columns, rows * 2, 255 - columns), axis=-1) % 256
    return levels.astype(np.uint8)


def test_an_image_that_fits_is_restored_whole() -> None:
    whole = plan(L, 720, 1280, 4, 3 * GIB)
    assert whole.tiling is None
    assert 1 * GIB < whole.needed < 3 * GIB


def test_an_image_that_does_not_fit_gets_the_largest_tiles_that_do() -> None:
    for memory in (8 * GIB, 4 * GIB, 2 * GIB):
        tiled = plan(L, 2160, 4096, 4, memory)
        assert tiled.tiling is not None
        assert tiled.needed <= memory
        larger = plan(L, 2160, 4096, 4, 2**40, tile=tiled.tiling.tile + 64)
        assert larger.needed > memory
    assert plan(L, 2160, 4096, 4, 0).tiling == overlapping_tiles(2160, 4096, 128)


def test_half_the_bytes_need_half_the_memory() -> None:
    full, half = (plan(T, 2000, 2000, itemsize, 2**40).needed - BASE_BYTES for itemsize in (4, 2))
    assert 0.5 < half / full < 0.6


def test_a_tile_that_covers_the_image_is_the_image() -> None:
    assert plan(T, 100, 120, 4, GIB, tile=128).tiling is None
    assert plan(T, 100, 129, 4, GIB, tile=128).tiling is not None


def test_tiles_are_halved_down_to_the_smallest() -> None:
    tiling = halved_tiles(1000, 500, None)
    sides = [tiling.tile]
    while tiling.tile > 128:
        tiling = halved_tiles(1000, 500, tiling)
        sides.append(tiling.tile)
    assert sides == [496, 240, 128]
    with pytest.raises(UserError, match="tiles of 128"):
        halved_tiles(1000, 500, tiling)


def test_available_memory_is_plausible() -> None:
    assert 2**20 < available_memory(torch.device("cpu")) < 2**50


def test_torchs_own_error_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_an_image_in_tiles_is_near_the_whole_one(weights: Path) -> None:
    image = photo(150, 200)
    whole, tiled = (Restorer(weights, steps=2, tile=tile).restore([image])[0] for tile in (None, 128))
    assert tiled.shape == whole.shape
    assert np.abs(whole.astype(int) - tiled).mean() < 12


def test_out_of_memory_goes_on_in_smaller_tiles(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that runs out of memory above 160 x 160 pixels gives the result of the tiles that fit."""
    image = photo(300, 200)
    expected = Restorer(weights, steps=1, tile=144).restore([image])[0]
    limited = Restorer(weights, steps=1)
    forward = limited.network.forward

    def refusing(x: torch.Tensor, *others: object) -> torch.Tensor:
        if x[0, 0].numel() > 160 * 160:
            torch.empty(2**60)
        return forward(x, *others)

    monkeypatch.setattr(limited.network, "forward", refusing)
    assert np.array_equal(limited.restore([image])[0], expected)


def test_another_error_is_not_mistaken_for_out_of_memory(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Restorer(weights, steps=1)
    monkeypatch.setattr(broken.network, "condition_features", lambda degraded: degraded)
    with pytest.raises(RuntimeError, match="size"):
        broken.restore([photo(40, 40)])


@pytest.mark.parametrize("tile", [0, 100, 120, 130])
def test_an_impossible_tile_is_refused(weights: Path, tile: int) -> None:
    with pytest.raises(ValueError, match="tile"):
        Restorer(weights, tile=tile)
