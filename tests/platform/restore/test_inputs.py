"""Inputs of a restore from every kind of source, on a local disk and on S3: found, skipped and refused."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.s3.models import s3_backends

from diffuir_core import UserError
from diffuir_core.imaging import DEFAULT_LIMITS
from diffuir_platform import storage
from diffuir_platform.data.building import build_index
from diffuir_platform.data.index import open_index
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.restore import inputs as module
from diffuir_platform.restore.inputs import Choice, Inputs, Item
from diffuir_platform.restore.names import safe_path
from diffuir_platform.restore.stages import read, read_input
from diffuir_platform.restore.summary import Summary
from support.store import Store
from support.trees import make_tar, make_tree, upload

OUT = "/nowhere/out"
ODD_KEYS = ["a b#é%20+.jpg", "../up.jpg", "./a.jpg", "/l.jpg", "a//b.jpg", "*?[1].png", "雪/☃.PNG"]
NOT_AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
CLOSED = pytest.param(lambda folder: folder.chmod(0), "Permission denied", marks=NOT_AS_ROOT)
PATTERNS = {
    "*.jpg": ["a1.jpg", "a22.jpg"], "a?.jpg": ["a1.jpg"], "[ab][0-9].jpg": ["a1.jpg"], "*/a1.jpg": ["d/a1.jpg"],
    "**/a1.jpg": ["a1.jpg", "d/a1.jpg", "d/e/a1.jpg"], "*/*/a1.jpg": ["d/e/a1.jpg"],
    "d/*": ["a1.jpg"], "d/**": ["a1.jpg", "e/a1.jpg"], "d/*.txt": ["n.txt"],
}  # fmt: skip
EVERY_LINK = pytest.param("/**/*.jpg")
HALF = pytest.param(1636, 1)
MEMBERS = {"a.jpg": b"1" * 700, "a.cls": b"3", "d/é.png": b"2" * 200_000, ".h.jpg": b"", "b.jpg": b"4" * 5}


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder of a local disk, or of S3."""
    if request.param == "local":
        return str(tmp_path)
    return request.getfixturevalue("s3").uri + "/some"


def fill(folder: str, *names: str, data: bytes = b"x") -> str:
    for name in names:
        storage.write_bytes(storage.join(folder, name), data)
    return folder


def items_at(source: str, target: str = OUT, **choice: object) -> dict[str, Item]:
    found = list(Inputs(source, target, None, Choice(**choice)))
    items = {item.key: item for item in found}
    assert len(items) == len(found)
    return items


def keys_at(source: str, target: str = OUT, **choice: object) -> list[str]:
    return sorted(items_at(source, target, **choice))


def refusal(source: str, target: str = OUT, **choice: object) -> str:
    with pytest.raises(UserError) as raised:
        keys_at(source, target, **choice)
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_a_folder_gives_its_photos_and_counts_what_it_skips(root: str) -> None:
    photos = ["a.jpg", "a.png", "deep/c d.tif", "deep/er/B.JPEG"]
    other = ["n.txt", ".h.jpg", ".t/a.jpg", "deep/_diffuir/a.jpg", "_diffuir/b.jpg", "jpg", "a.jpg.part"]
    fill(root, *(f"in/{name}" for name in photos + other), "in2/x.jpg", data=b"123")
    inputs = Inputs(f"{root}/in/", OUT, "png")
    items = sorted(inputs, key=lambda item: item.key)
    assert [item.key for item in items] == photos
    assert [item.target for item in items] == ["a.jpg.png", "a.png", "deep/c d.tif.png", "deep/er/B.JPEG.png"]
    assert {(item.format, item.size, read_input(item)) for item in items} == {("PNG", 3, b"123")}
    assert all(item.version == storage.entry(item.source).version for item in items)
    assert (inputs.root, inputs.ignored) == (f"{root}/in", len(other))


