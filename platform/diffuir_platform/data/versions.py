"""Sizes and times of the files of a data set, by which photos that changed under their names are noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from .. import storage
from . import mat
from .sources import Items


@dataclass(frozen=True)
class FileVersions:
    """State of the files of a data set, in 64 hexadecimal digits each."""

    sizes: str
    """Digest of the keys and sizes in bytes: the same where the files were only copied."""
    versions: str
    """Digest of the places, sizes, and times of the last change or ETags."""


def file_versions(sources: Mapping[str, Items]) -> FileVersions:
    """Look at every file of the items, without reading it; one that is gone counts as empty.

    Files in a store are listed by the folders that hold them. Raises `UserError` where a store does not answer.
    """
    sizes, versions = hashlib.sha256(), hashlib.sha256()
    tables = [items.table for items in {id(items): items for items in sources.values()}.values()]
    files = {file for table in tables for file in _files(table)}
    found = dict(_remote(file for file in files if "://" in file))
    found |= {file: _local(file) for file in files if "://" not in file}
    for table in tables:
        columns = ("key", "clean_uri", "clean_length", "degraded_uri", "degraded_length")
        for key, *sides in zip(*(table[name].to_pylist() for name in columns), strict=True):
            for uri, length in (sides[:2], sides[2:]):
                if uri is not None:
                    size, version = found.get(mat.file_of(uri), (0, ""))
                    # Without places, and as large in a packed file as by itself: a data set may move.
                    sizes.update(f"{key}\0{length or size}\n".encode(errors="surrogateescape"))
                    versions.update(f"{uri}\0{size}\0{version}\n".encode(errors="surrogateescape"))
    return FileVersions(sizes.hexdigest(), versions.hexdigest())


def _files(table: pa.Table) -> Iterator[str]:
    for side in ("clean_uri", "degraded_uri"):
        yield from map(mat.file_of, pc.unique(table[side]).drop_null().to_pylist())


def _local(file: str) -> tuple[int, str]:
    try:
        status = os.stat(file)
    except OSError:
        return 0, ""  # the run names it when it comes to it
    return status.st_size, str(status.st_mtime_ns)


def _remote(files: Iterable[str]) -> Iterator[tuple[str, tuple[int, str]]]:
    wanted = set(files)
    folders = sorted({file.rpartition("/")[0] for file in wanted})
    listed = ""
    for folder in folders:
        if listed and folder.startswith(f"{listed}/"):
            continue  # listed with the folder that it is in
        listed = folder
        for entry in storage.list_entries(folder):
            if entry.uri in wanted:
                yield entry.uri, (entry.size, entry.version)
