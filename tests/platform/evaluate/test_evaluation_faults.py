"""Faults of sets and pairs are named, and what is not at fault is measured."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from diffuir_core.errors import UserError
from diffuir_platform.evaluate import evaluate, evaluate_sets
from diffuir_platform.evaluate.measures import blind
from diffuir_platform.evaluate.sets import Condition, photo_sets
from diffuir_platform.evaluate.staging import save_png
from support.evaluating import SETTINGS, brighten, keep, make_pair, photo


def measured(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Names of what was measured, and reasons of what was not."""
    report = evaluate(folder, brighten, SETTINGS)
    assert all(math.isfinite(image.psnr_after) for image in report.images)
    return [f"{i.set_name}/{i.key}" for i in report.images], report.failed


@pytest.mark.parametrize("side", ["degraded", "clean"])
def test_a_picture_without_its_twin_is_named(tmp_path: Path, side: str) -> None:
    for stem in ("1", "2"):
        make_pair(tmp_path / "dark", stem, seed=int(stem))
    (tmp_path / "dark" / side / "2.png").unlink()
    names, failed = measured(tmp_path)
    assert names == ["dark/1"]
    assert failed.keys() == {"dark/2"}
    assert "2.png has no counterpart: put a picture named 2 into" in failed["dark/2"]
    assert failed["dark/2"].endswith(f"dark/{side}")


@pytest.mark.parametrize("side", ["degraded", "clean"])
def test_two_pictures_of_one_stem_are_named(tmp_path: Path, side: str) -> None:
    for stem in ("1", "2"):
        make_pair(tmp_path / "dark", stem, seed=int(stem))
    save_png(tmp_path / "dark" / side / "2.bmp", photo(7))
    names, failed = measured(tmp_path)
    assert names == ["dark/1"]
    assert failed.keys() == {"dark/2"}
    assert "both named 2: keep one" in failed["dark/2"]


def test_one_broken_folder_of_many_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    for number in range(5):
        make_pair(tmp_path / f"set{number}", "1", seed=number)
    (tmp_path / "set1" / "clean" / "1.png").unlink()
    (tmp_path / "set1" / "clean").rmdir()
    for side in ("degraded", "clean"):
        (tmp_path / "set2" / side / "1.png").unlink()
        (tmp_path / "set3" / side / "1.png").rename(tmp_path / "set3" / side / "\udcff.png")
    names, failed = measured(tmp_path)
    assert names == ["set0/1", "set4/1"]
    assert "set1 has no clean/ folder" in failed["set1"]
    assert "hold no pictures" in failed["set2"]
    assert "is not UTF-8: rename it" in failed["set3"]
    assert len(failed) == 3


def test_a_photo_that_a_restore_left_out_or_made_of_another_size_is_named(tmp_path: Path) -> None:
    for stem in ("1", "2", "3"):
        make_pair(tmp_path / "dark", stem, seed=int(stem))

    def restore(source: Path, target: Path) -> dict[str, str]:
        keep(source, target)
        (target / "dark" / "1.png").unlink()
        save_png(target / "dark" / "2.png", photo(2, 40, 52))
        return {}

    report = evaluate(tmp_path, restore, SETTINGS)
    assert [image.key for image in report.images] == ["3"]
    assert "was not restored" in report.failed["dark/1"]
    assert "differ in size, 26x20 and 52x40" in report.failed["dark/2"]


def test_two_sets_of_one_name_are_refused_and_links_have_names_of_their_own(tmp_path: Path) -> None:
    make_pair(tmp_path / "sets" / "dark", "1")
    (tmp_path / "sets" / "dusk").symlink_to(tmp_path / "sets" / "dark")
    assert measured(tmp_path / "sets")[0] == ["dark/1", "dusk/1"]
    for file in ("photos/1.png", "photos/photos/1.png"):
        save_png(tmp_path / file, photo(1, 60, 60))
    sets = photo_sets(tmp_path / "photos", blind("loe"), Condition(steps=3))
    with pytest.raises(UserError, match="two sets are both named photos"):
        evaluate_sets(sets, lambda _: keep, SETTINGS)


def test_a_folder_without_any_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no pairs"):
        evaluate(tmp_path, keep, SETTINGS)
