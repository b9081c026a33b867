"""`diffuir restore`: a file or a folder in, the same relative paths out, whatever is among them."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import ExifTags, Image, ImageCms
from ray import cloudpickle

from diffuir_core import Restorer, UserError
from diffuir_core.imaging import decode
from diffuir_platform.restore import RestoreOptions, pipeline, restore
from diffuir_platform.restore.discovery import plan
from diffuir_platform.restore.pipeline import restore_each, write_whole
from diffuir_platform.restore.summary import Status, Summary, printable
from diffuir_platform.runtime import Resources


def photo(height: int = 24, width: int = 32, seed: int = 0) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 5, y * 7, x * 2 + y * 3], -1) % 200
    return Image.fromarray((base + np.random.default_rng(seed).integers(0, 55, base.shape)).astype(np.uint8))


def put(path: Path, picture: Image.Image | bytes | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, bytes):
        path.write_bytes(picture)
    else:
        (picture or photo()).save(path, **options)
    return path


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def diffuir(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diffuir_platform.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def bomb() -> bytes:
    """A small PNG that says it is 20,000 x 20,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = b"".join(
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        for body in (header, data, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything in it that people's folders have."""
    folder = tmp_path_factory.mktemp("album")
    gps = Image.Exif()
    gps[ExifTags.Base.Orientation] = 6
    gps[ExifTags.Base.Artist] = "someone"
    gps[ExifTags.IFD.GPSInfo] = {1: "N", 2: (47.0, 22.0, 11.0)}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    put(folder / "a.jpg", quality=95, exif=gps.tobytes(), icc_profile=profile)
    put(folder / "a.png")
    put(folder / "deep/er/b.webp", photo(17, 40, seed=1))
    put(folder / "deep/with space é.tiff", photo(seed=2))
    put(folder / "deep/c.bmp", photo(seed=3))
    put(folder / "grey.png", photo(seed=4).convert("L"))
    put(folder / "alpha.png", photo(seed=5).convert("RGBA"))
    put(folder / "png_named.JPG", b"")
    photo(seed=6).save(folder / "png_named.JPG", format="PNG")
    whole = io.BytesIO()
    photo(64, 64).save(whole, format="JPEG")
    put(folder / "bad/truncated.jpg", whole.getvalue()[:400])
    put(folder / "bad/empty.png", b"")
    put(folder / "bad/eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    put(folder / "bad/bomb.png", bomb())
    put(folder / "notes.txt", b"not a photo")
    put(folder / ".hidden.png")
    put(folder / ".thumbnails/a.png")
    return folder


ALBUM_PHOTOS = {
    "a.jpg", "a.png", "deep/er/b.webp", "deep/with space é.tiff", "deep/c.bmp",
    "grey.png", "alpha.png", "png_named.JPG",
}  # fmt: skip
ALBUM_BAD = {"bad/truncated.jpg", "bad/empty.png", "bad/eps.jpg", "bad/bomb.png"}


@pytest.fixture(scope="module")
def restored_album(
    ray: object, album: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Summary]:
    out = tmp_path_factory.mktemp("restored") / "new" / "folder"
    return out, restore(album, out, RestoreOptions(weights=str(weights), steps=2, batch_size=3))


def test_relative_paths_and_whole_names_are_kept(restored_album: tuple[Path, Summary]) -> None:
    out, summary = restored_album
    assert files_below(out) == ALBUM_PHOTOS
    assert summary.done == len(ALBUM_PHOTOS)


def test_guarantee_5_a_bad_file_is_one_line_and_stops_nothing(restored_album: tuple[Path, Summary]) -> None:
    _, summary = restored_album
    assert set(summary.failed) == ALBUM_BAD
    assert summary.exit_code == 1
    lines = summary.lines()
    for key in ALBUM_BAD:
        assert sum(line.startswith(f"  {key}: ") for line in lines) == 1
    assert "pixels" in summary.failed["bad/bomb.png"]


def test_what_is_passed_over_is_counted(restored_album: tuple[Path, Summary]) -> None:
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


def test_results_of_an_earlier_run_are_replaced(ray: object, weights: Path, tmp_path: Path) -> None:
    put(tmp_path / "in/a.png")
    put(tmp_path / "out/a.png", b"of other settings")
    summary = restore(tmp_path / "in", tmp_path / "out", RestoreOptions(weights=str(weights), steps=1))
    assert (summary.done, summary.exit_code) == (1, 0)
    assert Image.open(tmp_path / "out/a.png").size == photo().size


def test_a_result_that_cannot_be_written_is_that_photos_failure(
    ray: object, weights: Path, tmp_path: Path
) -> None:
    put(tmp_path / "in/sub/a.png")
    put(tmp_path / "in/b.png")
    put(tmp_path / "out/sub", b"a file where a folder has to be")
    summary = restore(tmp_path / "in", tmp_path / "out", RestoreOptions(weights=str(weights), steps=1))
    assert set(summary.failed) == {"sub/a.png"}
    assert files_below(tmp_path / "out") == {"sub", "b.png"}


def test_the_command_names_what_failed_and_exits_with_1(weights: Path, tmp_path: Path) -> None:
    put(tmp_path / "in/good.png")
    put(tmp_path / "in/bad.jpg", b"hello")
    put(tmp_path / "in" / os.fsdecode(b"not\xfftext.png"))
    done = diffuir("restore", tmp_path / "in", tmp_path / "out", "--weights", weights, "--steps", "1")
    assert done.returncode == 1, done.stderr
    assert files_below(tmp_path / "out") == {"good.png", os.fsdecode(b"not\xfftext.png")}
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
    (item,) = plan(str(source), str(tmp_path / "new") + "/").items
    assert (item.key, item.target, item.format) == ("scan.dat", str(tmp_path / "new/scan.dat"), None)
    (item,) = plan(str(source), str(tmp_path / "x.webp")).items
    assert (item.target, item.format) == (str(tmp_path / "x.webp"), "WEBP")


def test_an_output_inside_the_input_is_not_restored_again(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "out/a.png")
    put(tmp_path / "out/deep/b.png")
    assert [item.key for item in plan(str(tmp_path), str(tmp_path / "out")).items] == ["a.png"]


def test_links_that_leave_the_input_are_not_followed(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside/x.png")
    put(tmp_path / "in/a.png")
    (tmp_path / "in/inside.png").symlink_to("a.png")
    (tmp_path / "in/leaves.png").symlink_to(outside)
    (tmp_path / "in/folder").symlink_to(outside.parent)
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/broken.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "in/pipe.png")
    found = plan(str(tmp_path / "in"), str(tmp_path / "out"))
    assert [item.key for item in found.items] == ["a.png", "inside.png"]
    assert found.ignored == 5


@pytest.mark.parametrize(
    ("source", "target"),
    [("in", "in"), ("in/a.png", "in/a.png"), ("in/a.png", "in"), ("in", "in/../in/")],
)
def test_originals_are_never_replaced(tmp_path: Path, source: str, target: str) -> None:
    put(tmp_path / "in/a.png")
    with pytest.raises(UserError, match="replaced"):
        plan(str(tmp_path / source), str(tmp_path / target))


def test_originals_are_not_replaced_from_a_folder_above(tmp_path: Path) -> None:
    put(tmp_path / "x/x/a.png")
    put(tmp_path / "x/a.png")
    with pytest.raises(UserError, match="among the photos"):
        plan(str(tmp_path / "x"), str(tmp_path))


def test_a_photo_the_restorer_fails_on_does_not_take_its_batch_along() -> None:
    class Fragile:
        def restore(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
            if any(image.max() == 13 for image in images):
                raise RuntimeError("out of\nmemory")
            return [255 - image for image in images]

    images = [np.full((2, 2, 3), value, np.uint8) for value in (0, 13, 7)]
    first, second, third = restore_each(Fragile(), images)
    assert np.array_equal(first, 255 - images[0])
    assert second == "the restorer failed on it (RuntimeError: out of memory)"
    assert np.array_equal(third, 255 - images[2])


def test_an_interrupted_write_leaves_neither_half_a_file_nor_a_temporary_one(tmp_path: Path) -> None:
    target = put(tmp_path / "a.png", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_whole(target, bytes(2**21))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_below(tmp_path) == {"a.png"}
    assert target.read_bytes() == b"old"
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert files_below(tmp_path) == {"a.png"}


class Dies(pipeline.Model):
    """A model whose process ends as if the system had killed it."""

    def __call__(self, photos: pa.Table) -> pa.Table:
        if b"b.png" in photos["key"].to_pylist():
            os._exit(1)
        return super().__call__(photos)


def test_the_death_of_the_models_process_ends_the_run_with_one_sentence(
    ray: Resources, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(pipeline, "Model", Dies)
    for name in "abc":
        put(tmp_path / f"in/{name}.png")
    options = RestoreOptions(weights=str(weights), steps=1, batch_size=1)
    with pytest.raises(UserError, match="died"):
        restore(tmp_path / "in", tmp_path / "out", options)
    monkeypatch.undo()
    assert all(Image.open(path).size == photo().size for path in (tmp_path / "out").iterdir())
    assert restore(tmp_path / "in", tmp_path / "out", options).exit_code == 0
    assert files_below(tmp_path / "out") == {"a.png", "b.png", "c.png"}


def test_the_summary_does_not_grow_with_the_number_of_failures() -> None:
    summary = Summary("out")
    for i in range(1500):
        summary.add(Status(key=f"{i}.png", failed=True, reason="broken", notes="", seconds=0.0))
    assert (summary.failures, len(summary.failed)) == (1500, 1000)
    assert summary.lines()[-1] == "  and 500 more"


def test_a_name_cannot_break_the_summarys_lines() -> None:
    assert printable("a\nb\x1b[31m.png") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m.png"


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
        "no batch": ([photos, out, *good, "--batch-size", "0"], "batch-size"),
    }


def test_what_cannot_start_is_one_sentence_and_exit_code_2(tmp_path: Path, weights: Path) -> None:
    for name, (arguments, word) in refusals(tmp_path, weights).items():
        done = diffuir("restore", *arguments)
        assert done.returncode == 2, name
        assert done.stderr.startswith("error: "), name
        assert word in done.stderr, name
        assert done.stderr.count("\n") == 1, name
        assert done.stdout == "", name


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
