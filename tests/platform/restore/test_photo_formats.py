"""A folder of photos in all formats: which are inputs, what their results are called, and which are too large."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffuir_core.imaging import DEFAULT_LIMITS, decode
from diffuir_platform.restore import RestoreOptions
from diffuir_platform.restore.inputs import Inputs
from diffuir_platform.restore.names import is_photo, result_format, result_name
from diffuir_platform.restore.single_photo import single_item
from diffuir_platform.restore.stages import Photo, read, write
from support.photo_files import dng, heic, jxl

PIXELS = np.full((64, 96, 3), 99, np.uint8)
RAW = dng(np.full((64, 96), 9000, np.uint16))
MANY = DEFAULT_LIMITS.max_pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "in"
    photos.mkdir()
    for name, data in (("a.HEIC", heic(PIXELS)), ("b.jxl", jxl(PIXELS)), ("c.dng", RAW), ("d.NEF", RAW)):
        (photos / name).write_bytes(data)
    for name in ("e.jfif", "f.jpe"):
        Image.fromarray(PIXELS).save(photos / name, "JPEG")
    Image.fromarray(PIXELS).save(photos / "g.avif")
    (photos / "notes.xmp").write_text("no photo")
    return photos


def through_stages(
    folder: Path, out: Path, format: str | None = None, max_pixels: int = MANY
) -> Iterator[Photo]:
    """The photos of a folder, read and written without a model in between."""
    items = list(Inputs(str(folder), str(out), format))
    yield from write(read(items, "without-gps", False, max_pixels), str(out), 95, journaled=False)


def test_every_photo_has_a_result_in_its_format(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    photos = list(through_stages(folder, out))
    assert [photo.reason for photo in photos] == [None] * 7
    formats = {path.name: decode(path.read_bytes()).format for path in out.iterdir()}
    assert formats == {
        "a.HEIC": "HEIC",
        "b.jxl": "JXL",
        "c.dng.tif": "TIFF",
        "d.NEF.tif": "TIFF",
        "e.jfif": "JPEG",
        "f.jpe": "JPEG",
        "g.avif": "AVIF",
    }
    assert decode((out / "c.dng.tif").read_bytes()).deep is not None


@pytest.mark.parametrize("format", ["jpeg", "heic", "avif", "jxl"])
def test_results_are_written_in_the_format_asked_for(folder: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / "out"
    assert all(photo.reason is None for photo in through_stages(folder, out, format))
    assert {decode(path.read_bytes()).format for path in out.iterdir()} == {format.upper()}
    assert (out / f"c.dng.{'jpg' if format == 'jpeg' else format}").is_file()


def test_a_photo_larger_than_the_option_allows_fails_alone(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (97, 64)).save(folder / "large.png")
    photos = list(through_stages(folder, tmp_path / "out", max_pixels=96 * 64))
    (failed,) = (photo for photo in photos if photo.reason)
    assert failed.item.key == "large.png"
    assert failed.reason == "it is 97x64 pixels, more than the limit of 6,144"


def test_the_limit_does_not_change_the_results() -> None:
    few, many = (RestoreOptions(max_pixels=number).result_settings("0" * 64) for number in (10**6, 10**9))
    assert few == many
    assert RestoreOptions().max_pixels >= 100_000_000


def test_without_a_library_its_photos_are_lines_of_the_report(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pillow_heif", "rawpy"):
        monkeypatch.setitem(sys.modules, module, None)
    reasons = {photo.item.key: photo.reason for photo in through_stages(folder, tmp_path / "out")}
    assert reasons.pop("a.HEIC") == "it is a HEIC photo: install diffuir[formats] to read it"
    for key in ("c.dng", "d.NEF"):
        assert reasons.pop(key) == "it is a RAW photo: install diffuir[formats] to read it"
    assert set(reasons.values()) == {None}


@pytest.mark.parametrize(
    ("format", "key", "name"),
    [
        (None, "a.dng", "a.dng.tif"),
        (None, "a.dng.tif", "a.dng.tif.tif"),
        (None, "a.dng.tif.tif", "a.dng.tif.tif.tif"),
        (None, "deep/a.CR2", "deep/a.CR2.tif"),
        (None, "a.heic", "a.heic"),
        (None, "a.dng.tiff", "a.dng.tiff"),
        ("TIFF", "a.dng", "a.dng.tif"),
        ("JPEG", "a.dng", "a.dng.jpg"),
        ("JPEG", "a.jfif", "a.jfif"),
        ("HEIC", "a.heif", "a.heif"),
        ("HEIC", "a.jpg", "a.jpg.heic"),
    ],
)
def test_a_result_has_an_ending_of_its_format(format: str | None, key: str, name: str) -> None:
    assert result_name(format, key) == name


ENDINGS = st.lists(st.sampled_from([".dng", ".NEF", ".tif", ".tiff", ".jpg"]), min_size=1, max_size=5)


@given(st.lists(ENDINGS.map("".join), min_size=2, max_size=8, unique=True))
def test_no_two_raw_photos_give_one_name(endings: list[str]) -> None:
    for format in (None, "TIFF", "JPEG"):
        assert len({result_name(format, f"a{ending}") for ending in endings}) == len(endings)


def test_raw_photos_are_inputs_and_become_tiffs(tmp_path: Path) -> None:
    assert all(map(is_photo, ["a.dng", "a.CR3", "a.arw", "a.hif", "a.jfif", "a.jxl"]))
    assert (result_format(None, "a.dng"), result_format("JPEG", "a.dng")) == ("TIFF", "JPEG")
    assert result_format(None, "a.heic") is None
    (tmp_path / "a.dng").write_bytes(RAW)
    item, _ = single_item(str(tmp_path / "a.dng"), f"{tmp_path}/out/", None)
    assert (item.target, item.format) == ("a.dng.tif", "TIFF")
