"""Building an index: what it holds, how it is made, and the command."""

from __future__ import annotations

import io
import json
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from diffuir_core import UserError
from diffuir_platform import storage
from diffuir_platform.data.building import IndexSummary, build_index, threaded_map
from diffuir_platform.data.commands import run_index
from diffuir_platform.data.index import SCHEMA, IndexRow, fingerprint, open_index, read_image, write_index
from diffuir_platform.data.layouts import Part
from diffuir_platform.data.layouts.weather import before_underscore
from diffuir_platform.data.matching import Matcher
from diffuir_platform.data.settings import IndexOptions
from support.album import diffuir
from support.store import Store
from support.trees import PAIRS, built, make_tree, photo, tree_of_pairs, upload


def mismatches(summary: IndexSummary) -> dict[str, str]:
    lines = storage.read_bytes(summary.mismatches_uri).decode().splitlines()
    return {found["path"]: found["reason"] for found in map(json.loads, lines)}


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def rows(count: int) -> Iterator[IndexRow]:
    for n in range(count):
        places = {
            "degraded_uri": f"s3://bucket/hazy/{n:08d}_1_0.1.jpg",
            "clean_uri": f"s3://bucket/clear/{n:08d}.jpg",
        }
        yield IndexRow(
            task="haze", dataset="OTS", split="train", key=f"{n:08d}", width=550, height=413, **places
        )


# The index


def test_an_index_gives_back_its_rows_and_its_fingerprint(tmp_path: Path) -> None:
    kept = list(rows(3))
    written = write_index(str(tmp_path / "i.parquet"), kept)
    opened = open_index(str(tmp_path / "i.parquet"))
    assert opened == written
    assert list(opened.rows()) == kept
    assert opened.count == 3
    assert opened.fingerprint == fingerprint(kept)
    assert opened.table().schema.equals(SCHEMA)
    assert opened.table(["key"]).to_pydict() == {"key": [row.key for row in kept]}


def test_an_index_of_nothing_can_be_read(tmp_path: Path) -> None:
    write_index(str(tmp_path / "i.parquet"), [])
    opened = open_index(str(tmp_path / "i.parquet"))
    assert opened.count == opened.table().num_rows == opened.table(["task", "key"]).num_rows == 0


@pytest.mark.parametrize("kind", ["missing", "text", "parquet"])
def test_a_file_that_is_not_an_index_is_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "i.parquet"
    if kind == "text":
        file.write_text("task,key\n")
    elif kind == "parquet":
        pq.write_table(pa.table({"task": ["haze"]}), file)
    with pytest.raises(
        UserError, match=r"there is no|is not a Parquet file|is not an index of this version"
    ) as raised:
        open_index(str(file))
    assert str(file) in str(raised.value)


def test_the_fingerprint_depends_on_the_photos_and_not_on_their_places(tmp_path: Path) -> None:
    from dataclasses import replace

    first, *others = rows(3)
    known = fingerprint([first, *others])
    assert fingerprint([replace(first, degraded_uri="/elsewhere", clean_offset=3), *others]) == known
    changes = {"task": "snow", "dataset": "X", "split": "X", "key": "X", "width": 1, "height": 1}
    others_found = {
        fingerprint([replace(first, **{name: value}), *others]) for name, value in changes.items()
    }
    others_found |= {
        fingerprint([replace(first, preprocessing="equalise"), *others]),
        fingerprint([replace(first, degraded_uri=None), *others]),
        fingerprint([replace(first, clean_uri=None), *others]),
        fingerprint(others),
        fingerprint([*others, first]),
    }
    assert len(others_found | {known}) == len(changes) + 6


# Building it


def test_the_same_files_give_the_same_index_wherever_they_are(tmp_path: Path, s3: Store) -> None:
    tree = tree_of_pairs(tmp_path / "set", 30)
    here, local_rows = built(tree)
    again, _ = built(tree)
    there, s3_rows = built(upload(tree, f"{s3.uri}/a/set"))
    assert Path(here.uri).read_bytes() == Path(again.uri).read_bytes()
    assert here.fingerprint == there.fingerprint
    assert [row.key for row in local_rows] == sorted(str(n) for n in range(30))
    for local, remote in zip(local_rows, s3_rows, strict=True):
        assert read_image(str(local.degraded_uri)) == read_image(str(remote.degraded_uri))
        assert remote.clean_uri == f"{s3.uri}/a/set/clean/{local.key}.png"


