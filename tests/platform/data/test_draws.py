"""Samples with two degradations, a camera's traces or nothing wrong, and of whole photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuir_platform.data import Draws, Mixture, Slot, Source, TrainingStage, load_slot


def photo(file: Path, size: tuple[int, int]) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(clean_uri=str(photo(tmp_path / "a.png", (96, 80))))


def test_a_share_of_the_samples_has_nothing_wrong(source: Source) -> None:
    samples = [load_slot(Slot("rain", 0, seed), source, 32, draws=Draws(good=0.5)) for seed in range(80)]
    good = [clean for degraded, clean in samples if np.array_equal(degraded, clean)]
    assert len(good) == pytest.approx(40, abs=13)
    drawn = [clean for clean in good if np.ptp(clean.reshape(-1, 3), axis=0).max() < 3 or clean.mean() < 20]
    assert drawn, "some are drawn pictures, such as flat frames and night skies"


def test_the_other_draws_change_no_crop_and_no_flip(source: Source) -> None:
    for seed in range(20):
        degraded, clean = load_slot(Slot("snow", 0, seed), source, 32)
        worse, same = load_slot(Slot("snow", 0, seed), source, 32, draws=Draws(second=1, traces=1))
        assert np.array_equal(clean, same)
        assert not np.array_equal(degraded, worse)


def test_pairs_stay_what_they_are(tmp_path: Path) -> None:
    clean, degraded = (photo(tmp_path / name, (60, 50)) for name in ("clean.png", "degraded.png"))
    pair = Source(clean_uri=str(clean), degraded_uri=str(degraded))
    for seed in range(10):
        alone, with_draws = (
            load_slot(Slot("rain", 0, seed), pair, 32, draws=draws) for draws in (Draws(), Draws(1, 1, 1))
        )
        assert all(np.array_equal(a, b) for a, b in zip(alone, with_draws, strict=True))


def test_a_whole_photo_fits_the_crop(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    Image.fromarray(ramp).save(file := tmp_path / "ramp.png")
    source = Source(clean_uri=str(file), degraded_uri=str(file))
    parts, wholes = (
        [load_slot(Slot("rain", 0, seed), source, 64, whole=whole)[1] for seed in range(30)]
        for whole in (0.0, 1.0)
    )
    assert all(np.ptp(part) < 70 for part in parts)
    assert all(np.ptp(whole) > 150 for whole in wholes)
    degraded, clean = load_slot(Slot("rain", 0, 3), source, 64, whole=1)
    assert np.array_equal(degraded, clean)


def test_the_plan_of_a_run_carries_them() -> None:
    mixture = Mixture(0, [TrainingStage(2, 10, 64, whole=0.4)], {"haze": 5}, {"haze": 1.0}, Draws(second=0.2))
    assert mixture.stage(1).whole == 0.4
    assert mixture.draws.second == 0.2
