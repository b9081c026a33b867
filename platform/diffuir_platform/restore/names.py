"""Keys of inputs and names of results: no two inputs share a name, and no name leads out of the output."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote_to_bytes

from diffuir_core.imaging import FORMAT_OF_SUFFIX, PHOTO_SUFFIXES, RAW_SUFFIXES

from ..storage import OWN_FOLDER, is_hidden
from ..text import is_utf8

LIST_SUFFIXES = (".txt", ".lst", ".list")
"""Endings of text files that list inputs, one path or URI on each line."""

REPORT_FILE = "report.json"
"""File of a run's figures, in the `_diffuir` of its output."""

SUFFIX_OF = {format: suffix for suffix, format in reversed(FORMAT_OF_SUFFIX.items())}
"""Format -> the ending that its results get."""

_RAW = "%raw/"
_SPECIAL = {"": "%empty", ".": "%dot", "..": "%dotdot", OWN_FOLDER: f"%{OWN_FOLDER}"}
"""Parts of a key that are ordinary in a store but mean something else in a path -> their replacement."""
_RAW_OR_ITS_RESULT = re.compile(rf"(?:{'|'.join(map(re.escape, RAW_SUFFIXES))})(?:\.tif)*$", re.IGNORECASE)
_LOOKS_SPECIAL = re.compile(f"%+(empty|dot|dotdot|{OWN_FOLDER})")


def safe_path(key: str) -> str:
    """Return `key` as a relative path that stays below its folder, whatever keys a store allows.

    Nearly every key is returned as it is. Parts that would lead elsewhere (`..`, or an empty part as in `//` or
    before a leading slash) are replaced by a name such as `%dotdot` or `%empty`; a part that has such a name
    itself gets one more `%`.
    """
    return "/".join(_SPECIAL.get(part) or _escaped(part) for part in key.split("/"))


def result_name(format: str | None, key: str) -> str:
    """Return the name of a photo's result: its key, with an ending of `format` added where it has another
    format's. Without `format` a RAW photo's result is a TIFF: a.dng gives a.dng.tif.

    No two keys of photos give the same name: a.jpg in PNG is a.jpg.png, which may stand beside a.png, and a photo
    that is called a.jpg.png itself gives a.jpg.png.png. (A key without a photo's ending, which only a list or a
    pattern can have, may give the name of another key; the second of the two is then failed with that reason.)
    """
    key = safe_path(key)
    if format is None:
        return f"{key}.tif" if _RAW_OR_ITS_RESULT.search(key) else key
    stem, ending = os.path.splitext(key)
    two_endings = os.path.splitext(stem)[1].lower() in PHOTO_SUFFIXES
    return (
        key if FORMAT_OF_SUFFIX.get(ending.lower()) == format and not two_endings else key + SUFFIX_OF[format]
    )


def result_format(format: str | None, key: str) -> str | None:
    """Return the format to write the photo `key` in: `format`, or TIFF for a RAW photo; None for its own."""
    is_raw = os.path.splitext(key)[1].lower() in RAW_SUFFIXES
    return "TIFF" if format is None and is_raw else format


def is_photo(name: str) -> bool:
    """Whether a file of that name is an input: it has a photo's ending and is not hidden."""
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def _escaped(part: str) -> str:
    return f"%{part}" if _LOOKS_SPECIAL.fullmatch(part) else part


def as_text(name: str) -> str:
    """Encode a name as text for Parquet and SQLite: names on disk may hold bytes that are not UTF-8 (PEP 383)."""
    if name.startswith(_RAW) or not is_utf8(name):
        return _RAW + quote(os.fsencode(name))
    return name


def from_text(text: str) -> str:
    """Decode what `as_text` returned."""
    return os.fsdecode(unquote_to_bytes(text.removeprefix(_RAW))) if text.startswith(_RAW) else text
