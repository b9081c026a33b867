from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffuir_core import Restorer, Schedule, UNet, UserError, sample, save_weights
from diffuir_core.equalise import equalise_histogram
from diffuir_core.metrics import psnr
from diffuir_core.pixels import Pixels
from diffuir_core.precision import PRECISIONS, fastest_precision
from diffuir_core.restorer import content_noise


@pytest.fixture(scope="module")
def weights(tiny: UNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(file, tiny, Schedule.release())
    return file


def photos() -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in ((20, 30, 3), (48, 16, 3), (1, 1, 3))]


def test_sizes_may_be_mixed_and_are_kept(weights: Path) -> None:
    restored = Restorer(weights).restore(photos())
    assert [(image.shape, image.dtype) for image in restored] == [(p.shape, np.uint8) for p in photos()]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_image_does_not_depend_on_its_neighbours(weights: Path, precision: str) -> None:
    """Guarantee 1 (same picture everywhere), bit for bit."""
    restorer = Restorer(weights, precision=precision)
    together = restorer.restore(photos())
    backwards = restorer.restore(photos()[::-1])[::-1]
    alone = [restorer.restore([photo])[0] for photo in photos()]
    for others in (backwards, alone):
        for a, b in zip(together, others, strict=True):
            assert np.array_equal(a, b)


def test_images_of_one_padded_size_do_not_mix(weights: Path) -> None:
    """Guarantee 1: bit for bit one by one, as on a CPU. In batches of a fixed size, as on a GPU, a CPU's rounding
    depends on the place in the batch: at most one grey level on at most 0.1% of the values."""
    rng = np.random.default_rng(2)
    sizes = [(40, 60), (48, 64), (33, 50), (48, 49), (48, 64)]
    group = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    restorer = Restorer(weights, device="cpu", precision="float32")
    one_by_one = restorer.restore(group)
    for together, image in zip(one_by_one, group, strict=True):
        assert np.array_equal(together, restorer.restore([image])[0])
    restorer.batch_pixels = 3 * 48 * 64
    for together, alone in zip(restorer.restore(group), one_by_one, strict=True):
        apart = np.abs(together.astype(int) - alone)
        assert apart.max() <= 1
        assert np.mean(apart > 0) <= 1e-3


def test_it_is_the_sampling_loop_with_the_images_own_noise(weights: Path, tiny: UNet) -> None:
    photo = photos()[0]
    degraded = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    expected = sample(tiny, degraded, 2, content_noise(photo, 7)).mul(255).round().byte()[0].permute(1, 2, 0)
    restored = Restorer(weights, precision="float32", steps=2, seed=7).restore([photo])[0]
    assert int(np.abs(restored.astype(int) - expected.numpy().astype(int)).max()) <= 1


def test_noise_follows_from_seed_and_content() -> None:
    photo = photos()[0]
    changed = photo.copy()
    changed[0, 0, 0] ^= 1
    assert torch.equal(content_noise(photo, 0), content_noise(photo.copy(), 0))
    assert not torch.equal(content_noise(photo, 0), content_noise(photo, 1))
    assert not torch.equal(content_noise(photo, 0), content_noise(changed, 0))
    noise = content_noise(np.zeros((200, 200, 3), np.uint8), 3)
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


def test_a_view_and_its_copy_give_the_same_result(weights: Path) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    view = photo[::-1, 10:40, ::-1]
    restorer = Restorer(weights, steps=1)
    assert np.array_equal(restorer.restore([view])[0], restorer.restore([view.copy()])[0])


@pytest.mark.filterwarnings("error")
def test_a_read_only_photo_is_restored_without_a_warning(weights: Path) -> None:
    photo = photos()[0]
    photo.flags.writeable = False
    Restorer(weights, steps=1).restore([photo])


def test_the_input_is_left_as_it_was(weights: Path) -> None:
    photo = photos()[0]
    before = photo.copy()
    Restorer(weights, steps=1).restore([photo])
    assert np.array_equal(photo, before)


