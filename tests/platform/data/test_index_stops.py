"""Errors that stop the building of an index, and errors that do not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from diffuir_core import UserError
from diffuir_platform import storage
from diffuir_platform.data import matching, packing
from diffuir_platform.data.building import IndexSummary, build_index
from diffuir_platform.data.index import open_index
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.storage import retrying
from support.store import Store
from support.trees import make_tree, upload


def built_from(root: Path | str, out: Path | str, layout: str = "clean", **options: Any) -> IndexSummary:
    return build_index(str(root), str(out), IndexOptions(layout=layout, **options))


def no_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(uri: str, length: int = storage.HEAD_BYTES) -> bytes:
        raise AssertionError(f"{uri} was read")

    monkeypatch.setattr(storage, "read_head", read)


@pytest.mark.parametrize("kind", ["folder", "bucket", "no bucket", "text", "in a file", "pack"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(
    kind: str, tmp_path: Path, s3: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "set", ["a.png"])
    (tmp_path / "notes.txt").write_text("years of work")
    out, options, says = {
        "folder": (tree, {}, r"set is a folder: name the index itself, such as \S+/set/index\.parquet"),
        "bucket": (s3.uri, {}, "is a folder"),
        "no bucket": ("s3://absent/i.parquet", {}, "there is no bucket absent at"),
        "text": (tmp_path / "notes.txt", {}, "notes.txt exists and is not an index, so it is not replaced"),
        "in a file": (tmp_path / "notes.txt" / "i", {}, r"can't write \S+notes\.txt"),
        "pack": (tmp_path / "i", {"pack": "s3://absent/pack"}, "there is no bucket absent at"),
    }[kind]
    no_headers(monkeypatch)
    with pytest.raises(UserError, match=says) as raised:
        built_from(tree, out, **options)
    assert ".part" not in str(raised.value)
    assert (tmp_path / "notes.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "set"]


def test_an_index_replaces_an_index(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "set", ["a.png"])
    first = built_from(tree, tmp_path / "i")
    make_tree(tree, ["b.png"])
    assert built_from(tree, tmp_path / "i").fingerprint != first.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i", "i.mismatches.jsonl", "set"]


def test_a_store_that_fails_stops_it_instead_of_failing_every_file(
    tmp_path: Path, s3: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = upload(make_tree(tmp_path / "set", ["a.png", "b.png"]), f"{s3.uri}/set")
    read = storage.read_head

    def fail(uri: str, length: int) -> bytes:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        return read(uri, length)

    monkeypatch.setattr(storage, "read_head", fail)
    with pytest.raises(storage.StoreError, match="nothing answers at"):
        built_from(root, tmp_path / "i", mismatched=1)
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize(("failures", "packed"), [(2, False), (2, True), (9, False), (9, True)])
def test_requests_to_a_busy_store_are_retried_and_no_pair_becomes_a_mismatch(
    failures: int, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "PAUSES", (0.0,) * 3)
    remaining = [failures]
    place, name = (packing, "read_image") if packed else (storage, "read_head")
    read = getattr(place, name)

    def fail_at_first(*arguments: Any) -> bytes:
        if "b.png" in arguments[0] and remaining[0]:
            remaining[0] -= 1
            raise storage.Busy("503 SlowDown")
        return read(*arguments)

    monkeypatch.setattr(place, name, fail_at_first)
    tree = make_tree(tmp_path / "set", ["a.png", "b.png"])
    options: dict[str, Any] = {"mismatched": 1, "pack": str(tmp_path / "pack") if packed else None}
    if failures > len(retrying.PAUSES):
        with pytest.raises(storage.Busy):
            built_from(tree, tmp_path / "i", **options)
        assert not (tmp_path / "i").exists()
    else:
        built_from(tree, tmp_path / "i", **options)
        assert open_index(str(tmp_path / "i")).count == 2


def test_a_damaged_photo_alone_is_named_without_a_counterpart(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "set", {"a.png": (8, 6), "empty.png": b""})
    summary = built_from(tree, tmp_path / "i", mismatched=1)
    assert summary.mismatches == [("empty.png", "the file is empty")]


def test_a_root_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    root = os.fsdecode(bytes(tmp_path) + b"/\xff")
    os.mkdir(root)
    with pytest.raises(UserError, match="is not UTF-8: rename it"):
        built_from(root, tmp_path / "i")


def test_a_full_disk_under_the_names_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_TABLES", "PRAGMA max_page_count = 6;" + matching._TABLES)
    tree = make_tree(tmp_path / "set", {f"{'x' * 200}{n}.png": b"" for n in range(200)})
    with pytest.raises(UserError, match=r"can't keep the names .* is full\): make room there, or .* TMPDIR"):
        built_from(tree, tmp_path / "i")
