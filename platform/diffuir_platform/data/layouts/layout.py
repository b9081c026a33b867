"""The type of a layout: where the files of each split are, and which clean file belongs to a degraded one.

A layout is a value, not code. Each of its parts names a task, a data set and a split, the places of the two sides
(a template of the path below ROOT, without the ending), and the rule that gives the key of the clean file for the
key of a degraded one. Pairs are found by that rule alone, never by the positions of files in two sorted lists,
where one missing file would pair every later one with the wrong file.

A template matches from ROOT on, or from ROOT's own name on, so that ROOT may be a data set's folder or the one
above; only from ROOT on where ROOT holds a folder of its own name. In a template, `{name}` is one folder's or
file's name and part of the key, `{name=a|b}` only these names, `{path}` any number of names; `**/` is any number
of folders and `*` any characters of a name, neither part of the key; `(a|b)` and `(a/)?` mean the same as in
regular expressions. The key is made of the parts in braces, joined by `/`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from diffuir_core.degradations import TASKS

ANY_TASK = "any"
"""Task of clean photos without degraded counterparts: each is degraded on the fly, for any task."""
UDC = "udc"
"""Task of photos taken through a display, which is evaluated but not trained."""
INDEX_TASKS = (*TASKS, UDC)
"""Tasks that an index may name."""

Twin = Callable[[str], str]
"""Key of a degraded file -> key of its clean counterpart."""


def same_key(key: str) -> str:
    """Return `key`: the rule where both sides of a pair have the same key."""
    return key


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split of one data set: pairs with both sides, or degraded or clean photos alone with one."""

    task: str
    """One of INDEX_TASKS, or ANY_TASK for clean photos alone."""
    dataset: str
    split: str
    degraded: str | None = None
    """Template of the degraded files; None for clean photos alone."""
    clean: str | None = None
    """Template of the clean files; None for degraded photos without ground truth."""
    twin: Twin = same_key
    """Rule that gives the clean key for a degraded key."""
    spare_clean: bool = False
    """Whether clean files without a degraded one are expected, as other splits share their folder."""
    listing: str | None = None
    """A text file below ROOT with a line `CLEAN DEGRADED` for each pair of this split, as paths below ROOT."""
    arrays: tuple[str, str] | None = None
    """For .mat files, the names of their degraded and clean arrays; the key is then the number of a photo."""

    @property
    def sides(self) -> tuple[tuple[str, str], ...]:
        """(side, template) of each side that it has."""
        both = (("degraded", self.degraded), ("clean", self.clean))
        return tuple((side, template) for side, template in both if template is not None)

    @property
    def is_unpaired(self) -> bool:
        """Whether it has one side only."""
        return self.degraded is None or self.clean is None


@dataclass(frozen=True)
class Layout:
    """An arrangement of data sets on disk or in a store."""

    name: str
    """Its name for `--layout`."""
    about: str
    """One line about it for `--help`."""
    parts: tuple[Part, ...]
    """Its splits; several parts of one data set and split are alternative places of its files."""
    named_by_user: bool = False
    """Whether task, data set and split come from the command, and those of the parts are its defaults."""


def key_of(template: str, path: str) -> str | None:
    """Return the key of `path` (below ROOT, without its ending); None where the template does not match."""
    found = _pattern(template).fullmatch(path)
    return (
        None if found is None else "/".join(name for name in found.groupdict().values() if name is not None)
    )


def paired_folders(task: str, dataset: str, split: str, where: str, degraded: str, clean: str) -> Part:
    """Return the part of pairs with the same names in two folders.

    where: template of the folder that holds the two, ending in a slash, or "" for ROOT.
    """
    return Part(
        task=task,
        dataset=dataset,
        split=split,
        degraded=f"{where}{degraded}/{{name}}",
        clean=f"{where}{clean}/{{name}}",
    )


@lru_cache(maxsize=256)
def _pattern(template: str) -> re.Pattern[str]:
    def regular(token: re.Match[str]) -> str:
        if token["field"]:
            names = token["names"] or (".+" if token["field"] == "path" else "[^/]+")
            return f"(?P<{token['field']}>{names})"
        return {"**/": "(?:[^/]+/)*", "*": "[^/]*", "(": "(?:"}[token[0]]

    return re.compile(re.sub(r"\*\*/|\*|\(|{(?P<field>\w+)=?(?P<names>[^}]*)}", regular, template), re.DOTALL)
