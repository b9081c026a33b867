"""What a layout is: where each split's files lie, and which clean one belongs to a degraded one.

A layout is a value, not code: its parts name the task, the data set and the split, where the two sides lie (a
template of the path below ROOT, without the ending), and the rule that gives the clean file's key for a degraded
one's. Pairs are found by that rule alone, never by the places of files in two sorted lists: one missing file would
pair every later one with a stranger.

A template holds from ROOT on, or from ROOT's own name on, so that ROOT may be a data set's folder or the one
above; from ROOT on alone where ROOT holds a folder of its own name. In it `{name}` is one folder's or file's name
and part of the key, `{name=a|b}` only those names, `{path}` any number of them; `**/` is any number of folders and
`*` any letters of a name, neither part of the key; `(a|b)` and `(a/)?` are as in regular expressions. The key is
what the braces hold, with `/` between.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from diffuir_core.degradations import TASKS

ANY_TASK = "any"
"""The task of clean photos without a degraded twin: each is degraded on the fly, for any task."""
UDC = "udc"
"""The task of photos taken through a display, which is only evaluated."""
INDEX_TASKS = (*TASKS, UDC)

Twin = Callable[[str], str]


def same(key: str) -> str:
    """Both sides of a pair have the same key."""
    return key


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split of one data set. Both sides: pairs; one side: degraded or clean photos alone."""

    task: str
    dataset: str
    split: str
    degraded: str | None = None
    clean: str | None = None
    twin: Twin = same
    """The clean key that belongs to a degraded key."""
    spare_clean: bool = False
    """Whether clean files without a degraded one are expected here: other splits share their folder."""
    listing: str | None = None
    """A text file below ROOT with a line `CLEAN DEGRADED` for each pair of this split, paths from ROOT on."""
    arrays: tuple[str, str] | None = None
    """For .mat files: the names of the degraded and the clean array in them; the key is a photo's number."""

    @property
    def sides(self) -> tuple[tuple[str, str], ...]:
        """(side, template) of those that it has."""
        both = (("degraded", self.degraded), ("clean", self.clean))
        return tuple((side, template) for side, template in both if template is not None)

    @property
    def alone(self) -> bool:
        """Whether there are no pairs here."""
        return self.degraded is None or self.clean is None


@dataclass(frozen=True)
class Layout:
    """A way to lay data sets out, by the name that `--layout` takes."""

    name: str
    about: str
    parts: tuple[Part, ...]
    named_by_user: bool = False
    """Whether task, data set and split come from the command; those of the parts are what they are without it."""


def key_of(template: str, path: str) -> str | None:
    """The key of `path` (below ROOT, without its ending); None where the template does not hold for it."""
    found = _pattern(template).fullmatch(path)
    return (
        None if found is None else "/".join(name for name in found.groupdict().values() if name is not None)
    )


def folders(task: str, dataset: str, split: str, where: str, degraded: str, clean: str) -> Part:
    """Pairs in two folders in `where` (a template that ends in a slash, or nothing), the same names in both."""
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