def test_pairs_of_two_sizes_and_files_that_are_not_photos_are_listed(tmp_path: Path) -> None:
    tree = tree_of_pairs(tmp_path / "set", 2)
    extra: dict[str, tuple[int, int] | bytes] = {
        "degraded/larger.png": (9, 6), "clean/larger.png": (8, 6),
        "degraded/turned.png": (6, 8), "clean/turned.png": (8, 6),
        "degraded/empty.png": b"", "clean/empty.png": (8, 6),
        "degraded/text.jpg": b"not an image", "clean/text.jpg": (8, 6),
        "degraded/good.jpg": (8, 6), "clean/good.jpg": b"not an image",
        "clean/alone.png": (8, 6),
    }  # fmt: skip
    summary, found = built(make_tree(tree, extra), mismatched=1)
    assert [row.key for row in found] == ["0", "1"]
    listed = mismatches(summary)
    assert listed["degraded/larger.png"] == "it is 9x6 pixels, its clean counterpart 8x6"
    assert listed["degraded/turned.png"] == "it is 6x8 pixels, its clean counterpart 8x6"
    assert listed["degraded/empty.png"] == "the file is empty"
    assert listed["degraded/text.jpg"].startswith("it is not a JPEG")
    assert listed["degraded/good.jpg"].startswith("its clean counterpart clean/good.jpg: it is not a JPEG")
    assert listed["clean/alone.png"] == "there is no degraded file for the key alone"
    assert len(listed) == 6
    counts = summary.splits["rain", "set", "train"]
    assert (counts.pairs, counts.unpaired, counts.mismatched) == (2, 0, 6)
    assert dict(summary.mismatches) == listed


def test_too_many_mismatches_stop_it_and_leave_the_old_index(tmp_path: Path) -> None:
    tree = tree_of_pairs(tmp_path / "set", 60)
    out = tmp_path / "i.parquet"
    build_index(str(tree), str(out), PAIRS)
    before = out.read_bytes()
    (tree / "clean" / "7.png").unlink()
    with pytest.raises(
        UserError, match=r"1 files of set, train, do not match \(1\.7%, more than 1\.0%\)"
    ) as raised:
        build_index(str(tree), str(out), PAIRS)
    assert "degraded/7.png (there is no clean file 7)" in str(raised.value)
    assert out.read_bytes() == before
    assert "degraded/7.png" in Path(f"{out}.mismatches.jsonl").read_text()
    assert build_index(str(tree), str(out), PAIRS.model_copy(update={"mismatched": 0.02})).fingerprint
    assert out.read_bytes() != before


def test_the_limit_of_mismatches_holds_for_each_split(tmp_path: Path) -> None:
    files = [f"our485/{side}/{n}.png" for n in range(200) for side in ("low", "high")] + ["eval15/low/1.png"]
    with pytest.raises(UserError, match=r"1 files of LOL, test, do not match \(100\.0%"):
        build_index(str(make_tree(tmp_path / "LOL", files)), str(tmp_path / "i"), IndexOptions(layout="lol"))


def test_a_tree_without_mismatches_has_an_empty_list(tmp_path: Path) -> None:
    tree = tree_of_pairs(tmp_path / "set", 1)
    (tmp_path / "i.mismatches.jsonl").write_text("of another run")
    build_index(str(tree), str(tmp_path / "i"), PAIRS)
    assert (tmp_path / "i.mismatches.jsonl").read_text() == ""


def test_a_name_that_is_not_utf8_is_listed(tmp_path: Path) -> None:
    tree = tree_of_pairs(tmp_path / "set", 1)
    odd = bytes(tree) + b"/degraded/\xff\xfe.png"
    with open(odd, "wb") as file:
        file.write((tree / "clean" / "0.png").read_bytes())
    summary, found = built(tree, mismatched=1)
    assert len(found) == 1
    assert list(mismatches(summary).values()) == ["its name is not UTF-8: rename it"]


