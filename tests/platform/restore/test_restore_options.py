"""Options of a restore, and `--explain`."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from diffuir_core.imaging import FORMAT_OF_SUFFIX, FORMATS
from diffuir_platform.restore import RestoreOptions, restore
from diffuir_platform.restore.names import result_name
from support.album import ALBUM_BAD, ALBUM_PHOTOS, diffuir, put, results_below

ENDINGS = st.sampled_from([*FORMAT_OF_SUFFIX, ".PNG"])
NAMES = st.builds(
    lambda stem, between, last: stem + "".join(between) + last,
    st.sampled_from(["a", "b", "a.b"]),
    st.lists(ENDINGS | st.just(".txt"), max_size=3),
    ENDINGS,
)
"""Names of photos, most of which differ in their endings only."""


def test_format_exif_and_tiles_are_as_asked(ray: object, weights: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (47.0, 22.0, 11.0)}
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 192, 3), dtype=np.uint8))
    put(tmp_path / "in/a.jpg", large, exif=exif)
    put(tmp_path / "in/a.png")
    options = RestoreOptions(
        weights=str(weights), steps=1, format="png", exif="with-gps", tile=128, precision="float32"
    )
    summary = restore(tmp_path / "in", tmp_path / "out", options)
    assert results_below(tmp_path / "out") == {"a.jpg.png", "a.png"}
    picture = Image.open(tmp_path / "out/a.jpg.png")
    assert (picture.format, picture.size) == ("PNG", (192, 40))
    assert picture.getexif().get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
    assert summary.noted == {"a.jpg": "restored in 2 tiles of 128 pixels that overlap by 64 or more"}
    assert summary.lines()[0].endswith(", float32)")


@given(st.sets(NAMES))
def test_no_two_keys_give_one_name_in_any_format(keys: set[str]) -> None:
    for format in (None, *FORMATS):
        names = [result_name(format, key) for key in keys]
        assert len(set(names)) == len(names)
        if format is not None:
            assert all(FORMAT_OF_SUFFIX[Path(name).suffix.lower()] == format for name in names)


def test_a_truncated_photo_is_restored_where_asked(ray: object, weights: Path, tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        whole, "JPEG"
    )
    put(tmp_path / "in/half.jpg", whole.getvalue()[: whole.tell() // 2])
    options = RestoreOptions(weights=str(weights), steps=1)
    assert "truncated" in restore(tmp_path / "in", tmp_path / "out", options).failed["half.jpg"]
    asked = options.model_copy(update={"truncated": True})
    summary = restore(tmp_path / "in", tmp_path / "out", asked, retry_failed=True)
    assert (summary.exit_code, list(summary.noted)) == (0, ["half.jpg"])
    assert Image.open(tmp_path / "out/half.jpg").size == (64, 64)


def test_explain_says_what_would_be_done_and_does_nothing(album: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = diffuir(
        "restore", album, out, "--weights", weights, "--explain", "--tile", "128", "--format", "png"
    )
    assert done.returncode == 1
    assert not out.exists()
    first, _, *lines = done.stdout.splitlines()
    assert re.match(r"DiffUIR-T, 3 steps, (float32|bfloat16) on cpu; nothing is written", first)
    assert len(lines) == len(ALBUM_PHOTOS | ALBUM_BAD)
    (jpeg,) = [line for line in lines if line.startswith("a.jpg")]
    assert re.search(r"JPEG to PNG +\d+x\d+ +whole +[\d.]+ GiB +[\d.]+ GiB +[\d.]+ s", jpeg)
    (bomb,) = [line for line in lines if line.startswith("bad/bomb.png")]
    assert "fails: it is" in bomb
