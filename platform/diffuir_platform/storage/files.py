"""Files by URI: a local path or file://, s3://, and memory:// for tests.

The endpoint and the credentials of an S3 store come from the environment alone, as for every other S3 client:
AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE. They are never put into
a message, an index or data that is sent to a worker. Every function raises `UserError` with one sentence: its
subclass `NotThere` for a missing file, `Busy` where a retry may help, and `StoreError` where any other file of the
store would fail too.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec

from diffuir_core.errors import UserError
from diffuir_core.files import replacing, temporary_name

from .errors import NotThere, s3_error_code, translated_errors
from .keys import KEYS_AT_ONCE, delete_keys, pages_s3, remove_below
from .uris import endpoint, join, split_uri

HEAD_BYTES = 64 * 2**10
"""Bytes at the start of a file that hold the header of nearly every photo."""

_S3_CLIENT = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"mode": "standard"},
    "max_pool_connections": 64,
}
_S3_SINGLE_PUT_BYTES = 2**31
"""Files up to this size are uploaded in one request, which leaves nothing behind when the writer is killed."""
_S3_RETRY_ROUNDS = 2
"""Rounds of botocore's own three attempts (AWS_MAX_ATTEMPTS); s3fs's default of five gives up after half a
minute."""


@dataclass(frozen=True)
class Entry:
    """A file in a listing."""

    uri: str
    size: int
    """Size in bytes."""
    version: str
    """Text that changes with the file's content: its ETag, or the time of its last change."""


def list_files(uri: str) -> Iterator[tuple[str, int]]:
    """(URI, size in bytes) of every file below the folder `uri`; see `list_entries`."""
    return ((entry.uri, entry.size) for entry in list_entries(uri))


def list_entries(uri: str) -> Iterator[Entry]:
    """Every file below the folder `uri`, with the store's names and in no order.

    Memory holds one page of S3, or the open folders of a local path. Links are followed, loops are not. An S3
    prefix without files gives nothing; a missing local folder is a `UserError`.
    """
    scheme, file_system, path = _locate(uri)
    with translated_errors(uri, "list"):
        if scheme == "file":
            yield from _list_local(path, (os.path.realpath(path),))
        elif scheme == "s3":
            yield from _list_s3(file_system, path)
        else:
            for name, info in file_system.find(path, detail=True).items():
                yield Entry(f"{scheme}://{name}", info["size"], str(info.get("created", "")))


def is_folder(uri: str) -> bool:
    """Whether `uri` is a folder; on S3, whether there are files below it."""
    _, file_system, path = _locate(uri)
    with translated_errors(uri, "read"):
        return bool(file_system.isdir(path))


def is_file(uri: str) -> bool:
    """Whether `uri` is a file."""
    _, file_system, path = _locate(uri)
    with translated_errors(uri, "read"):
        return bool(file_system.isfile(path))


def entry(uri: str) -> Entry:
    """The file `uri` as an entry of a listing."""
    scheme, file_system, path = _locate(uri)
    with translated_errors(uri, "read"):
        if scheme == "file":
            return _local_entry(path, os.stat(path))
        info = file_system.info(path)
        return Entry(uri, info["size"], str(info.get("ETag", info.get("created", ""))).strip('"'))


def read_bytes(uri: str) -> bytes:
    """The whole content of the file."""
    scheme, file_system, path = _locate(uri)
    with translated_errors(uri, "read"):
        if scheme == "file":
            with open(path, "rb") as file:
                return file.read()
        # One request: to fetch a file in several parts at once, s3fs would ask for its size first.
        return file_system.cat_file(path, **({"max_concurrency": 1} if scheme == "s3" else {}))


def read_range(uri: str, offset: int, length: int) -> bytes:
    """`length` bytes from `offset`, in one request; raises `NotThere` where the file ends before that."""
    data = _read_at_most(uri, offset, length)
    if len(data) != length:
        raise NotThere(
            f"{uri} ends before byte {offset + length:,}: it was changed or cut off, so create it again"
        )
    return data


def read_head(uri: str, length: int = HEAD_BYTES) -> bytes:
    """The first `length` bytes, or the whole content of a shorter file."""
    return _read_at_most(uri, 0, length)


