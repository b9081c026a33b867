"""Guarantee 2: a batch does not depend on the workers, on restarts, on the storage or on bad files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray as ray_module
from PIL import Image

from diffuir_core import UserError
from diffuir_core.degradations import TASKS
from diffuir_core.equalise import equalise_histogram
from diffuir_platform import storage
from diffuir_platform.data import (
    DataConfig,
    Items,
    LocalBatch,
    Mixture,
    Slot,
    TrainingStage,
    describe,
    fingerprint,
    list_sources,
    load_or_replace,
    load_slot,
    local_batches,
    stream,
)
from diffuir_platform.data.index import IndexRow, write_index
from diffuir_platform.data.sources import COLUMNS
from support.store import Store

BATCHES, SIZE = 5, 20


def pixels(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clean photos, one of them truncated, and of pairs of rain."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("clean", "rain/degraded", "rain/clean"):
        (folder / name).mkdir(parents=True)
    for seed in range(7):
        Image.fromarray(pixels(seed)).save(folder / "clean" / f"{seed}.png")
        Image.fromarray(pixels(seed + 10)).save(folder / "rain" / "clean" / f"{seed}.png")
        Image.fromarray(pixels(seed + 10) // 2).save(folder / "rain" / "degraded" / f"{seed}.png")
    broken = folder / "clean" / "3.png"
    broken.write_bytes(broken.read_bytes()[:90])
    return folder


def rows(root: str, gone: int | None = None) -> Iterator[IndexRow]:
    """Yield the rows of an index of `photos` at `root`; gone: number of a pair whose degraded photo is missing."""
    size = {"width": 32, "height": 24}
    for seed in range(7):
        uri = f"{root}/clean/{seed}.png"
        of = {"dataset": "clean", "split": "train", "key": str(seed)}
        yield IndexRow(task="any", degraded_uri=None, clean_uri=uri, **of, **size)
    for seed in range(7):
        clean, degraded = (f"{root}/rain/{side}/{seed}.png" for side in ("clean", "degraded"))
        degraded = f"{root}/nowhere.png" if seed == gone else degraded
        of = {"dataset": "rain", "split": "train", "key": str(seed)}
        yield IndexRow(task="rain", degraded_uri=degraded, clean_uri=clean, **of, **size)


def items(*rows: dict[str, object]) -> Items:
    """Return items with defaults for columns that `rows` lack."""
    unknown = {"width": 0, "height": 0, "preprocessing": "", "key": ""}
    return Items(pa.Table.from_pylist([unknown | row for row in rows], schema=COLUMNS))


@pytest.fixture(scope="module")
def sources(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Items]:
    index = tmp_path_factory.mktemp("index") / "index.parquet"
    write_index(str(index), rows(str(photos), gone=5))
    return list_sources(DataConfig(index=(str(index),)))


def mixture(sources: dict[str, Items]) -> Mixture:
    return Mixture(
        3, [TrainingStage(BATCHES, SIZE, 16)], {task: len(items) for task, items in sources.items()}
    )


def batches(sources: dict[str, Items], world_size: int = 1, start: int = 0) -> list[list[LocalBatch]]:
    """Return for each global batch the local batches of all workers."""
    kept = ray_module.put(sources)
    workers = [
        list(local_batches(mixture(sources), kept, start, rank, world_size)) for rank in range(world_size)
    ]
    return [list(parts) for parts in zip(*workers, strict=True)]


def joined(parts: Sequence[LocalBatch]) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Return the global batch that `parts` make up, in the order of its slots."""
    total, world_size = parts[0].total, len(parts)
    places = [place for rank in range(world_size) for place in range(rank, total, world_size)]
    order = np.argsort(places)
    degraded, clean = (
        np.concatenate([getattr(part, side) for part in parts])[order] for side in ("degraded", "clean")
    )
    return degraded, clean, {line for part in parts for line in part.replaced}


@pytest.fixture(scope="module")
def alone(sources: dict[str, Items], ray: object) -> list[list[LocalBatch]]:
    return batches(sources)