def test_odd_names_are_kept_as_they_are(tmp_path: Path, s3: Store) -> None:
    names = ["a b#c%20?.png", "éß.png", "::x.png", "~.png", "[1]*.png", "null.png"]
    tree = make_tree(
        tmp_path / "odd %20 set", [f"{side}/{name}" for name in names for side in ("degraded", "clean")]
    )
    bucket = upload(tree, f"{s3.uri}/odd %20 set")
    names.append("line\nbreak.png")
    make_tree(tree, [f"{side}/{names[-1]}" for side in ("degraded", "clean")])
    for root in (bucket, str(tree)):
        _, found = built(root)
        expected = names if root == str(tree) else names[:-1]
        assert [row.key for row in found] == sorted(name.removesuffix(".png") for name in expected)
        assert all(read_image(str(row.degraded_uri)).startswith(b"\x89PNG") for row in found)


def test_hidden_files_and_folders_of_programs_are_skipped(tmp_path: Path) -> None:
    files = ["a.png", ".trash/b.png", "_diffuir/c.png", "__MACOSX/._a.png", ".hidden.png"]
    options = IndexOptions(layout="clean", dataset="mine")
    out = str(tmp_path / "i")
    summary = build_index(str(make_tree(tmp_path / "set", files)), out, options)
    assert [row.key for row in open_index(out).rows()] == ["a.png"]
    assert summary.ignored == 0


def test_equalising_is_recorded_and_only_for_low_light(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "LOL", ["our485/low/1.png", "our485/high/1.png"])
    for equalise, written in ((False, ""), (True, "equalise")):
        build_index(str(tree), str(tmp_path / "i"), IndexOptions(layout="lol", equalise=equalise))
        assert [row.preprocessing for row in open_index(str(tmp_path / "i")).rows()] == [written]
    with pytest.raises(UserError, match=r"'pairs' is not for low light: leave out --equalise"):
        built(tree, equalise=True)


def test_sizes_are_those_of_the_upright_photo(tmp_path: Path) -> None:
    lying = Image.Exif()
    lying[ExifTags.Base.Orientation] = 6
    tree = make_tree(
        tmp_path / "set",
        {"degraded/a.jpg": saved(photo((8, 6)), "JPEG", exif=lying.tobytes()), "clean/a.png": (6, 8)},
    )
    _, (row,) = built(tree)
    assert (row.width, row.height) == (6, 8)


HEAD = storage.HEAD_BYTES


@pytest.mark.parametrize(
    ("format", "options", "most_read"),
    [
        ("PNG", {"compress_level": 0}, HEAD),
        ("JPEG", {"quality": 100}, HEAD),
        ("BMP", {}, HEAD),
        ("JPEG", {"icc_profile": bytes(2 * HEAD)}, 8 * HEAD),
        ("TIFF", {"compression": "tiff_deflate"}, 8 * HEAD),
        ("WEBP", {"lossless": True}, 8 * HEAD),
    ],
)
def test_no_more_is_read_than_the_size_takes(
    format: str, options: dict[str, Any], most_read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (400, 300)
    data = saved(photo(size), format, **options)
    assert len(data) > HEAD
    asked: list[int] = []
    read = storage.read_head

    def read_and_note(uri: str, length: int) -> bytes:
        asked.append(length)
        return read(uri, length)

    monkeypatch.setattr(storage, "read_head", read_and_note)
    options_of_index = IndexOptions(layout="clean", dataset="mine")
    build_index(str(make_tree(tmp_path / "set", {"a.png": data})), str(tmp_path / "i"), options_of_index)
    (row,) = open_index(str(tmp_path / "i")).rows()
    assert (row.width, row.height) == size
    assert max(asked) <= most_read


# Matching


@pytest.mark.parametrize("name", ["clean", "degraded", "set"])
def test_pairs_are_found_whatever_their_folder_is_called(name: str, tmp_path: Path) -> None:
    _, found = built(tree_of_pairs(tmp_path / name, 2))
    assert [row.key for row in found] == ["0", "1"]


KEYS = st.sets(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=4), max_size=8
)


