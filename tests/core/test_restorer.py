from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffuir_core import Restorer, Schedule, UNet, UserError, sample, save_weights
from diffuir_core.restorer import content_noise


@pytest.fixture(scope="module")
def weights(tiny: UNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(file, tiny, Schedule.release())
    return file


def photos() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in ((20, 30, 3), (48, 16, 3), (1, 1, 3))]


def test_sizes_may_be_mixed_and_are_kept(weights: Path) -> None:
    restored = Restorer(weights).restore(photos())
    assert [(image.shape, image.dtype) for image in restored] == [(p.shape, np.uint8) for p in photos()]


def test_an_image_does_not_depend_on_its_neighbours(weights: Path) -> None:
    """Guarantee 1, at most one grey level."""
    restorer = Restorer(weights)
    together = restorer.restore(photos())
    backwards = restorer.restore(photos()[::-1])[::-1]
    alone = [restorer.restore([photo])[0] for photo in photos()]
    for others in (backwards, alone):
        for a, b in zip(together, others, strict=True):
            assert int(np.abs(a.astype(int) - b).max()) <= 1


def test_images_of_one_padded_size_run_together_and_do_not_mix(weights: Path) -> None:
    """Guarantee 1: at most one grey level, on at most 0.1% of the values."""
    rng = np.random.default_rng(2)
    sizes = [(40, 60), (48, 64), (33, 50), (48, 49), (48, 64)]
    group = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    restorer = Restorer(weights)
    for together, image in zip(restorer.restore(group), group, strict=True):
        apart = np.abs(together.astype(int) - restorer.restore([image])[0])
        assert apart.max() <= 1
        assert np.mean(apart > 0) <= 1e-3


def test_it_is_the_sampling_loop_with_the_images_own_noise(weights: Path, tiny: UNet) -> None:
    photo = photos()[0]
    degraded = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    expected = sample(tiny, degraded, 2, content_noise(photo, 7)).mul(255).round().byte()[0].permute(1, 2, 0)
    restored = Restorer(weights, steps=2, seed=7).restore([photo])[0]
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


def test_a_view_gives_what_its_copy_gives(weights: Path) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    view = photo[::-1, 10:40, ::-1]
    restorer = Restorer(weights, steps=1)
    assert np.array_equal(restorer.restore([view])[0], restorer.restore([view.copy()])[0])


def test_the_input_is_left_as_it_was(weights: Path) -> None:
    photo = photos()[0]
    before = photo.copy()
    Restorer(weights, steps=1).restore([photo])
    assert np.array_equal(photo, before)


def test_bfloat16_is_close_to_float32(weights: Path) -> None:
    full, half = (Restorer(weights, precision=p).restore(photos()[:1])[0] for p in ("float32", "bfloat16"))
    assert float(np.abs(full.astype(int) - half).mean()) < 2


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_photo_is_refused(weights: Path, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        Restorer(weights).restore([image])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1001}, {"precision": "float8"}])
def test_impossible_settings_are_refused(weights: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Restorer(weights, **wrong)  # type: ignore[arg-type]


def test_missing_weights_are_named() -> None:
    with pytest.raises(UserError, match=r"absent\.safetensors"):
        Restorer("absent.safetensors")
