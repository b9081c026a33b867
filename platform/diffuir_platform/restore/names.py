"""Keys of inputs and names of results: no two inputs give one name, and none leaves the output."""

from __future__ import annotations

import os
import re

from diffuir_core.imaging import FORMAT_OF_SUFFIX

from ..storage import OWN_FOLDER, is_hidden

LISTS = (".txt", ".lst", ".list")
"""Endings of text files that list inputs, one path or URI on each line."""

REPORT_FILE = "report.json"
"""The figures of a run, in the own folder of its output."""

SUFFIX_OF = {format: suffix for suffix, format in reversed(FORMAT_OF_SUFFIX.items())}
"""The first ending of each format."""

_SPECIAL = {"": "%empty", ".": "%dot", "..": "%dotdot", OWN_FOLDER: f"%{OWN_FOLDER}"}
"""Parts of a key that a store may hold and that mean something else in a path."""
_LOOKS_SPECIAL = re.compile(f"%+(empty|dot|dotdot|{OWN_FOLDER})")


def safe(key: str) -> str:
    """`key` as a relative path that stays below its folder, whatever a store lets be a key.

    Nearly every key is its own path. Parts that would lead elsewhere (`..`, an empty one as in `//` or before a
    leading slash) get a name, `%dotdot`, `%empty`; what is called so itself gets one more `%`.
    """
    return "/".join(_SPECIAL.get(part) or _escaped(part) for part in key.split("/"))


def name_in(format: str | None, key: str) -> str:
    """The name of a photo's result: its key, with an ending of `format` added where it has another photo's.

    No two keys of photos give one name, whatever else there is: a.jpg in PNG is a.jpg.png, beside a.png, and a
    photo that is called a.jpg.png itself gives a.jpg.png.png. (A key without a photo's ending, which only a list
    or a pattern has, may give the name of another; the second of them is then refused.)
    """
    key = safe(key)
    if format is None:
        return key
    stem, ending = os.path.splitext(key)
    two_endings = os.path.splitext(stem)[1].lower() in FORMAT_OF_SUFFIX
    return (
        key if FORMAT_OF_SUFFIX.get(ending.lower()) == format and not two_endings else key + SUFFIX_OF[format]
    )


def is_photo(name: str) -> bool:
    """Whether a file of that name is looked at: its ending says that it is a photo, and it is not hidden."""
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in FORMAT_OF_SUFFIX


def _escaped(part: str) -> str:
    return f"%{part}" if _LOOKS_SPECIAL.fullmatch(part) else part
