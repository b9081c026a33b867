from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuir_core import UserError
from diffuir_core.degradations import TASKS
from diffuir_platform.data import (
    DataConfig,
    PairFolder,
    Slot,
    Source,
    describe,
    list_sources,
    load_slot,
    pairs_of,
)
from diffuir_platform.data.samples import VARIED_SHARE


def photo(file: Path, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for stem in ("b", "a"):
        photo(tmp_path / "degraded" / f"{stem}.jpg")
        photo(tmp_path / "clean" / f"{stem}.png")
    return tmp_path


def test_pairs_match_by_stem_whatever_the_ending(pairs: Path) -> None:
    assert [(p.degraded.name, p.clean.name) for p in pairs_of(pairs)] == [
        ("a.jpg", "a.png"),
        ("b.jpg", "b.png"),
    ]


@pytest.mark.parametrize("side", ["degraded", "clean"])
def test_a_pair_without_its_twin_is_named(pairs: Path, side: str) -> None:
    alone = photo(pairs / side / "alone.png")
    with pytest.raises(UserError, match=r"alone\.png has no twin") as raised:
        pairs_of(pairs)
    assert str(alone) in str(raised.value)


def test_two_files_of_one_name_are_refused(pairs: Path) -> None:
    photo(pairs / "clean" / "a.bmp")
    with pytest.raises(UserError, match="both named a"):
        pairs_of(pairs)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*absent"):
        list_sources(DataConfig(clean=(tmp_path / "absent",)))


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="holds no images"):
        list_sources(DataConfig(clean=(tmp_path,)))


def test_a_task_without_data_is_named(pairs: Path) -> None:
    with pytest.raises(UserError, match="nothing to train haze on"):
        list_sources(DataConfig(pairs={"rain": (PairFolder(path=pairs),)}))


def test_an_unknown_task_is_named(pairs: Path) -> None:
    with pytest.raises(UserError, match="no task 'fog'"):
        list_sources(DataConfig(pairs={"fog": (PairFolder(path=pairs),)}))


def test_clean_photos_serve_every_task_and_pairs_their_own(pairs: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    found = list_sources(DataConfig(clean=(clean,), pairs={"low_light": (PairFolder(path=pairs, repeat=3),)}))
    assert set(found) == set(TASKS)
    assert len(found["haze"]) == 2
    assert len(found["low_light"]) == 2 + 3 * 2
    assert describe(found)["low_light"] == {"photos": 2, "pairs": 2}


def test_what_all_tasks_take_is_kept_once_in_a_store(pairs: Path, tmp_path: Path) -> None:
    """A million clean photos are five tasks' items, and would else be copied five times."""
    clean = tmp_path / "clean"
    alike = pickle.dumps(list_sources(DataConfig(clean=(clean,))), protocol=5)
    with_pairs = DataConfig(clean=(clean,), pairs={task: (PairFolder(path=pairs),) for task in TASKS})
    assert len(alike) < len(pickle.dumps(list_sources(with_pairs), protocol=5)) / 2


@pytest.mark.parametrize("task", TASKS)
def test_a_slot_gives_the_same_pixels_every_time(tmp_path: Path, task: str) -> None:
    source = Source(clean_uri=str(photo(tmp_path / "a.png", (60, 50))))
    first, again = (load_slot(Slot(task, 0, 7), source, 32) for _ in range(2))
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert first[0].shape == first[1].shape == (32, 32, 3)
    other = load_slot(Slot(task, 0, 8), source, 32)
    assert not np.array_equal(first[0], other[0])


def test_a_pair_is_cropped_and_flipped_together(tmp_path: Path) -> None:
    file = photo(tmp_path / "a.png", (60, 50))
    for seed in range(20):
        degraded, clean = load_slot(
            Slot("rain", 0, seed), Source(clean_uri=str(file), degraded_uri=str(file)), 32
        )
        assert np.array_equal(degraded, clean)


@pytest.mark.parametrize(
    ("task", "varied"), [("haze", False), ("low_light", False), ("rain", True), ("blur", True)]
)
def test_a_share_of_the_photos_gets_other_tones_where_flat_is_not_hazy(
    tmp_path: Path, task: str, varied: bool
) -> None:
    checks = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(np.dstack([checks] * 3)).save(file := tmp_path / "checks.png")
    cleans = [load_slot(Slot(task, 0, seed), Source(clean_uri=str(file)), 32)[1] for seed in range(80)]
    changed = [clean for clean in cleans if not set(np.unique(clean)) <= {0, 255}]
    assert len(changed) == (pytest.approx(80 * VARIED_SHARE, abs=12) if varied else 0)
    assert all(len(np.unique(clean)) == 2 and np.ptp(clean) >= 126 for clean in changed)


def test_a_photo_smaller_than_the_crop_is_continued(tmp_path: Path) -> None:
    degraded, clean = load_slot(
        Slot("blur", 0, 1), Source(clean_uri=str(photo(tmp_path / "a.png", (20, 9)))), 32
    )
    assert degraded.shape == clean.shape == (32, 32, 3)


def test_a_pair_of_two_sizes_is_refused(tmp_path: Path) -> None:
    small, large = photo(tmp_path / "s.png", (40, 40)), photo(tmp_path / "l.png", (50, 40))
    with pytest.raises(UserError, match="one size"):
        load_slot(Slot("rain", 0, 1), Source(clean_uri=str(large), degraded_uri=str(small)), 32)


def test_a_corrupt_photo_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    with pytest.raises(UserError, match=r"broken\.png"):
        load_slot(Slot("rain", 0, 1), Source(clean_uri=str(file)), 32)
