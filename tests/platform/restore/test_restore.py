"""`diffuir restore`: a file or a folder in, the same relative paths out, whatever the folder holds."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import ExifTags, Image

from diffuir_core import Restorer, UserError
from diffuir_core.imaging import decode
from diffuir_core.restorer import Restoration
from diffuir_platform.cli import exit_code_of
from diffuir_platform.command_table import app
from diffuir_platform.restore import RestoreOptions, restore
from diffuir_platform.restore.ledger import LedgerRow
from diffuir_platform.restore.single_photo import single_item
from diffuir_platform.restore.stages import restore_each
from diffuir_platform.restore.summary import Summary
from diffuir_platform.text import one_line
from support.album import ALBUM_BAD, ALBUM_PHOTOS, diffuir, put, results_below


@pytest.fixture(scope="module")
def restored_album(
    ray: object, album: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Summary]:
    out = tmp_path_factory.mktemp("restored") / "new" / "folder"
    return out, restore(album, out, RestoreOptions(weights=str(weights), steps=2, batch_size=3))


def test_relative_paths_and_whole_names_are_kept(restored_album: tuple[Path, Summary]) -> None:
    out, summary = restored_album
    assert results_below(out) == ALBUM_PHOTOS
    assert summary.done == len(ALBUM_PHOTOS)


def test_guarantee_5_a_bad_file_is_one_line_and_stops_nothing(restored_album: tuple[Path, Summary]) -> None:
    _, summary = restored_album
    assert set(summary.failed) == ALBUM_BAD
    assert summary.exit_code == 1
    lines = summary.lines()
    for key in ALBUM_BAD:
        assert sum(line.startswith(f"  {key}: ") for line in lines) == 1
    assert "pixels" in summary.failed["bad/bomb.png"]


def test_skipped_files_are_counted(restored_album: tuple[Path, Summary]) -> None:
    _, summary = restored_album
    assert summary.ignored == 3
    assert any(line.startswith("ignored 3 ") for line in summary.lines())


def test_guarantee_8_what_a_photo_carries_survives(restored_album: tuple[Path, Summary], album: Path) -> None:
    out, _ = restored_album
    jpeg = Image.open(out / "a.jpg")
    assert jpeg.size == (24, 32)
    assert jpeg.info["icc_profile"] == Image.open(album / "a.jpg").info["icc_profile"]
    assert jpeg.getexif()[ExifTags.Base.Artist] == "someone"
    assert jpeg.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert not jpeg.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    assert Image.open(out / "grey.png").mode == "L"
    assert Image.open(out / "alpha.png").mode == "RGBA"
    formats = {key: decode((out / key).read_bytes()).format for key in ALBUM_PHOTOS}
    assert formats == {key: decode((album / key).read_bytes()).format for key in ALBUM_PHOTOS}
    assert formats["png_named.JPG"] == "PNG"


def test_guarantee_1_a_photo_does_not_depend_on_its_batch(
    restored_album: tuple[Path, Summary], album: Path, weights: Path
) -> None:
    out, _ = restored_album
    restorer = Restorer(weights, steps=2)
    for key in ("a.png", "deep/c.bmp", "deep/with space é.tiff"):
        pixels = decode((album / key).read_bytes()).pixels
        alone = restorer.restore([pixels])[0].astype(int)
        written = decode((out / key).read_bytes()).pixels.astype(int)
        assert not np.array_equal(alone, pixels)
        assert np.abs(alone - written).max() <= 1


def test_prometheus_can_read_what_a_run_did(ray: object, weights: Path, tmp_path: Path) -> None:
    import ray as cluster

    put(tmp_path / "in" / "a.png")
    put(tmp_path / "in" / "b.png", b"no photo")
    restore(tmp_path / "in", tmp_path / "out", RestoreOptions(weights=str(weights), steps=1))
    report = json.loads((tmp_path / "out/_diffuir/report.json").read_text())
    assert "MapBatches(ModelProcess)" in report["ray_data"]
    (node,) = cluster.nodes()
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    wanted = (
        r'ray_diffuir_restore_photos_total\{[^}]*status="done"',
        r'ray_diffuir_restore_photos_total\{[^}]*status="failed"',
        r"ray_diffuir_restore_pixels_total\{",
        r'ray_diffuir_restore_seconds_total\{[^}]*stage="write"',
        r'ray_data_num_alive_actors\{[^}]*operator="MapBatches\(ModelProcess\)',
        r'ray_data_num_outputs_taken\{[^}]*operator="MapBatches\(ModelProcess\)',
    )
    deadline = time.monotonic() + 60
    while missing := [name for name in wanted if not re.search(name, requests.get(url, timeout=30).text)]:
        assert time.monotonic() < deadline, missing
        time.sleep(1)


def test_a_result_that_cannot_be_written_is_that_photos_failure(
    ray: object, weights: Path, tmp_path: Path
) -> None:
    put(tmp_path / "in/sub/a.png")
    put(tmp_path / "in/b.png")
    put(tmp_path / "out/sub", b"a file where a folder has to be")
    summary = restore(tmp_path / "in", tmp_path / "out", RestoreOptions(weights=str(weights), steps=1))
    assert set(summary.failed) == {"sub/a.png"}
    assert results_below(tmp_path / "out") == {"sub", "b.png"}


def test_the_command_names_what_failed_and_exits_with_1(weights: Path, tmp_path: Path) -> None:
    put(tmp_path / "in/good.png")
    put(tmp_path / "in/bad.jpg", b"hello")
    put(tmp_path / "in" / os.fsdecode(b"not\xfftext.png"))
    done = diffuir("restore", tmp_path / "in", tmp_path / "out", "--weights", weights, "--steps", "1")
    assert done.returncode == 1, done.stderr
    assert results_below(tmp_path / "out") == {"good.png", os.fsdecode(b"not\xfftext.png")}
    assert "restored 2 of 3 photos" in done.stdout
    assert "  bad.jpg: it is not a JPEG" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "Warning" not in done.stderr
    assert "INFO" not in done.stderr


def test_one_photo_to_a_file_takes_the_format_of_its_ending(
    ray: object, weights: Path, tmp_path: Path
) -> None:
    source = put(tmp_path / "a.png")
    options = RestoreOptions(weights=str(weights), steps=1)
    assert restore(source, tmp_path / "b.jpg", options).exit_code == 0
    assert Image.open(tmp_path / "b.jpg").format == "JPEG"
    (tmp_path / "folder").mkdir()
    assert restore(source, tmp_path / "folder", options).done == 1
    assert Image.open(tmp_path / "folder/a.png").format == "PNG"


def test_a_single_file_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    source = put(tmp_path / "scan.dat", b"")
    item, folder = single_item(str(source), str(tmp_path / "new") + "/", None)
    assert (item.key, folder, item.target, item.format) == (
        "scan.dat",
        str(tmp_path / "new"),
        "scan.dat",
        None,
    )
    item, _ = single_item(str(source), str(tmp_path / "x.webp"), None)
    assert (item.target, item.format) == ("x.webp", "WEBP")


@pytest.mark.parametrize(
    ("source", "target"),
    [("in", "in"), ("in/a.png", "in/a.png"), ("in/a.png", "in"), ("in", "in/../in/")],
)
def test_originals_are_never_replaced(tmp_path: Path, source: str, target: str) -> None:
    put(tmp_path / "in/a.png")
    with pytest.raises(UserError, match="replaced"):
        restore(tmp_path / source, tmp_path / target)


def test_a_photo_the_restorer_fails_on_does_not_take_its_batch_along() -> None:
    class Fragile:
        def restorations(self, images: Sequence[np.ndarray]) -> list[Restoration]:
            if any(image.max() == 13 for image in images):
                raise RuntimeError("out of\nmemory")
            return [Restoration(255 - image, None) for image in images]

    images = [np.full((2, 2, 3), value, np.uint8) for value in (0, 13, 7)]
    first, second, third = restore_each(Fragile(), images)
    assert np.array_equal(first.pixels, 255 - images[0])
    assert second == "the restorer failed on it (RuntimeError: out of memory)"
    assert np.array_equal(third.pixels, 255 - images[2])


def test_the_summary_does_not_grow_with_the_number_of_failures() -> None:
    summary = Summary("out")
    for i in range(1500):
        summary.add(LedgerRow(key=f"{i}.png", status="failed", reason="broken", source="", target=""))
    assert (summary.failures, len(summary.failed)) == (1500, 1000)
    assert summary.lines()[-1] == "  and 500 more"


def test_a_name_cannot_break_the_summarys_lines() -> None:
    assert one_line("a\nb\x1b[31m.png") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m.png"


def refusals(tmp_path: Path, weights: Path) -> dict[str, tuple[list[str | Path], str]]:
    photos = put(tmp_path / "in/a.png").parent
    (tmp_path / "empty").mkdir()
    put(tmp_path / "file", b"text")
    put(tmp_path / "foreign.safetensors", b"\x08\0\0\0\0\0\0\0{}      ")
    put(tmp_path / "truncated.safetensors", weights.read_bytes()[:5000])
    out = tmp_path / "out"
    good: list[str | Path] = ["--weights", weights]
    return {
        "missing input": ([tmp_path / "nowhere", out, *good], "nowhere"),
        "empty input": ([tmp_path / "empty", out, *good], "no photos"),
        "missing weights": ([photos, out, "--weights", tmp_path / "no.safetensors"], "no.safetensors"),
        "foreign weights": ([photos, out, "--weights", tmp_path / "foreign.safetensors"], "foreign"),
        "truncated weights": ([photos, out, "--weights", tmp_path / "truncated.safetensors"], "truncated"),
        "output below a file": ([photos, tmp_path / "file/out", *good], "cannot write"),
        "output is a file": ([photos, tmp_path / "file", *good], "is a file"),
        "no such device": ([photos, out, *good, "--device", "abacus"], "abacus"),
        "no steps": ([photos, out, *good, "--steps", "0"], "steps"),
        "too strong": ([photos, out, *good, "--strength", "1.5"], "strength"),
        "odd tiles": ([photos, out, *good, "--tile", "130"], "tile"),
        "no such format": ([photos, out, *good, "--format", "gif"], "format"),
        "two formats": ([photos / "a.png", tmp_path / "b.png", *good, "--format", "jpeg"], "ending of PNG"),
        "no batch": ([photos, out, *good, "--batch-size", "0"], "batch_size"),
    }


def test_what_cannot_start_is_one_sentence_and_exit_code_2(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (arguments, word) in refusals(tmp_path, weights).items():
        command = ["restore", *map(str, arguments)]
        assert exit_code_of(lambda command=command: app(command, standalone_mode=False)) == 2, name
        said = capsys.readouterr()
        assert said.err.startswith("error: "), name
        assert word in said.err, name
        assert said.err.count("\n") == 1, name
        assert said.out == "", name


def test_the_command_itself_says_it_too(tmp_path: Path) -> None:
    done = diffuir("restore", tmp_path / "nowhere", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {tmp_path}/nowhere does not exist: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_an_output_folder_without_permission_is_refused(tmp_path: Path, weights: Path) -> None:
    put(tmp_path / "in/a.png")
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot write"):
        restore(tmp_path / "in", tmp_path / "out", RestoreOptions(weights=str(weights)))


def test_help_shows_defaults_and_version_is_printed() -> None:
    text = diffuir("restore", "--help").stdout
    for expected in ("--steps", "[default: 3]", "[default: auto]"):
        assert expected in text
    assert diffuir("--version").stdout.startswith("diffuir ")
