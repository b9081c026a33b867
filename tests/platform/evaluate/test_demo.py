"""`diffuir demo`: bundled photos only, fixed seeds, every task measured, one sheet."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuir_core.degradations import TASKS, degrade
from diffuir_core.errors import UserError
from diffuir_core.metrics import psnr
from diffuir_platform.evaluate import demo
from diffuir_platform.evaluate.demo import DRAWS, PHOTOS, SHOWN, bundled_photo, typical
from diffuir_platform.evaluate.staging import load


def keep(source: Path, target: Path) -> dict[str, str]:
    shutil.copytree(source, target, dirs_exist_ok=True)
    return {}


def test_every_photo_is_degraded_in_every_way_and_measured(tmp_path: Path) -> None:
    made = demo(tmp_path, keep)
    assert [task.name for task in made.tasks] == [task.replace("_", " ") for task in TASKS]
    for task, summary in zip(TASKS, made.tasks, strict=True):
        values = [
            psnr(load(tmp_path / "degraded" / task / f"{name}.png"), bundled_photo(name)) for name in PHOTOS
        ]
        assert summary.images == len(PHOTOS)
        assert summary.psnr_before == pytest.approx(sum(values) / len(values))
        assert summary.gain == 0
    with Image.open(made.sheet) as sheet:
        assert sheet.width <= 1600
        assert sheet.height > 5 * 256


def test_the_sheet_shows_one_photo_of_every_task() -> None:
    assert SHOWN.keys() == set(TASKS)
    assert set(SHOWN.values()) <= set(PHOTOS)


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_are_cut_to_one_size(name: str) -> None:
    photo = bundled_photo(name)
    assert photo.shape == (256, 384, 3)
    assert photo.std() > 30


def test_a_typical_degradation_is_the_median_of_its_draws() -> None:
    clean = bundled_photo("chelsea")[:96, :96]
    chosen = psnr(typical("rain", clean, seed=5), clean)
    others = sorted(psnr(degrade("rain", clean, 5 + draw), clean) for draw in range(DRAWS))
    assert chosen == others[DRAWS // 2]
    assert np.array_equal(typical("rain", clean, seed=5), typical("rain", clean, seed=5))


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"taken can't be written .* name another folder"):
        demo(tmp_path / "taken", keep)


def test_a_photo_that_was_not_restored_stops_the_demo(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"haze/rocket\.png was not restored: out of memory"):
        demo(tmp_path, lambda source, target: {"haze/rocket.png": "out of memory"})
