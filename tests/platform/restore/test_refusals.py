"""Commands that are refused before any work begins: one sentence, exit code 2, and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuir_core import UserError
from diffuir_core.imaging import decode
from diffuir_platform import storage
from diffuir_platform.restore import RestoreOptions, restore
from diffuir_platform.restore.commands import RestoreModes, check_options
from diffuir_platform.restore.inputs import Inputs
from diffuir_platform.restore.refusals import check_places, format_of_result
from diffuir_platform.restore.settings import RestoreJob
from support.album import files_below, photo, put
from support.command import diffuir_here
from support.restoring import Cheap, run
from support.store import Store


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder with a photo, a folder of photos, a list and files of other kinds."""
    put(tmp_path / "a.png")
    put(tmp_path / "in/b.png")
    put(tmp_path / "photos.zip", b"PK")
    put(tmp_path / "photos.tar.gz", b"\x1f\x8b")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.png\n")
    return tmp_path


REFUSED = {
    "IN is stdin": (["-", "out"], "IN is -, but photos are not read from stdin: "),
    "OUT is stdout": (["a.png", "-"], "OUT is -, but photos are not written to stdout: "),
    "no IN": (["", "out"], "IN is empty: "),
    "no OUT": (["in", ""], "OUT is empty: "),
    "zip": (
        ["photos.zip", "out"],
        "photos.zip is an archive, whose photos can't be read in place: unpack it",
    ),
    "tgz": (["photos.tar.gz", "out"], "photos.tar.gz is an archive, "),
    "archives": (["*.tar.gz", "out"], "*.tar.gz is an archive, "),
    "no format": (
        ["a.png", "out.xyz"],
        "out.xyz ends in .xyz, in which no photo can be written: end it",
    ),
    "RAW": (["a.png", "out.dng"], "out.dng ends in .dng, in which no photo can be written: "),
    "another format": (
        ["a.png", "out.jpg", "--format", "png"],
        "out.jpg has the ending of JPEG: leave out",
    ),
    "folder to file": (
        ["in", "out.jpg"],
        "OUT is out.jpg, the name of a file, but in may hold many photos: ",
    ),
    "list to file": (
        ["list.txt", "out.png"],
        "OUT is out.png, the name of a file, but list.txt may hold many",
    ),
    "pattern to file": (["in/*.png", "out.tar"], "OUT is out.tar, the name of a file, "),
    "no such photo": (["nope.png", "o.png"], "nope.png does not exist: give a photo or a folder of photos"),
    "include": (
        ["a.png", "o.png", "--include", "*"],
        "IN is one photo, on which --include has no effect: leave",
    ),
    "exclude": (["a.png", "o.png", "--exclude", "*"], "IN is one photo, on which --exclude "),
    "restart": (["a.png", "o.png", "--restart"], "IN is one photo, on which --restart "),
    "retry": (["a.png", "o.png", "--retry-failed"], "IN is one photo, on which --retry-failed "),
    "batch": (["a.png", "o.png", "--batch-size", "2"], "IN is one photo, on which --batch-size "),
    "models": (["a.png", "o.png", "models=2"], "IN is one photo, on which --models "),
    "column": (
        ["in", "out", "--column", "file"],
        "--column names a column of a .parquet list, which IN is not: ",
    ),
    "price": (["in", "out", "--price", "3"], "--price belongs to --plan: add --plan, or leave it out"),
    "nodes": (["in", "out", "--nodes", "1", "--explain"], "--nodes belongs to --plan: "),
    "two modes": (
        ["in", "out", "--plan", "--verify"],
        "--verify and --plan are two different things to do: ",
    ),
    "plan and restart": (
        ["in", "out", "--plan", "--restart"],
        "--plan restores nothing, so --restart has",
    ),
    "restart and retry": (
        ["in", "out", "--restart", "--retry-failed"],
        "--restart forgets what failed before, ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_command_that_cannot_be_meant_is_refused(
    case: str, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, sentence = REFUSED[case]
    monkeypatch.chdir(places)
    before = files_below(places)
    done = diffuir_here("restore", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {sentence}")
    assert files_below(places) == before


def test_what_only_looks_alike_is_taken(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(places)
    for folder in ("x.zip", "x.jpg"):
        put(places / folder / "a.png")
    for source, target in (
        ("./-", "./-"),
        ("x.zip", "out"),
        ("in", "x.jpg"),
        ("in", "new.jpg/"),
        ("in", "v1.2"),
    ):
        check_places(source, target)
        if source != "./-":
            assert list(Inputs(source, target))
    for target, format in (("a.JPG", None), ("a", None), ("a", "PNG"), ("b.c/a", None), ("a.tif", "TIFF")):
        format_of_result(target, format)
    quiet = RestoreModes()
    for source, options in (
        ("a.png", {"batch_size": None, "column": "uri", "progress_file": "p.json", "overwrite": True}),
        ("list.txt", {"include": ("*",), "models": 1}),
        ("t.parquet", {"column": "file"}),
    ):
        check_options(RestoreJob(source=source, target="o.png", **options), quiet)
    check_options(RestoreJob(source="a.png", target="o.png"), RestoreModes(plan=True, price=3, nodes=2))


def test_a_photo_that_is_not_in_the_bucket_is_named(s3: Store) -> None:
    with pytest.raises(UserError, match=r"nope\.png does not exist: give a photo"):
        restore(f"{s3.uri}/nope.png", "o.png")


def test_an_archive_on_s3_is_refused_too(s3: Store) -> None:
    storage.write_bytes(f"{s3.uri}/p.zip", b"PK")
    storage.write_bytes(f"{s3.uri}/q.zip/a.png", b"")
    with pytest.raises(UserError, match="is an archive"):
        check_places(f"{s3.uri}/p.zip", "out")
    check_places(f"{s3.uri}/q.zip", "out")


def transparent(alpha: int) -> Image.Image:
    pixels = np.asarray(photo().convert("RGBA")).copy()
    pixels[3, 4, 3] = alpha
    return Image.fromarray(pixels)


class Unused(Cheap):
    """A restorer that may not be asked for anything."""

    def restorations(self, images: object) -> list[object]:
        raise AssertionError("it was restored for nothing")


@pytest.mark.parametrize(("target", "format"), [("o.jpg", None), ("o.jpg", "jpeg"), ("out/", "jpeg")])
def test_transparency_in_a_jpeg_is_refused_before_the_restore(
    tmp_path: Path, target: str, format: str | None
) -> None:
    source = put(tmp_path / "a.png", transparent(254))
    with pytest.raises(UserError, match=r"^a\.png: JPEG cannot hold its transparency: choose "):
        restore(source, f"{tmp_path}/{target}", RestoreOptions(format=format), restorer=Unused)
    assert {name for name in files_below(tmp_path) if not name.startswith(".")} == {"a.png"}


def test_an_opaque_alpha_is_no_transparency(tmp_path: Path) -> None:
    source = put(tmp_path / "a.png", transparent(255))
    for target in ("o.jpg", "o.png"):
        assert restore(source, tmp_path / target, RestoreOptions(), restorer=Cheap).done == 1
    assert decode((tmp_path / "o.jpg").read_bytes()).format == "JPEG"
    assert Image.open(tmp_path / "o.png").mode == "RGBA"


def test_in_a_folder_transparency_is_the_photos_line(tmp_path: Path) -> None:
    for name, alpha in (("a", 255), ("b", 254)):
        put(tmp_path / f"in/{name}.png", transparent(alpha))
    summary = run(str(tmp_path / "in"), str(tmp_path / "out"), None, 1, changes={"format": "jpeg"})
    assert summary.done == 1
    assert summary.failed["b.png"].startswith("JPEG cannot hold its transparency: choose ")


def test_a_single_photo_that_is_bad_is_still_a_line_of_the_summary(tmp_path: Path) -> None:
    summary = restore(put(tmp_path / "a.png", b"no photo"), tmp_path / "b.png", restorer=Unused)
    assert (summary.exit_code, list(summary.failed)) == (1, ["a.png"])
    assert not os.path.exists(tmp_path / "b.png")
