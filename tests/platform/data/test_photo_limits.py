"""Photos over `max_pixels` are named with the setting, wherever a training or an index meets them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from diffuir_core import UserError
from diffuir_core.imaging import ImageError, Limits
from diffuir_platform import storage
from diffuir_platform.data import DataConfig, check_apart, find_items, load_or_replace
from diffuir_platform.data.building import build_index
from diffuir_platform.data.index import read_image
from diffuir_platform.data.mixture import Slot
from diffuir_platform.data.overlap import TestPhotos
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.train.settings import ValidationConfig
from diffuir_platform.train.validation import held_out
from support.command import diffuir_here
from support.store import Store
from support.trees import make_tree, tree_of_pairs

SIZE = (40, 30)
JUST_LESS = 40 * 30 - 1
SAYS = "it is 40x30 pixels, more than the limit of 1,199: raise max_pixels"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with one photo of 1,200 pixels and one of a quarter of them."""
    return make_tree(tmp_path / "photos", {"large.png": SIZE, "small.png": (20, 15)})


def reasons(index: str) -> dict[str, str]:
    lines = storage.read_bytes(f"{index}.mismatches.jsonl").decode().splitlines()
    return {found["path"]: found["reason"] for found in map(json.loads, lines)}


def test_a_training_photo_is_replaced_and_named_or_taken(photos: Path) -> None:
    for limit, replaced in ((JUST_LESS, (f"{photos / 'large.png'}: {SAYS}",)), (1200, ())):
        items = find_items(DataConfig(clean=(photos,), max_pixels=limit))["haze"]
        assert load_or_replace(Slot("haze", 0, 1), items, 16).replaced == replaced
        assert load_or_replace(Slot("haze", 0, 1), items.take([0, 1]), 16).replaced == replaced


def test_where_all_are_too_large_the_sentence_names_the_setting(photos: Path) -> None:
    items = find_items(DataConfig(clean=(photos,), max_pixels=10))["haze"]
    with pytest.raises(UserError, match=r"2 items of haze and none can be used, .*: raise max_pixels$"):
        load_or_replace(Slot("haze", 0, 1), items, 16)


def test_a_validation_pair_is_refused_or_taken(tmp_path: Path) -> None:
    tree_of_pairs(tmp_path / "pairs", 2)
    config = ValidationConfig(pairs={"rain": (tmp_path / "pairs",)})
    assert len(held_out(config, 48)["rain"]) == 2
    with pytest.raises(
        UserError, match=r"the pair 0+ that validates rain can't be used: .*: raise max_pixels"
    ):
        held_out(config, 47)


def test_an_index_lists_it_as_a_mismatch_or_takes_it(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "i.parquet"
    command = ["index", photos, out, "--layout", "clean", "--mismatched", "1", "--max-pixels"]
    assert diffuir_here(*command, JUST_LESS).returncode == 1
    assert reasons(str(out)) == {"large.png": SAYS}
    assert diffuir_here(*command, 1200).returncode == 0
    assert reasons(str(out)) == {}


def test_a_file_over_the_limit_that_follows_is_not_read(photos: Path, tmp_path: Path) -> None:
    os.truncate(photos / "large.png", 2**30 + 1)  # sparse: it takes no room
    out = str(tmp_path / "i.parquet")
    build_index(str(photos), out, IndexOptions(layout="clean", mismatched=1, max_pixels=1000))
    says = "the file has 1,073,741,825 bytes, more than the limit of 1,073,741,824: raise max_pixels"
    assert reasons(out) == {"large.png": says}


def test_a_training_reads_no_file_over_the_limit(photos: Path) -> None:
    items = find_items(DataConfig(clean=(photos,), max_pixels=1000))["haze"]
    os.truncate(photos / "large.png", 2**40)  # sparse; to read it would take more memory than there is
    sample = load_or_replace(Slot("haze", 0, 1), items.take([0, 1]), 16)
    assert sample.replaced == (
        f"{photos / 'large.png'}: the file has 1,099,511,627,776 bytes, more than the limit of 1,073,741,824: "
        "raise max_pixels",
    )


@pytest.mark.parametrize(
    ("size", "says"),
    [(0, "the file is empty"), (1, None), (9, None), (10, "10 bytes, more than the limit of 9")],
)
def test_a_file_in_a_store_is_read_up_to_the_limit(s3: Store, size: int, says: str | None) -> None:
    uri = f"{s3.uri}/photo.png"
    storage.write_bytes(uri, bytes(size))
    limits = Limits(max_bytes=9)
    if says is None:
        assert read_image(uri, limits=limits) == bytes(size)
    else:
        with pytest.raises(ImageError, match=says):
            read_image(uri, limits=limits)


def test_test_photos_are_refused_or_compared(photos: Path, tmp_path: Path) -> None:
    uri = build_index(str(photos), str(tmp_path / "held.parquet"), IndexOptions(layout="clean")).uri
    with pytest.raises(UserError, match=f"large.png: {SAYS}"):
        TestPhotos([uri], JUST_LESS)
    for limit, says in ((JUST_LESS, "limit of 1,199: raise max_pixels"), (1200, "are also test photos")):
        config = DataConfig(clean=(photos,), apart_from=(uri,), max_pixels=limit)
        with pytest.raises(UserError, match=says):
            check_apart(config, find_items(config))


def test_a_damaged_photo_does_not_end_an_index_that_is_compared_with_test_photos(tmp_path: Path) -> None:
    held = make_tree(tmp_path / "held", {"held.png": SIZE})
    tests = build_index(str(held), str(tmp_path / "held.parquet"), IndexOptions(layout="clean")).uri
    photos = make_tree(tmp_path / "photos", {"cut.png": (400, 300), "whole.png": (20, 15)})
    whole = (photos / "cut.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    options = IndexOptions(layout="clean", mismatched=1, apart_from=(tests,))
    summary = build_index(str(photos), str(tmp_path / "i.parquet"), options)
    assert reasons(summary.uri) == {"cut.png": f"{photos / 'cut.png'}: it is truncated or damaged"}