def test_bfloat16_is_close_to_float32(weights: Path) -> None:
    full, half = (Restorer(weights, precision=p).restore(photos()[:1])[0] for p in ("float32", "bfloat16"))
    assert float(np.abs(full.astype(int) - half).mean()) < 2


@pytest.mark.parametrize(("divided", "added"), [(1, 0), (12, 0), (25, 64)])
def test_bfloat16_lies_within_45_db_of_float32_with_the_weights_that_ship(
    photo: Pixels, divided: int, added: int
) -> None:
    """Also with little contrast, where a grey level is as small as bfloat16's steps. This is for a CPU; the
    figure of a GPU is in tests/benchmarks/README.md."""
    image = photo // divided + np.uint8(added)
    full, half = (Restorer(device="cpu", precision=p).restore([image])[0] for p in ("float32", "bfloat16"))
    assert psnr(half, full, "rgb") > 45


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_anything_but_a_photo_is_refused(weights: Path, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        Restorer(weights).restore([image])


def test_strength_is_the_share_of_the_change_that_is_made(weights: Path) -> None:
    photo = photos()[0]
    whole, half, none = (
        Restorer(weights, precision="float32", strength=s).restore([photo])[0].astype(int)
        for s in (1, 0.5, 0)
    )
    assert np.array_equal(none, photo)
    assert np.abs(half - (whole + photo) / 2).max() <= 0.5
    assert not np.array_equal(whole, photo)


def test_equalising_applies_to_the_networks_input(weights: Path) -> None:
    dark = photos()[0] // 5
    asked = Restorer(weights, precision="float32", equalise=True).restore([dark])[0]
    by_hand = Restorer(weights, precision="float32").restore([equalise_histogram(dark)])[0]
    assert np.array_equal(asked, by_hand)


def test_automatic_precision_is_the_fastest_one_and_is_reported(weights: Path) -> None:
    restorer = Restorer(weights)
    assert restorer.precision == fastest_precision(restorer.device)
    assert restorer.precision in PRECISIONS
    assert restorer.network.dtype == PRECISIONS[restorer.precision]


def test_a_restoration_says_which_tiles_it_is_made_of(weights: Path) -> None:
    small, large = (np.zeros((side, side, 3), np.uint8) for side in (64, 200))
    whole, tiled = Restorer(weights, steps=1, tile=128).restorations([small, large])
    assert whole.tiling is None
    assert tiled.tiling is not None
    assert (tiled.tiling.tile, len(tiled.tiling)) == (128, 9)


def test_passes_are_told_for_each_step_and_tile(weights: Path) -> None:
    told: list[tuple[int, int]] = []
    restorer = Restorer(weights, steps=2, tile=128)
    restorer.on_pass = lambda done, total: told.append((done, total))
    restorer.restore([np.zeros((40, 50, 3), np.uint8)])
    assert told == [(1, 2), (2, 2)]
    told.clear()
    (restoration,) = restorer.restorations([np.zeros((150, 200, 3), np.uint8)])
    assert restoration.tiling is not None
    total = 2 * (len(restoration.tiling) + len(restoration.tiling.edge_to_edge))
    assert told == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"steps": 1001}, {"precision": "float8"}, {"strength": -0.1}, {"strength": 1.1}]
)
def test_impossible_settings_are_refused(weights: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Restorer(weights, **wrong)  # type: ignore[arg-type]


def test_missing_weights_are_named() -> None:
    with pytest.raises(UserError, match=r"absent\.safetensors"):
        Restorer("absent.safetensors")


def test_with_settings_gives_the_result_of_a_new_restorer_with_them(weights: Path) -> None:
    photo = photos()[0]
    other = {"seed": 7, "strength": 0.5, "equalise": True}
    restorer = Restorer(weights, device="cpu", precision="float32", steps=2)
    before = restorer.restore([photo])[0]
    made = Restorer(weights, device="cpu", precision="float32", steps=2, **other)  # type: ignore[arg-type]
    assert np.array_equal(restorer.with_settings(**other).restore([photo])[0], made.restore([photo])[0])  # type: ignore[arg-type]
    assert np.array_equal(restorer.restore([photo])[0], before)
