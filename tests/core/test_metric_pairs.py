"""Faults of pairs are named: swapped truths, JPEG truths, and equal images in a mean."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuir_core.degradations import TASKS, degrade
from diffuir_core.metrics import better_truths, mean_psnr, signature, truth_note
from diffuir_core.pixels import Pixels


def photo(seed: int) -> Pixels:
    small = np.random.default_rng(seed).integers(30, 220, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC))


def open_rgb(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_an_infinite_psnr_is_counted_and_not_averaged() -> None:
    assert mean_psnr([30.0, math.inf, 20.0]) == (25.0, 1)
    assert mean_psnr([30.0]) == (30.0, 0)
    assert mean_psnr([math.inf, math.inf]) == (math.inf, 2)


@pytest.mark.parametrize("task", TASKS)
def test_swapped_truths_are_found_whatever_the_degradation(task: str) -> None:
    clean = [photo(seed) for seed in range(6)]
    sides = [signature(degrade(task, one, seed=3)) for one in clean], [signature(one) for one in clean]
    assert better_truths(*sides) == {}
    sides[1][1], sides[1][4] = sides[1][4], sides[1][1]
    assert better_truths(*sides) == {1: 4, 4: 1}


def test_truths_that_are_moved_on_by_one_are_found() -> None:
    clean = [signature(photo(seed)) for seed in range(6)]
    assert better_truths(clean, [*clean[1:], clean[0]]) == {0: 5, 1: 0, 2: 1, 3: 2, 4: 3, 5: 4}


def test_equal_and_flat_truths_are_no_better_ones() -> None:
    same = [signature(photo(1))] * 3
    assert better_truths(same, same) == {}
    flat = [signature(np.full((72, 96, 3), level, np.uint8)) for level in (10, 20)]
    assert better_truths(flat, flat) == {}
    assert better_truths([], []) == {}


def test_neighbouring_frames_of_a_video_are_not_taken_for_each_other() -> None:
    frames = [np.roll(photo(1), 2 * step, axis=1) for step in range(5)]
    blurred = [np.mean([frames[max(i - 1, 0)], frames[i]], axis=0).astype(np.uint8) for i in range(5)]
    assert better_truths([signature(one) for one in blurred], [signature(one) for one in frames]) == {}


def test_no_test_pair_is_taken_for_swapped_and_a_mismatch_of_a_published_set_is_found(shared: Path) -> None:
    def sides(folder: Path) -> tuple[list[Pixels], list[Pixels]]:
        degraded = sorted((folder / "degraded").iterdir())
        clean = [next((folder / "clean").glob(f"{file.stem}.*")) for file in degraded]
        return [signature(open_rgb(file)) for file in degraded], [signature(open_rgb(file)) for file in clean]

    for folder in sorted((shared / "photos" / "pairs").iterdir()):
        degraded, clean = sides(folder)
        assert better_truths(degraded, clean) == {}, folder.name
        if len(degraded) > 1:
            assert len(better_truths(degraded, [*clean[1:], clean[0]])) == len(degraded), folder.name


def test_a_truth_that_is_a_jpeg_is_noted() -> None:
    assert truth_note("PNG") is None
    assert truth_note("TIFF") is None
    for format in ("JPEG", "MPO"):
        assert "the truth is a JPEG" in (truth_note(format) or "")
