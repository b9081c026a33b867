"""Disks that are full, read-only, or without hard links: real ones."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from diffuir_core import UserError
from diffuir_platform import storage
from diffuir_platform.storage import retrying
from diffuir_platform.storage.lock import Lock
from support.disks import exfat_disk, small_disk

WRITES: dict[str, Callable[[str, bytes], object]] = {
    "write_bytes": storage.write_bytes,
    "write_new": storage.write_new,
    "writing": lambda uri, data: _write_in_pieces(uri, data),
}


def _write_in_pieces(uri: str, data: bytes) -> None:
    with storage.writing(uri) as temporary:
        pq.write_table(pa.table({"a": [data]}), temporary, compression="none")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 2**20) as disk:
        yield disk


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    with exfat_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.mark.parametrize("write", WRITES)
def test_a_full_disk_is_named_and_keeps_what_it_holds(full: Path, write: str) -> None:
    storage.write_bytes(f"{full}/a", b"before")
    with pytest.raises(storage.Unwritable) as raised:
        WRITES[write](f"{full}/new/b", bytes(2**21))
    assert str(raised.value) == f"no space is left on the disk of {full}/new: free some"
    assert {path.name for path in full.rglob("*") if path.is_file()} == {"a"}
    assert storage.read_bytes(f"{full}/a") == b"before"


def test_a_full_temporary_folder_is_named(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(full))
    with pytest.raises(storage.Unwritable, match=f"no space is left on the disk of {full}/diffuir-"):
        _write_in_pieces("memory://full/a", bytes(2**21))


def test_a_read_only_disk_is_named(full: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", full], check=True)
    with pytest.raises(storage.Unwritable, match=f"the disk of {full} is read-only: mount it for writing"):
        storage.write_bytes(f"{full}/a", b"")


def test_what_no_file_can_be_written_to_is_not_tried_again(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "PAUSES", (3600.0,))
    with pytest.raises(storage.Unwritable):
        storage.retry(lambda: storage.write_bytes(f"{full}/b", bytes(2**21)), (storage.StoreError,))


@pytest.mark.parametrize(
    ("code", "status"), [("XMinioStorageFull", 507), ("QuotaExceeded", 403), ("Odd", 507)]
)
def test_a_full_bucket_is_named(code: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with (
        pytest.raises(storage.Unwritable, match="no space is left for the bucket b at http://store:9000"),
        storage.translated_errors("s3://b/a", "write"),
    ):
        raise ClientError(answer, "PutObject")  # type: ignore[arg-type]


def test_a_disk_without_links_takes_a_new_file_once(exfat: Path) -> None:
    with pytest.raises(OSError, match=r"not permitted|not supported"):
        os.link(storage.write_bytes(f"{exfat}/a", b"first") or exfat / "a", exfat / "b")
    wrote: list[bool] = []

    def write(number: int) -> None:
        wrote.append(storage.write_new(f"{exfat}/deep/c", str(number).encode()))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wrote) == [False] * 7 + [True]
    assert storage.read_bytes(f"{exfat}/deep/c").decode() in "01234567"
    assert os.listdir(exfat / "deep") == ["c"]


def test_the_lock_holds_on_a_disk_without_links(exfat: Path) -> None:
    folder = f"{exfat}/_diffuir"
    with Lock(folder, "restores into OUT", "choose another OUT") as lock:
        with pytest.raises(storage.Held), Lock(folder, "restores into OUT", "choose another OUT"):
            pass
        lock.check()
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["a:b.jpg", "what?.jpg", "d*/a.jpg", f"{'x' * 300}.jpg"])
def test_a_name_that_a_disk_refuses_is_named(exfat: Path, name: str) -> None:
    for write in (storage.write_bytes, storage.write_new):
        with pytest.raises(UserError) as raised:
            write(f"{exfat}/{name}", b"")
        assert not isinstance(raised.value, storage.StoreError)
        assert str(raised.value) == (
            f"can't write {exfat}/{name} (its disk can't have a file of this name): choose another name or place"
        )
    assert os.listdir(exfat) == []