@given(KEYS, KEYS, st.randoms())
@settings(max_examples=60, deadline=None)
def test_every_file_is_in_a_pair_or_a_mismatch_whatever_the_order(
    degraded: set[str], clean: set[str], order: random.Random
) -> None:
    degraded, clean = ({key for key in keys if not key.startswith(".")} for keys in (degraded, clean))
    part = Part(
        task="haze", dataset="d", split="s", degraded="h/{name}", clean="c/{name}", twin=before_underscore
    )
    files = [(f"h/{key}.png", 1) for key in degraded] + [(f"c/{key}.png", 1) for key in clean]
    order.shuffle(files)
    with Matcher("/nowhere", [part]) as matcher:
        matcher.add(files)
        pairs = [(found.key, found.degraded, found.clean) for found in matcher.candidates()]
        missed = [found.path for found in matcher.mismatches()]
    assert [key for key, _, _ in pairs] == sorted(key for key in degraded if before_underscore(key) in clean)
    paired = {file.path for _, *sides in pairs for file in sides if file is not None}
    assert paired | set(missed) == {path for path, _ in files}
    assert not paired & set(missed)
    assert missed == sorted(missed)


def peak(action: Callable[[], object]) -> int:
    """Return the most bytes that Python held at once."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_guarantee_6_memory_does_not_grow_with_the_number_of_photos(tmp_path: Path) -> None:
    part = Part(
        task="haze", dataset="d", split="s", degraded="h/{name}", clean="c/{name}", twin=before_underscore
    )

    def index(count: int) -> None:
        with Matcher("/nowhere", [part]) as matcher:
            matcher.add((f"h/{n // 10:07d}_{n % 10}.jpg", 1) for n in range(count))
            matcher.add((f"c/{n:07d}.jpg", 1) for n in range(count // 10))
            assert sum(1 for _ in matcher.candidates()) == count
        write_index(str(tmp_path / "i"), rows(count))
        assert sum(1 for _ in open_index(str(tmp_path / "i")).rows()) == count

    small, large = peak(lambda: index(11_000)), peak(lambda: index(25_000))
    assert large < small * 1.1
    assert pa.total_allocated_bytes() < 2**20


def test_results_come_in_order_and_not_too_far_ahead() -> None:
    begun: list[int] = []

    def slow_at_first(n: int) -> int:
        begun.append(n)
        time.sleep(0.02 if n < 3 else 0)
        return n

    taken = threaded_map(slow_at_first, range(100), readers=4, ahead=10)
    assert [next(taken) for _ in range(5)] == list(range(5))
    assert len(begun) <= 5 + 10 + 1
    assert list(taken) == list(range(5, 100))


def test_an_error_in_a_reader_is_raised_and_stops_the_rest() -> None:
    begun: list[int] = []

    def fail(n: int) -> int:
        begun.append(n)
        return 1 // (n - 20)

    with pytest.raises(ZeroDivisionError):
        list(threaded_map(fail, range(10_000), readers=2, ahead=10))
    assert len(begun) < 100


# The command


def test_the_command_prints_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = make_tree(tmp_path / "set", ["test/Test100/input/1.png", "test/Test100/target/1.png", "other.png"])
    make_tree(tree, [f"train/{side}/{n}.png" for n in (1, 2) for side in ("input", "target")])
    assert run_index(str(tree), str(tmp_path / "i"), IndexOptions(layout="rain13k")) == 0
    printed = capsys.readouterr().out
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line
    ]
    assert cells == [["rain", "Rain13K", "train", "2", "0", "0"], ["rain", "Test100", "test", "1", "0", "0"]]
    assert "1 other pictures are none of what the layout looks for" in printed
    assert open_index(str(tmp_path / "i")).fingerprint in printed


def test_the_exit_code_says_whether_all_matched(tmp_path: Path) -> None:
    tree = tree_of_pairs(tmp_path / "set", 3)
    (tree / "clean" / "1.png").unlink()
    arguments = ("index", tree, tmp_path / "i", "--layout", "pairs", "--task", "rain")
    refused = diffuir(*arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: 1 files of set, train, do not match (33.3%")
    assert len(refused.stderr.splitlines()) == 1
    done = diffuir(*arguments, "--mismatched", "0.5")
    assert done.returncode == 1
    assert "  degraded/1.png: there is no clean file 1" in done.stdout.splitlines()