@pytest.mark.parametrize("pattern", ["", "/**/*.jpg"])
def test_an_output_inside_the_input_is_not_listed(root: str, pattern: str) -> None:
    fill(root, "in/a.jpg", "in/out/a.jpg", "in/out/deep/b.jpg", "in/out2/c.jpg", "in/deep/out/d.jpg")
    assert keys_at(f"{root}/in{pattern}", f"{root}/in/out/") == ["a.jpg", "deep/out/d.jpg", "out2/c.jpg"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_star_stays_within_a_name_and_two_go_across_folders(root: str, pattern: str) -> None:
    fill(root, "in/a1.jpg", "in/a22.jpg", "in/d/a1.jpg", "in/d/e/a1.jpg", "in/d/n.txt", "in2/a1.jpg")
    items = items_at(f"{root}/in/{pattern}")
    assert sorted(items) == PATTERNS[pattern]
    assert {read_input(item) for item in items.values()} == {b"x"}


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(root: str) -> None:
    fill(root, "in [1]*/a.jpg", "in 1/b.jpg")
    assert keys_at(f"{root}/in [1]*") == ["a.jpg"]


@pytest.mark.parametrize("store", ["local", "s3"])
def test_hidden_names_are_those_that_an_index_skips(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Folders of programs, as that of a Mac's archives, are skipped by a restore and by `diffuir index` alike."""
    hidden = ["__MACOSX/a.png", "b/__MACOSX/c/d.png", "_diffuir/e.png", ".f.png", ".g/h.png", "b/._i.png"]
    kept = ["j.png", "b/k.png", "__macosx/l.png", "_diffuir2/m.png", "__MACOSX.png", "b/n..png"]
    place = str(tmp_path) if store == "local" else request.getfixturevalue("s3").uri
    folder = upload(make_tree(tmp_path / "tree", [*hidden, *kept]), f"{place}/in")
    members = {name: (tmp_path / "tree" / name).read_bytes() for name in [*hidden, *kept]}
    make_tar(f"{place}/0.tar", members)
    inputs = Inputs(folder, OUT)
    assert sorted(item.key for item in inputs) == sorted(kept)
    assert keys_at(f"{folder}/**") == sorted(kept)
    assert keys_at(f"{place}/0.tar") == sorted(f"0.tar/{name}" for name in kept)
    assert inputs.ignored > 0
    build_index(folder, f"{place}/i", IndexOptions(layout="clean", dataset="mine"))
    assert [row.key for row in open_index(f"{place}/i").rows()] == sorted(kept)


def test_a_pattern_skips_hidden_files(root: str) -> None:
    fill(root, "in/a.jpg", "in/.h.jpg", "in/.t/b.jpg", "in/_diffuir/c.jpg")
    assert keys_at(f"{root}/in/**/*.jpg") == ["a.jpg"]


def test_a_pattern_with_two_stars_within_a_name_is_refused(tmp_path: Path) -> None:
    assert "**" in refusal(f"{tmp_path}/**.jpg")


def test_any_s3_key_is_found_read_and_given_a_place_of_its_own(s3: Store) -> None:
    for key in ODD_KEYS:
        s3.client.put_object(Bucket=s3.bucket, Key=f"some/{key}", Body=key.encode())
    items = items_at(f"{s3.uri}/some")
    assert sorted(items) == sorted(ODD_KEYS)
    for key, item in items.items():
        assert read_input(item).decode() == key
        assert item.target == safe_path(key)
    s3.client.put_object(Bucket=s3.bucket, Key="/first.jpg", Body=b"1")
    assert "/first.jpg" in items_at(s3.uri)


@pytest.mark.parametrize("pattern", ["", EVERY_LINK])
def test_links_that_lead_out_and_special_files_are_skipped(tmp_path: Path, pattern: str) -> None:
    fill(str(tmp_path), "in/a.jpg", "in/deep/b.jpg", "elsewhere/c.jpg")
    links = {"in.jpg": "deep/b.jpg", "out.jpg": "../elsewhere/c.jpg", "dead.jpg": "no", "deep.jpg": "deep"}
    for name, to in {**links, "folder": "../elsewhere", "../link": "in"}.items():
        (tmp_path / "in" / name).symlink_to(to)
    os.mkfifo(tmp_path / "in/fifo.jpg")
    assert keys_at(f"{tmp_path}/in{pattern}") == ["a.jpg", "deep/b.jpg", "in.jpg"]
    assert keys_at(f"{tmp_path}/in{pattern}", f"{tmp_path}/link/deep") == ["a.jpg", "in.jpg"]
    assert "would be replaced" in refusal(f"{tmp_path}/in{pattern}", f"{tmp_path}/link")


@pytest.mark.parametrize("pattern", ["", "/*.jpg"])
def test_a_link_to_itself_is_skipped(tmp_path: Path, pattern: str) -> None:
    fill(str(tmp_path), "in/a.jpg", "in/z.jpg")
    (tmp_path / "in/loop.jpg").symlink_to("loop.jpg")
    assert keys_at(f"{tmp_path}/in{pattern}") == ["a.jpg", "z.jpg"]


@pytest.mark.parametrize(("close", "says"), [(shutil.rmtree, "No such file or directory"), CLOSED])
def test_a_folder_that_cannot_be_listed_in_its_turn_fails(tmp_path: Path, close: Any, says: str) -> None:
    names = {"d/1/x.jpg", "d/2/x.jpg"}
    inputs = iter(Inputs(fill(str(tmp_path), *names), OUT))
    (other,) = names - {next(inputs).key}
    close((tmp_path / other).parent)
    (rest,) = inputs
    assert (rest.key, rest.reason) == (other[:3], f"the folder cannot be listed ({says})")


def test_a_prefix_is_listed_a_page_at_a_time(s3: Store) -> None:
    (backends,) = s3_backends.values()
    for number in range(5000):
        backends["aws"].put_object(s3.bucket, f"many/{number}.jpg", b"")
    client = storage.arrow_file_system(s3.uri)[0].handler.fs
    client.connect()
    asked: list[str] = []
    client.s3.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    inputs = iter(Inputs(f"{s3.uri}/many", OUT))
    assert asked == []
    assert next(inputs).size == 0
    assert asked == ["ListObjectsV2"]
    assert len(list(inputs)) == 4999
    assert asked == ["ListObjectsV2"] * 5


def test_a_list_names_paths_and_uris(root: str, s3: Store, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff\xe4 b"
    Path(os.fsdecode(odd)).write_bytes(b"odd")
    fill(s3.uri, "x/p.jpg", data=b"p")
    named = [f"  {s3.uri}/x/p.jpg\r", "", os.fsdecode(odd), "\t", "gs://bucket/x", (tmp_path / "é").as_uri()]
    fill(root, "list.txt", data=os.fsencode("\n".join(named)))
    inputs = Inputs(f"{root}/list.txt", OUT)
    uri, local, unknown, file = inputs
    assert (uri.key, uri.target, read_input(uri)) == (f"{s3.uri}/x/p.jpg", f"{s3.bucket}/x/p.jpg", b"p")
    assert (os.fsencode(local.key), os.fsencode(local.target), read_input(local)) == (odd, odd[1:], b"odd")
    assert unknown.key == "gs://bucket/x"
    assert unknown.reason.startswith("gs:// is not supported")
    assert (file.source, file.reason, file.size) == (str(tmp_path / "é"), None, None)
    assert (inputs.root, inputs.ignored) == (None, 0)


def test_a_line_that_can_name_no_file_fails_alone(tmp_path: Path) -> None:
    fill(str(tmp_path), "list.txt", data=b"/no\0where.jpg\n")
    (photo,) = read(
        list(Inputs(f"{tmp_path}/list.txt", OUT)), "without-gps", False, DEFAULT_LIMITS.max_pixels
    )
    assert photo.reason is not None


def test_a_long_list_needs_no_memory(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"/a/folder/{number:06}.jpg\n" for number in range(200_000)))
    tracemalloc.start()
    try:
        count = sum(1 for _ in Inputs(f"{tmp_path}/list.txt", OUT))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 200_000
    assert peak < 5e6


def test_a_table_names_paths_and_uris_in_a_column(root: str) -> None:
    names = [f"/photos/{number}.jpg" for number in range(5000)]
    table = f"{root}/t.parquet"
    with storage.writing(table) as temporary:
        pq.write_table(pa.table({"uri": [*names, None, ""], "other": ["s3://b/x.jpg"] * 5002}), temporary)
    assert keys_at(table) == sorted(names)
    (other,) = {(item.key, item.target) for item in Inputs(table, OUT, None, Choice(column="other"))}
    assert other == ("s3://b/x.jpg", "b/x.jpg")
    assert refusal(table, column="no") == f"{table} has no column 'no': set --column to one of uri, other"
    fill(root, "no.parquet", data=b"uri\n/a.jpg\n")
    assert refusal(f"{root}/no.parquet").startswith(f"{root}/no.parquet is not a Parquet table (")


@pytest.mark.parametrize("source", ["s/*.TAR", pytest.param("s/One.TAR"), "**"])
def test_a_tar_gives_the_photos_in_it(root: str, source: str) -> None:
    make_tar(f"{root}/s/One.TAR", MEMBERS)
    inputs = Inputs(f"{root}/{source}", OUT)
    items = {item.key: item for item in inputs}
    tar = "s/One.TAR" if source == "**" else "One.TAR"
    expected = {f"{tar}/{name}": MEMBERS[name] for name in ("a.jpg", "d/é.png", "b.jpg")}
    assert {key: read_input(item) for key, item in items.items()} == expected
    assert all(item.target == key and item.offset is not None for key, item in items.items())
    assert (storage.join(inputs.root, tar), inputs.ignored) == (f"{root}/s/One.TAR", 2)


@pytest.mark.parametrize(("kept", "found"), [(0, 0), (100, 0), (600, 1), HALF])
def test_a_broken_tar_is_an_input_that_fails(root: str, kept: int, found: int) -> None:
    fill(root, "s/0.tar", data=make_tar(f"{root}/s/1.tar", MEMBERS)[:kept])
    for source, key in ((f"{root}/*/*.tar", "s/0.tar"), (f"{root}/s/0.tar", "0.tar")):
        items = items_at(source)
        assert items[key].reason.startswith("not all of this tar can be read (")
        assert [item.reason for item in items.values() if item.key.startswith(f"{key}/")] == [None] * found
        assert len(items) == found + (4 if "*" in source else 1)


def test_members_are_skipped_and_named_as_in_a_folder(tmp_path: Path) -> None:
    make_tar(f"{tmp_path}/0.tar", {"./a.jpg": b"1", "./.t/b.jpg": b"2", "_diffuir/c.jpg": b"3"})
    (item,) = Inputs(f"{tmp_path}/0.tar", OUT)
    assert item.target == "0.tar/a.jpg"


def test_include_and_exclude_choose_inputs_by_their_keys(root: str) -> None:
    fill(root, "in/a.jpg", "in/deep/b.jpg", "in/deep/b.png", "in/deep/er/c.jpg")
    assert keys_at(f"{root}/in", include=("deep/*",), exclude=("*.png", "*/er/*")) == ["deep/b.jpg"]
    assert keys_at(f"{root}/in", include=("a.*", "*.png")) == ["a.jpg", "deep/b.png"]
    assert keys_at(f"{root}/in", exclude=("deep/*",)) == ["a.jpg"]
    assert "(4 other files ignored)" in refusal(f"{root}/in", include=("*.JPG",))


def test_what_cannot_be_listed_is_reported_whatever_is_chosen(root: str) -> None:
    fill(root, "in/0.tar")
    make_tar(f"{root}/in/1.tar", MEMBERS)
    assert "0.tar" in keys_at(f"{root}/in/*.tar", include=("*.jpg",))


def test_an_output_among_the_inputs_is_refused(root: str) -> None:
    fill(root, "in/a.jpg", "in/deep/a.jpg")
    for pattern in ("", "/", "/*.jpg"):
        assert "would be replaced by its own results" in refusal(f"{root}/in{pattern}", f"{root}/in/")
        assert "which is inside of OUT" in refusal(f"{root}/in/deep{pattern}", f"{root}/in")


def test_a_source_that_is_not_there_or_has_no_photos_is_named(s3: Store, tmp_path: Path) -> None:
    fill(str(tmp_path), "in/n.txt", "in/.h.jpg")
    assert refusal(f"{tmp_path}/in").startswith(f"no photos in {tmp_path}/in (2 other files ignored): looked")
    assert refusal(f"{tmp_path}/in/*.jpeg").startswith(f"no photos in {tmp_path}/in/*.jpeg (")
    assert refusal(f"{s3.uri}/no").startswith(f"no photos in {s3.uri}/no (0 other files ignored): ")
    assert refusal(f"{tmp_path}/no.txt").startswith(f"{tmp_path}/no.txt does not exist: ")
    assert refusal(f"{tmp_path}/no/*.jpg").startswith(f"{tmp_path}/no/*.jpg cannot be listed (No such file ")
    assert refusal("s3://missing/x").startswith("there is no bucket missing at ")
    assert refusal("gs://bucket/x").startswith("gs:// is not supported")


def test_a_list_may_have_comments(root: str) -> None:
    lines = [
        "\ufeff# ours",
        "",
        "  # theirs",
        "/a/#1.jpg\r",
        "./#2.jpg",
        "s3://b/#3.jpg  ",
        "#/a/no.jpg",
    ]
    fill(root, "list.txt", data="\r\n".join(lines).encode())
    found = [item.source for item in Inputs(f"{root}/list.txt", OUT)]
    assert found == ["/a/#1.jpg", f"{os.getcwd()}/#2.jpg", "s3://b/#3.jpg"]
    fill(root, "list.txt", data=b"# nothing yet\n")
    assert refusal(f"{root}/list.txt").startswith(f"no photos in {root}/list.txt (")


def test_a_list_of_one_photo_is_a_list(root: str) -> None:
    fill(root, "list.txt", data=b"/a/b.jpg")
    assert keys_at(f"{root}/list.txt") == ["/a/b.jpg"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_list_in_utf_16_is_refused(root: str, encoding: str) -> None:
    fill(root, "list.txt", data="\ufeff/a/b.jpg\r\n".encode(encoding))
    assert refusal(f"{root}/list.txt") == f"{root}/list.txt is in UTF-16: save it as UTF-8"


def test_ignored_files_are_counted_by_kind(root: str) -> None:
    other = [
        "a.xmp",
        "d/b.XMP",
        ".h.jpg",
        "d/._a.jpg",
        "LICENSE",
        "draft. version for Anna",
        "c.mov",
        "x.jpg",
    ]
    fill(root, "in/a.jpg", *(f"in/{name}" for name in other))
    inputs = Inputs(f"{root}/in", OUT, None, Choice(exclude=("x.*",)))
    assert [item.key for item in inputs] == ["a.jpg"]
    kinds = {".xmp": 2, "hidden": 2, "without an ending": 1, "of other kinds": 1, ".mov": 1, "not chosen": 1}
    assert inputs.ignored_kinds == kinds
    summary = Summary("out", ignored_kinds=inputs.ignored_kinds)
    assert summary.lines()[1] == (
        "ignored 8 other files: 2 .xmp, 2 hidden, 1 .mov, 1 not chosen, 1 of other kinds, 1 without an ending"
    )


def test_links_and_special_files_are_kinds_too(tmp_path: Path) -> None:
    fill(str(tmp_path), "in/a.jpg", "b.jpg")
    (tmp_path / "in/out.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "in/dead.jpg").symlink_to("no")
    os.mkfifo(tmp_path / "in/fifo.jpg")
    inputs = Inputs(str(tmp_path / "in"), OUT)
    assert len(list(inputs)) == 1
    assert inputs.ignored_kinds == {"links out of the folder": 1, "links to nothing or special files": 2}


def test_the_number_of_kinds_is_bounded(tmp_path: Path) -> None:
    fill(str(tmp_path), "a.jpg", *(f"{i}.x{i}" for i in range(module.MAX_KINDS + 5)))
    inputs = Inputs(str(tmp_path), OUT)
    assert len(list(inputs)) == 1
    assert len(inputs.ignored_kinds) == module.MAX_KINDS + 1
    line = Summary("out", ignored_kinds=inputs.ignored_kinds).lines()[1]
    assert line.startswith("ignored 1,005 other files: 5 of other kinds, 1 .x0, ")
    assert line.endswith(" 993 more")


def test_one_folder_by_two_names_is_one(tmp_path: Path) -> None:
    """A disk that takes upper and lower case for the same."""
    fill(str(tmp_path), "in/a.jpg")
    (tmp_path / "IN").symlink_to("in")
    assert "would be replaced by its own results" in refusal(f"{tmp_path}/IN", f"{tmp_path}/in")
