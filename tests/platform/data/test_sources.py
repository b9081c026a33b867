"""Items of each task from folders, pairs and indexes, and the sample that a slot makes of one."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffuir_core import UserError
from diffuir_core.degradations import TASKS
from diffuir_platform.config import parse_config
from diffuir_platform.data import (
    DataConfig,
    PairFolder,
    Slot,
    Source,
    describe,
    find_items,
    fingerprint,
    list_sources,
    load_or_replace,
    load_slot,
    pairs_of,
    preprocessing,
)
from diffuir_platform.data.building import build_index
from diffuir_platform.data.index import IndexRow, open_index, write_index
from diffuir_platform.data.samples import VARIED_SHARE
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.storage import Busy


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
def test_a_pair_without_its_counterpart_is_named(pairs: Path, side: str) -> None:
    alone = photo(pairs / side / "alone.png")
    with pytest.raises(UserError, match=r"alone\.png has no counterpart") as raised:
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


def test_only_tasks_that_are_trained_need_data(pairs: Path) -> None:
    config = DataConfig(pairs={"rain": (PairFolder(path=pairs),)})
    found = list_sources(config, ["rain"])
    assert {task: len(items) for task, items in found.items()} == {t: 2 * (t == "rain") for t in TASKS}
    with pytest.raises(UserError, match="nothing to train snow on"):
        list_sources(config, ["rain", "snow"])


@pytest.mark.parametrize(
    "values", [{"clean": ["s3://bucket/photos"]}, {"pairs": {"rain": [{"path": "s3://bucket/photos"}]}}]
)
def test_a_bucket_is_not_a_folder(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"s3://bucket/photos is not a folder .* diffuir index"):
        parse_config(DataConfig, values, "settings")
    with pytest.raises(ValueError, match="is not a folder"):
        DataConfig(clean=(Path("s3://bucket/photos"),))


@pytest.fixture
def index(pairs: Path) -> IndexRow:
    """A row of an index whose photos exist."""
    return IndexRow(
        task="rain",
        dataset="one",
        split="train",
        key="a",
        degraded_uri=str(pairs / "degraded" / "a.jpg"),
        clean_uri=str(pairs / "clean" / "a.png"),
        width=40,
        height=30,
    )


def test_a_data_set_that_no_index_has_is_named(index: IndexRow, tmp_path: Path) -> None:
    files = [str(tmp_path / f"{name}.parquet") for name in ("one", "two")]
    write_index(files[0], [index])
    write_index(files[1], [replace(index, dataset="two", split="test"), replace(index, dataset="two")])
    assert len(find_items(DataConfig(index=tuple(files), datasets=("one", "two")))["rain"]) == 2
    with pytest.raises(UserError, match=r"data\.datasets: no index has 'tow': choose among one, two"):
        find_items(DataConfig(index=tuple(files), datasets=("one", "tow")))
    with pytest.raises(
        UserError, match=r"of one with a clean side: choose among 'test' of two, 'train' of two"
    ):
        find_items(DataConfig(index=tuple(files), datasets=("one",)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "udc"}, r"the task 'udc', which is none of .*: name the other data sets in data\.datasets"),
        ({"clean_uri": "photos/a.png"}, r"names photos/a\.png without the folder that it is in"),
        ({"degraded_uri": "a.png"}, r"names a\.png without the folder"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_named(
    index: IndexRow, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    file = str(tmp_path / "index.parquet")
    write_index(file, [index, replace(index, dataset="two", **changes)])
    with pytest.raises(UserError, match=reason):
        find_items(DataConfig(index=(file,)))
    assert len(find_items(DataConfig(index=(file,), datasets=("one",)))["rain"]) == 1


@pytest.mark.parametrize(
    ("done", "told"), [(("", ""), {}), (("equalise", ""), {}), (("equalise",), {"rain": "equalise"})]
)
def test_preprocessing_of_all_pairs_of_a_task_is_recorded(
    index: IndexRow, tmp_path: Path, done: tuple[str, ...], told: dict[str, str]
) -> None:
    file = str(tmp_path / "index.parquet")
    write_index(file, [replace(index, key=str(i), preprocessing=what) for i, what in enumerate(done)])
    found = find_items(DataConfig(index=(file,), clean=(tmp_path / "clean",)))
    assert preprocessing(found) == told
    assert describe(found)["rain"].get("equalised", 0) == done.count("equalise")


def test_a_folder_and_its_index_hold_the_same_photos(tmp_path: Path) -> None:
    """Links are followed; hidden folders and those of programs are skipped."""
    for name in ("a.png", "deep/b.JPG", ".trash/c.png", "_diffuir/d.png", ".e.png"):
        photo(tmp_path / "photos" / name)
    photo(tmp_path / "elsewhere" / "f.png")
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "deep" / "loop").symlink_to(tmp_path / "photos")
    build_index(str(tmp_path / "photos"), str(tmp_path / "i"), IndexOptions(layout="clean"))
    found = find_items(DataConfig(clean=(tmp_path / "photos",)))["rain"]
    assert [source.key for source in found] == ["a.png", "deep/b.JPG", "linked/f.png"]
    assert [one.key for one in open_index(str(tmp_path / "i")).rows()] == [source.key for source in found]


def test_a_photo_that_cannot_be_read_is_replaced_and_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / name)
    photos = find_items(DataConfig(clean=(tmp_path,)))["haze"]
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.png").mkdir()  # not even root can read a folder as a file
    taken = load_or_replace(Slot("haze", 0, 1), photos, 16)
    assert len(taken.replaced) == 1
    assert f"can't read {tmp_path / 'a.png'} (Is a directory)" in taken.replaced[0]


def test_the_fingerprint_of_a_folder_is_that_of_earlier_versions(tmp_path: Path) -> None:
    for name in ("a-b.png", "a.png", "a/b.JPG", "a/c/d.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_items(DataConfig(clean=(tmp_path,)))
    assert fingerprint(found) == "a456d07f73656d393dc6f493e0b60505ac5aefadbd63b63cdc7cf36f724ca127"


def test_a_store_that_is_busy_is_no_reason_to_take_another_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*photo: object) -> bytes:
        raise Busy("slow down")

    monkeypatch.setattr("diffuir_platform.data.samples.read_image", busy)
    photos = find_items(DataConfig(clean=(photo(tmp_path / "a.png").parent,)))["haze"]
    with pytest.raises(Busy):
        load_or_replace(Slot("haze", 0, 1), photos, 16)


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


def test_items_that_tasks_share_are_kept_once_in_a_store(pairs: Path, tmp_path: Path) -> None:
    """A million clean photos are items of all five tasks, and must not be copied five times."""
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
def test_some_photos_of_rain_snow_and_blur_get_other_tones(tmp_path: Path, task: str, varied: bool) -> None:
    checks = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(np.dstack([checks] * 3)).save(file := tmp_path / "checks.png")
    cleans = [load_slot(Slot(task, 0, seed), Source(clean_uri=str(file)), 32)[1] for seed in range(80)]
    changed = [clean for clean in cleans if not set(np.unique(clean)) <= {0, 255}]
    assert len(changed) == (pytest.approx(80 * VARIED_SHARE, abs=12) if varied else 0)
    assert all(len(np.unique(clean)) == 2 and np.ptp(clean) >= 126 for clean in changed)


def test_a_photo_smaller_than_the_crop_is_padded(tmp_path: Path) -> None:
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
