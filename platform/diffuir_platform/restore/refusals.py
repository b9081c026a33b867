"""IN and OUT of a restore: places that can't be meant are refused before any work begins."""

from __future__ import annotations

import os
import re

from diffuir_core.errors import UserError
from diffuir_core.imaging import FORMAT_OF_SUFFIX, PHOTO_SUFFIXES

from .. import storage
from .names import LIST_SUFFIXES, SUFFIX_OF

WILDCARD = re.compile(r"[*?\[]")
"""A character of a pattern."""
TABLE_SUFFIX, TAR_SUFFIX = ".parquet", ".tar"
_ARCHIVE_SUFFIXES = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4"),
    *(".zip", ".7z", ".rar"),
)
"""Endings of archives whose members can't be read where they are."""
_FILE_SUFFIXES = (*PHOTO_SUFFIXES, *LIST_SUFFIXES, TABLE_SUFFIX, TAR_SUFFIX, *_ARCHIVE_SUFFIXES)
"""Endings that are those of a file and not of a folder."""


def check_places(source: str, target: str) -> None:
    """Raise `UserError` where IN or OUT is empty or `-`, or IN is an archive that can't be read where it is."""
    for name, place, stream in (("IN", source, "read from stdin"), ("OUT", target, "written to stdout")):
        if not place.strip():
            raise UserError(f"{name} is empty: give a path or URI")
        if place == "-":
            raise UserError(
                f"{name} is -, but photos are not {stream}: give a path (./- for a file called -)"
            )
    if source.lower().endswith(_ARCHIVE_SUFFIXES) and (WILDCARD.search(source) or storage.is_file(source)):
        raise UserError(
            f"{source} is an archive, whose photos can't be read in place: unpack it and give the folder, "
            "or make it a .tar, which can"
        )


def check_folder(source: str, target: str) -> None:
    """Raise `UserError` where OUT, for the photos of a collection, has the name of a file and is no folder yet."""
    if target.lower().endswith(_FILE_SUFFIXES) and not storage.is_folder(target):
        if source.lower().endswith(PHOTO_SUFFIXES) and not WILDCARD.search(source):  # one in a store
            raise UserError(f"{source} does not exist: give a photo or a folder of photos")
        raise UserError(
            f"OUT is {target}, the name of a file, but {source} may hold many photos: give a folder "
            "(with a slash at its end where that is its name)"
        )


def format_of_result(target: str, format: str | None) -> str | None:
    """Return the format of one photo's result in the file `target`, by `format` and the file's ending.

    None for the photo's own format. Raises `UserError` for an ending of no format, or of another than `format`.
    """
    ending = os.path.splitext(target)[1].lower()
    by_ending = FORMAT_OF_SUFFIX.get(ending)
    if ending and by_ending is None:
        raise UserError(
            f"{target} ends in {ending}, in which no photo can be written: end it in one of "
            f"{' '.join(reversed(SUFFIX_OF.values()))}, or in a slash for a folder"
        )
    if format and by_ending and format != by_ending:
        raise UserError(
            f"{target} has the ending of {by_ending}: leave out --format, or use an ending of {format}"
        )
    return format or by_ending


def is_single_photo(source: str) -> bool:
    """Whether `source` is one photo, and not a folder, list, table or tar of many."""
    name = source.lower()
    if name.endswith((*LIST_SUFFIXES, TABLE_SUFFIX, TAR_SUFFIX)):
        return False
    if "://" in source:
        return name.endswith(PHOTO_SUFFIXES) and storage.is_file(source)
    return os.path.isfile(source)