def exists(uri: str) -> bool:
    """Whether `uri` is a file or a folder; raises `UserError` where the store does not say."""
    _, file_system, path = _locate(uri)
    with translated_errors(uri, "read"):
        return bool(file_system.exists(path))


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file at once: a partial file is never visible. Creates missing folders."""
    scheme, file_system, path = _locate(uri)
    with translated_errors(uri, "write"):
        if scheme == "file":
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        elif scheme == "s3":
            file_system.pipe_file(path, data, chunksize=_S3_SINGLE_PUT_BYTES)
        else:
            file_system.pipe_file(path, data)


def write_new(uri: str, data: bytes) -> bool:
    """Write a whole file unless it exists; returns whether this call wrote it.

    Of several processes that try at once exactly one succeeds: by a link on a local disk, a conditional PUT on S3.
    On a disk without links (exFAT, most SMB shares) the file is made empty first, and a writer that is killed at
    that moment leaves it so.
    """
    scheme, file_system, path = _locate(uri)
    with translated_errors(uri, "write"):
        try:
            if scheme == "file":
                _write_new(Path(path), data)
            elif scheme == "s3":
                file_system.pipe_file(path, data, mode="create", chunksize=_S3_SINGLE_PUT_BYTES)
            else:
                file_system.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if s3_error_code(error) in ("PreconditionFailed", "ConditionalRequestConflict"):
                return False
            raise
    return True


def remove_file(uri: str) -> None:
    """Delete the file `uri`, if it exists."""
    _, file_system, path = _locate(uri)
    with translated_errors(uri, "delete"):
        try:
            file_system.rm_file(path)
        except FileNotFoundError:
            return


def remove_files(uris: Sequence[str]) -> None:
    """Delete those of the files that exist, all of one store; on S3 up to a thousand with one request."""
    if not uris:
        return
    scheme, file_system, _ = _locate(uris[0])
    if scheme != "s3":
        for uri in uris:
            remove_file(uri)
        return
    bucket = split_uri(uris[0])[1] or ""
    keys = [split_uri(uri)[2].removeprefix(f"{bucket}/") for uri in uris]
    with translated_errors(uris[0], "delete"):
        for start in range(0, len(keys), KEYS_AT_ONCE):
            delete_keys(file_system, bucket, keys[start : start + KEYS_AT_ONCE])


def remove_folder(uri: str) -> None:
    """Delete everything below the folder `uri`, if it exists."""
    scheme, file_system, path = _locate(uri)
    with translated_errors(uri, "delete"):
        if scheme != "file":
            remove_below(file_system, path)
        elif file_system.exists(path):
            shutil.rmtree(path)


def check_writable(folder: str) -> None:
    """Write a file into `folder` and delete it; raises `UserError` where it can't be written."""
    probe = join(folder, temporary_name())
    try:
        write_bytes(probe, b"")
    except UserError as error:
        raise type(error)(str(error).replace(probe, folder)) from error
    with suppress(UserError):  # the right to delete is not needed to write
        remove_file(probe)


@contextmanager
def writing(uri: str) -> Iterator[Path]:
    """A temporary local path whose file becomes `uri` at the end of the block, all at once.

    Where the block raises, `uri` stays as it was. For files that are written in pieces or are too large for the
    memory.
    """
    scheme, file_system, path = _locate(uri)
    if scheme == "file":
        with translated_errors(uri, "write"), replacing(path) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory(prefix="diffuir-") as folder:
        temporary = Path(folder) / "file"
        with translated_errors(str(temporary), "write"):
            yield temporary
        with translated_errors(uri, "write"):
            file_system.put_file(str(temporary), path)


def arrow_file_system(uri: str) -> tuple[Any, str]:
    """The pyarrow file system of `uri` and the path in it, for Parquet; wrap its use in `translated_errors`."""
    import pyarrow.fs  # which takes a while, and one photo needs none

    from .arrow import ExactNames

    scheme, file_system, path = _locate(uri)
    if scheme == "file":
        return pyarrow.fs.LocalFileSystem(), path
    return pyarrow.fs.PyFileSystem(ExactNames(file_system)), path


def open_file(uri: str, block_size: int = 2**20) -> Any:
    """A readable binary file that fetches `block_size` bytes at a time.

    Close it, and wrap its use in `translated_errors`.
    """
    _, file_system, path = _locate(uri)
    with translated_errors(uri, "read"):
        return file_system.open(path, "rb", block_size=block_size)


def _locate(uri: str) -> tuple[str, Any, str]:
    scheme, _, path = split_uri(uri)
    if scheme != "s3":
        return scheme, _simple_file_system(scheme), path
    # No cache of listings: it would grow with the store, and hide files that others write meanwhile.
    file_system = fsspec.filesystem(
        "s3", endpoint_url=endpoint(), use_listings_cache=False, config_kwargs=_S3_CLIENT
    )
    file_system.retries = _S3_RETRY_ROUNDS
    return scheme, file_system, path


@lru_cache
def _simple_file_system(scheme: str) -> Any:
    """The file system of a scheme without options; fsspec would look it up by its options each time."""
    return fsspec.filesystem(scheme)


def _write_new(path: Path, data: bytes) -> None:
    """Write a file at `path`; raises FileExistsError where there is one, which a rename would replace."""
    if not os.path.isdir(path.parent):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # which is not about `path`
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error
    temporary = path.parent / temporary_name()
    try:
        temporary.write_bytes(data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # each file system without links has an error of its own for them
            with open(path, "xb"):
                pass
            try:
                os.replace(temporary, path)
            except OSError:
                path.unlink(missing_ok=True)
                raise
    finally:
        temporary.unlink(missing_ok=True)


def _local_entry(path: str, status: os.stat_result) -> Entry:
    return Entry(path, status.st_size, str(status.st_mtime_ns))


def _list_local(folder: str, ancestors: tuple[str, ...]) -> Iterator[Entry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real not in ancestors:
                    yield from _list_local(entry.path, (*ancestors, real))
            elif entry.is_file():
                yield _local_entry(entry.path, entry.stat())


def _list_s3(file_system: Any, path: str) -> Iterator[Entry]:
    bucket = path.partition("/")[0]
    for page in pages_s3(file_system, path):
        for found in page:
            if not found["Key"].endswith("/"):
                yield Entry(f"s3://{bucket}/{found['Key']}", found["Size"], found["ETag"].strip('"'))


def _read_at_most(uri: str, offset: int, length: int) -> bytes:
    _, file_system, path = _locate(uri)
    if length == 0:
        return b""
    with translated_errors(uri, "read"):
        try:
            return file_system.cat_file(path, start=offset, end=offset + length)
        except OSError as error:
            # S3 refuses a range that begins after the last byte, and so any range of an empty file.
            if s3_error_code(error) == "InvalidRange":
                return b""
            raise
