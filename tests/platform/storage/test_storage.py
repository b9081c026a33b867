from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from hypothesis import given, settings
from hypothesis import strategies as st

from diffuir_core import UserError
from diffuir_core.files import TEMPORARY_PREFIX
from diffuir_platform import storage
from support.ports import free_port
from support.store import ACCESS_KEY, SECRET_KEY, Store

ODD_NAME = "deep/er/with space #é%20+*[1]?.bin"


@pytest.fixture(params=["local", "file", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder of each kind of store."""
    match request.param:
        case "local":
            return str(tmp_path)
        case "file":
            return tmp_path.as_uri()
        case "memory":
            return f"memory://{tmp_path.name}-{os.urandom(4).hex()}"
        case _:
            return request.getfixturevalue("s3").uri + "/some/folder"


def sentence_of(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as raised:
        action()
    text = str(raised.value)
    assert "\n" not in text
    assert ACCESS_KEY not in text
    assert SECRET_KEY not in text
    return text


def test_what_is_written_is_read_whole_in_part_and_at_its_head(folder: str) -> None:
    uri = storage.join(folder, ODD_NAME)
    assert not storage.exists(uri)
    storage.write_bytes(uri, bytes(range(100)))
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == bytes(range(100))
    assert storage.read_range(uri, 10, 5) == bytes(range(10, 15))
    assert storage.read_range(uri, 10, 0) == b""
    assert storage.read_head(uri, 7) == bytes(range(7))
    assert storage.read_head(uri) == bytes(range(100))
    storage.write_bytes(uri, b"")
    assert storage.read_bytes(uri) == storage.read_head(uri) == b""


@given(st.binary(max_size=64), st.integers(0, 80), st.integers(0, 80))
@settings(max_examples=50)
def test_a_range_is_a_slice_or_an_error(data: bytes, offset: int, length: int) -> None:
    uri = "memory://ranges/file"
    storage.write_bytes(uri, data)
    if length == 0 or offset + length <= len(data):
        assert storage.read_range(uri, offset, length) == data[offset : offset + length]
    else:
        with pytest.raises(storage.NotThere, match="ends before byte"):
            storage.read_range(uri, offset, length)


def test_a_file_that_ends_early_is_named(folder: str) -> None:
    uri = storage.join(folder, "short")
    storage.write_bytes(uri, b"12345")
    for offset in (3, 5, 50):
        with pytest.raises(storage.NotThere, match=r"short ends before byte"):
            storage.read_range(uri, offset, 3)


def test_a_missing_file_is_not_there(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "other"), b"")
    for read in (storage.read_bytes, storage.read_head):
        assert not storage.exists(storage.join(folder, "nothing"))
        with pytest.raises(storage.NotThere, match=r"^there is no \S+/nothing: "):
            read(storage.join(folder, "nothing"))


def test_listing_gives_every_file_with_its_size_and_nothing_of_a_neighbour(folder: str) -> None:
    files = {"a.png": 1, "b/c/d.png": 3, "b/.hidden": 0, ODD_NAME: 2}
    for name, size in files.items():
        storage.write_bytes(storage.join(folder, f"set/{name}"), bytes(size))
    storage.write_bytes(storage.join(folder, "set2/x.png"), b"")
    root = storage.absolute(storage.join(folder, "set"))
    found = dict(storage.list_files(root + "/"))
    assert found == {storage.join(root, name): size for name, size in files.items()}
    for uri, size in found.items():
        assert len(storage.read_bytes(uri)) == size


def test_writing_in_pieces_appears_whole_or_not_at_all(folder: str) -> None:
    uri = storage.join(folder, "new/large")
    with storage.writing(uri) as temporary:
        temporary.write_bytes(b"first")
        assert not storage.exists(uri)
    assert storage.read_bytes(uri) == b"first"

    def write_half() -> None:
        with storage.writing(uri) as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert storage.read_bytes(uri) == b"first"
    assert len(list(storage.list_files(folder))) == 1


def test_files_are_removed_by_their_exact_names(folder: str) -> None:
    names = ["a", "b/c", "b/d", "x*", "xy", ODD_NAME]
    for name in names:
        storage.write_bytes(storage.join(folder, name), b"")
    storage.remove_files([storage.join(folder, name) for name in ("a", "b/c", "x*", "nothing", ODD_NAME)])
    assert sorted(uri for uri, _ in storage.list_files(folder)) == [
        storage.join(folder, name) for name in ("b/d", "xy")
    ]
    storage.remove_files([])


@pytest.mark.parametrize("write", [storage.write_bytes, storage.write_new])
def test_a_file_below_a_file_is_refused(tmp_path: Path, write: Callable[[str, bytes], object]) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert "a/b/c" in sentence_of(lambda: write(f"{tmp_path}/a/b/c", b""))
    assert "a/b" in sentence_of(lambda: write(f"{tmp_path}/a/b", b""))


def test_a_folder_is_removed_with_all_that_is_in_it_and_nothing_else(folder: str) -> None:
    for name in ("run/a", "run/deep/b", "run2/c"):
        storage.write_bytes(storage.join(folder, name), b"1")
    for _ in range(2):
        storage.remove_folder(storage.join(folder, "run"))
        assert [uri.rpartition("/")[2] for uri, _ in storage.list_files(folder)] == ["c"]


@pytest.mark.parametrize("remove", ["storage", "arrow"])
def test_a_folder_with_the_name_of_a_pattern_is_a_name(folder: str, remove: str) -> None:
    kept = ["run1/q/a", "runx/q/a", "run1/b", "run/c"]
    for name in ("run[1]/q/a", "run*/q/b", "run?/q/c", *kept):
        storage.write_bytes(storage.join(folder, name), b"1")
    for name in ("run[1]/q", "run*/q", "run?/q"):
        if remove == "storage":
            storage.remove_folder(storage.join(folder, name))
        else:
            file_system, path = storage.arrow_file_system(storage.join(folder, name))
            file_system.delete_dir(path)
    left = [uri for uri, _ in storage.list_files(folder)]
    assert sorted(uri.removeprefix(storage.absolute(folder) + "/") for uri in left) == sorted(kept)


def test_parquet_is_written_and_read_through_arrow(folder: str) -> None:
    uri = storage.join(folder, "table.parquet")
    table = pa.table({"n": list(range(1000))})
    with storage.writing(uri) as temporary:
        pq.write_table(table, temporary)
    file_system, path = storage.arrow_file_system(uri)
    assert pq.read_table(path, filesystem=file_system) == table
    if not uri.startswith(("/", "file:")):
        pq.write_table(table, path + "2", filesystem=file_system)
        assert storage.exists(uri + "2")


def test_an_open_file_fetches_what_is_asked_for(folder: str) -> None:
    uri = storage.join(folder, "file")
    storage.write_bytes(uri, b"0123456789")
    with storage.open_file(uri) as file:
        file.seek(4)
        assert file.read(2) == b"45"


def test_an_absolute_uri_stays_itself(folder: str) -> None:
    once = storage.absolute(folder + "/")
    assert storage.absolute(once) == once
    assert not once.endswith("/")


def test_a_listing_of_many_pages_is_complete(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    for number in range(25):
        s3.client.put_object(Bucket=s3.bucket, Key=f"many/{number}", Body=b"x")
    page = s3.client.list_objects_v2(Bucket=s3.bucket)
    assert len(page["Contents"]) == 10
    assert len(list(storage.list_files(f"{s3.uri}/many"))) == len(set(storage.list_files(s3.uri))) == 25


def test_a_whole_bucket_is_listed_without_folder_markers(s3: Store) -> None:
    s3.client.put_object(Bucket=s3.bucket, Key="folder/", Body=b"")
    s3.client.put_object(Bucket=s3.bucket, Key="folder/a", Body=b"1")
    assert list(storage.list_files(s3.uri)) == [(f"{s3.uri}/folder/a", 1)]
    assert list(storage.list_files(f"{s3.uri}/empty")) == []


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_bytes(b"1")
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "sub" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "dangling").symlink_to(tmp_path / "nowhere")
    root = str(tmp_path / "root")
    assert list(storage.list_files(root)) == [(f"{root}/linked/a", 1)]


def test_an_odd_name_stays_on_one_line(tmp_path: Path) -> None:
    name = os.fsdecode(b"line\nbreak\xff")
    text = sentence_of(lambda: storage.read_bytes(str(tmp_path / name)))
    assert text.startswith("there is no ")
    assert text.isprintable()


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    assert sentence_of(lambda: list(storage.list_files(str(tmp_path / "no")))) == (
        f"there is no {tmp_path / 'no'}: check the path"
    )
    (tmp_path / "file").touch()
    assert "Not a directory" in sentence_of(lambda: list(storage.list_files(str(tmp_path / "file"))))


def test_a_place_that_cannot_be_written_is_named_and_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    text = sentence_of(lambda: storage.write_bytes(str(tmp_path / "file" / "below"), b""))
    assert text.startswith(f"can't write {tmp_path / 'file' / 'below'} (")
    assert TEMPORARY_PREFIX not in text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("gs://bucket/x", "gs:// is not supported"),
        ("s3:///x", "names no bucket"),
        ("s3://bucket/x?versionId=3", "names a version of an object"),
        (f"s3://{ACCESS_KEY}:{SECRET_KEY}@bucket/x", "an s3:// URI may not hold credentials"),
    ],
)
def test_a_uri_of_another_kind_is_refused(uri: str, says: str) -> None:
    assert says in sentence_of(lambda: storage.read_bytes(uri))


EVERYTHING: dict[str, Callable[[str], object]] = {
    "list": lambda uri: list(storage.list_files(uri)),
    "read": storage.read_bytes,
    "range": lambda uri: storage.read_range(uri, 0, 1),
    "write": lambda uri: storage.write_bytes(uri, b"1"),
}


@pytest.mark.parametrize("what", EVERYTHING)
def test_a_wrong_bucket_is_named(s3: Store, what: str) -> None:
    with pytest.raises(storage.StoreError, match=f"^there is no bucket missing at {s3.endpoint}: check "):
        EVERYTHING[what]("s3://missing/x")


@pytest.mark.parametrize("what", EVERYTHING)
def test_an_endpoint_that_does_not_answer_is_named(
    s3: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{ACCESS_KEY}:{SECRET_KEY}@127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    text = sentence_of(lambda: EVERYTHING[what](f"{s3.uri}/x"))
    assert text == f"nothing answers at http://127.0.0.1:{port}: check AWS_ENDPOINT_URL and the network"


def test_an_endpoint_that_is_no_url_is_said(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")
    assert sentence_of(lambda: storage.read_bytes(f"{s3.uri}/x")).startswith("AWS_ENDPOINT_URL is not a URL")


@pytest.mark.parametrize("what", EVERYTHING)
def test_a_key_that_the_store_does_not_know_is_said(s3: Store, what: str) -> None:
    with s3.asking_who():
        text = sentence_of(lambda: EVERYTHING[what](f"{s3.uri}/x"))
    assert text.startswith(f"{s3.endpoint} does not accept the credentials: check AWS_ACCESS_KEY_ID")


@pytest.mark.parametrize("what", EVERYTHING)
def test_a_right_that_one_does_not_have_is_said(
    s3: Store, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = s3.user_without_rights()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    s3fs.S3FileSystem.clear_instance_cache()
    with s3.asking_who():
        text = sentence_of(lambda: EVERYTHING[what](f"{s3.uri}/x"))
    assert f"{s3.endpoint} refuses to " in text
    assert key not in text
    assert secret not in text


def test_missing_credentials_are_said(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    s3fs.S3FileSystem.clear_instance_cache()
    text = sentence_of(lambda: storage.read_bytes(f"{s3.uri}/x"))
    assert text.startswith(f"there are no credentials for {s3.endpoint}: set AWS_ACCESS_KEY_ID")


def test_an_answer_that_repeats_a_secret_is_redacted(s3: Store) -> None:
    def refused() -> None:
        with storage.translated_errors(f"{s3.uri}/x", "read"):
            raise OSError(f"the key {ACCESS_KEY} with {SECRET_KEY} is odd, see http://me:{SECRET_KEY}@host/")

    assert "(AWS_SECRET_ACCESS_KEY) is odd" in sentence_of(refused)


def test_what_is_sent_to_a_worker_holds_no_credentials(s3: Store) -> None:
    file_system, _ = storage.arrow_file_system(f"{s3.uri}/x")
    sent = pickle.dumps(file_system)
    assert SECRET_KEY.encode() not in sent
    assert ACCESS_KEY.encode() not in sent