@pytest.mark.parametrize("world_size", [2, 16])
def test_the_batches_are_the_same_for_any_number_of_workers(
    sources: dict[str, Items], alone: list[list[LocalBatch]], world_size: int
) -> None:
    for one, many in zip(alone, batches(sources, world_size), strict=True):
        for expected, got in zip(joined(one)[:2], joined(many)[:2], strict=True):
            assert np.array_equal(expected, got)
        assert joined(one)[2] == joined(many)[2]


def test_a_stream_that_starts_later_gives_the_same_batches(
    sources: dict[str, Items], alone: list[list[LocalBatch]]
) -> None:
    for one, later in zip(alone[3:], batches(sources, start=3), strict=True):
        assert one[0].batch == later[0].batch
        assert np.array_equal(one[0].degraded, later[0].degraded)


def test_the_batches_are_the_same_over_many_spans(
    sources: dict[str, Items], alone: list[list[LocalBatch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SPAN", 2)
    monkeypatch.setattr(stream, "LEAD", 1)
    for one, spanned in zip(alone, batches(sources), strict=True):
        assert one[0].batch == spanned[0].batch
        assert np.array_equal(one[0].degraded, spanned[0].degraded)


def test_a_training_as_long_as_the_published_one_can_be_streamed(
    sources: dict[str, Items], ray: object
) -> None:
    """The published 300,000 steps of two batches of 10 crops of 256: 2.4 TB in all, of which Ray keeps 32
    batches."""
    longest = Mixture(
        3, [TrainingStage(600_000, 10, 256)], {task: len(items) for task, items in sources.items()}
    )
    stream = local_batches(longest, ray_module.put(sources), 0, 0, 1)
    assert [local.batch for local in islice(stream, 100)] == list(range(100))


def test_what_cannot_be_used_is_replaced_and_named(alone: list[list[LocalBatch]]) -> None:
    named = {line for (local,) in alone for line in local.replaced}
    assert any("clean/3.png" in line for line in named)
    assert any("nowhere.png" in line for line in named)
    assert len(named) == 2
    assert all(local.degraded.shape == (SIZE, 16, 16, 3) for (local,) in alone)


def test_another_item_takes_the_place_of_an_unusable_one(sources: dict[str, Items]) -> None:
    slot = Slot("haze", 3, 99)
    taken, again = (load_or_replace(slot, sources["haze"], 16) for _ in range(2))
    assert np.array_equal(taken.degraded, again.degraded)
    assert len(taken.replaced) >= 1
    others = [load_slot(slot, item, 16) for place, item in enumerate(sources["haze"]) if place not in (3, 5)]
    assert any(np.array_equal(taken.clean, clean) for _, clean in others)


def test_many_broken_files_side_by_side_do_not_end_a_run_that_has_good_ones(photos: Path) -> None:
    broken = {"clean_uri": str(photos / "clean" / "3.png")}
    good = {"clean_uri": str(photos / "clean" / "1.png"), "width": 32, "height": 24}
    for place in (0, 20, 39):
        taken = load_or_replace(Slot("haze", place, 7), items(*[broken] * 40, good), 16)
        assert taken.clean.shape == (16, 16, 3)


def test_nothing_but_unusable_items_is_an_error(photos: Path) -> None:
    broken = items({"clean_uri": str(photos / "clean" / "3.png")})
    with pytest.raises(
        UserError, match=r"tried 1 items of haze and none can be used, the last because .*3\.png"
    ):
        load_or_replace(Slot("haze", 0, 1), broken, 16)


def test_a_photo_that_is_not_what_the_index_says_is_replaced(photos: Path) -> None:
    other = {"clean_uri": str(photos / "clean" / "0.png"), "width": 99, "height": 24}
    right = {"clean_uri": str(photos / "clean" / "1.png"), "width": 32, "height": 24}
    taken = load_or_replace(Slot("haze", 0, 1), items(other, right), 16)
    assert "the index says 99x24" in taken.replaced[0]


def test_a_bucket_gives_what_a_folder_gives(photos: Path, s3: Store, sources: dict[str, Items]) -> None:
    bucket = s3.uri
    for file in photos.rglob("*.png"):
        storage.write_bytes(f"{bucket}/{file.relative_to(photos).as_posix()}", file.read_bytes())
    write_index(f"{bucket}/index.parquet", rows(bucket, gone=5))
    stored = list_sources(DataConfig(index=(f"{bucket}/index.parquet",)))
    assert fingerprint(stored) == fingerprint(sources)
    plan = mixture(sources)
    for slot in plan.slots(0):
        here, there = (load_or_replace(slot, each[slot.task], 16) for each in (sources, stored))
        assert np.array_equal(here.degraded, there.degraded)
        assert len(here.replaced) == len(there.replaced)


def test_a_store_that_does_not_answer_is_no_reason_to_take_another_item(
    s3: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="nothing answers"):
        load_or_replace(Slot("haze", 0, 1), items({"clean_uri": f"{s3.uri}/elsewhere.png"}), 16)


def test_a_store_that_does_not_answer_is_not_an_index_that_is_not_there(
    s3: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="nothing answers"):
        list_sources(DataConfig(index=(f"{s3.uri}/index.parquet",)))


def test_each_bad_photo_of_a_packed_file_is_named(photos: Path, tmp_path: Path) -> None:
    packed = tmp_path / "one.pack"
    whole = (photos / "clean" / "0.png").read_bytes()
    parts = [whole[:90], whole[:90], whole]
    packed.write_bytes(b"".join(parts))
    places = [
        {"key": f"scene/{i}.png", "clean_uri": str(packed), "clean_offset": i * 90, "clean_length": len(part)}
        for i, part in enumerate(parts)
    ]
    named = {
        line
        for seed in range(9)
        for line in load_or_replace(Slot("haze", 0, seed), items(*places), 16).replaced
    }
    assert {line.partition(" from byte ")[0] for line in named} == {
        f"scene/{i}.png: {packed}" for i in (0, 1)
    }
    assert any(" from byte 90 on: " in line for line in named)


def test_preprocessing_is_done_as_the_index_says(photos: Path) -> None:
    file = str(photos / "rain" / "degraded" / "0.png")
    pair = items({"clean_uri": file, "degraded_uri": file, "preprocessing": "equalise"})
    sample = load_or_replace(Slot("rain", 0, 5), pair, 16)
    whole = equalise_histogram(np.asarray(Image.open(file)))
    levels = {tuple(pixel) for pixel in whole.reshape(-1, 3)}
    assert {tuple(pixel) for pixel in sample.degraded.reshape(-1, 3)} <= levels
    assert not np.array_equal(sample.degraded, sample.clean)


def test_an_index_serves_its_tasks_and_clean_photos_serve_all(sources: dict[str, Items]) -> None:
    assert {task: len(items) for task, items in sources.items()} == {
        t: 14 if t == "rain" else 7 for t in TASKS
    }
    assert describe(sources)["rain"] == {"photos": 7, "pairs": 7}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"split": "test"}, "no rows of split 'test'"), ({"datasets": ("rain",)}, "nothing to train haze on")],
)
def test_an_index_without_what_is_asked_for_is_named(
    photos: Path, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    index = tmp_path / "index.parquet"
    write_index(str(index), rows(str(photos)))
    with pytest.raises(UserError, match=reason):
        list_sources(DataConfig(index=(str(index),), **changes))  # type: ignore[arg-type]


def test_an_index_whose_files_are_gone_is_named(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.parquet"
    write_index(str(index), rows(str(tmp_path / "moved")))
    with pytest.raises(UserError, match="make the index again"):
        list_sources(DataConfig(index=(str(index),)))


def test_a_million_items_take_little(tmp_path: Path) -> None:
    """Items are Arrow columns, which take the memory of their text, and are looked up one by one."""
    count = 1_000_000
    table = pa.table(
        {
            "key": [f"scene/{i:07d}" for i in range(count)],
            "clean_uri": [f"s3://photos/clean/scene/{i:07d}.jpg" for i in range(count)],
        }
    )
    for field in COLUMNS:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(count, field.type))
    items = Items(table)
    assert items[999_999].key == "scene/0999999"
    assert items.table.nbytes < 150 * 2**20
