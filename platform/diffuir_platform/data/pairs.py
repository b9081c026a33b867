"""Folders of pairs: `<set>/degraded/<stem>.*` and `<set>/clean/<stem>.*`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffuir_core.errors import UserError
from diffuir_core.imaging import FORMAT_OF_SUFFIX

from .. import storage
from ..text import is_utf8, one_line

DEGRADED, CLEAN = "degraded", "clean"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One pair; key: its path in the folders of its set, without the ending and with "/" between parts."""

    set_name: str
    key: str
    degraded: Path
    clean: Path


def find_pairs(folder: Path) -> list[Pair]:
    """Return all pairs under `folder`, sorted by set and key.

    `folder` is one set (it holds `degraded/` and `clean/`) or holds several; other folders in it are ignored. The
    two files of a pair may have different endings. Raises `UserError` for a missing or empty folder, a set with
    one side only, a picture without a counterpart, and two pictures of one key.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one that holds degraded/ and clean/")
    sets = [folder] if _sides(folder) else sorted(d for d in folder.iterdir() if d.is_dir() and _sides(d))
    if not sets:
        raise UserError(
            f"{folder} holds no pairs: put them into degraded/ and clean/, or into folders that hold these"
        )
    return [pair for one in sets for pair in pairs_of(one)]


def _sides(folder: Path) -> list[str]:
    return [side for side in (DEGRADED, CLEAN) if (folder / side).is_dir()]


def pairs_of(folder: Path) -> list[Pair]:
    """Return the pairs of one set, sorted by key; raises `UserError` as `find_pairs` does."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one that holds degraded/ and clean/")
    for side in (DEGRADED, CLEAN):
        if not (folder / side).is_dir():
            raise UserError(
                f"{folder} has no {side}/ folder: a set of pairs needs degraded/ and clean/, so add it"
            )
    degraded, clean = _by_key(folder / DEGRADED), _by_key(folder / CLEAN)
    for here, there, side in ((degraded, clean, CLEAN), (clean, degraded, DEGRADED)):
        alone = sorted(here.keys() - there.keys())
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise UserError(
                f"{here[alone[0]]}{more} has no counterpart: put a picture named {alone[0]} into {folder / side}"
            )
    if not degraded:
        raise UserError(f"{folder / DEGRADED} and {folder / CLEAN} hold no pictures: put the pairs into them")
    name = folder.resolve().name
    return [
        Pair(set_name=name, key=key, degraded=degraded[key], clean=clean[key]) for key in sorted(degraded)
    ]


def _by_key(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in images_in(folder):
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise UserError(f"{found[key]} and {path} are both named {key}: keep one of the two")
        found[key] = path
    return found


def images_in(folder: Path) -> list[Path]:
    """Return the image files in `folder` and below, sorted: those that an index of it would hold."""
    prefix = storage.join(str(folder), "")
    below = (uri.removeprefix(prefix) for uri, _ in storage.list_files(str(folder)))
    found = sorted(
        folder / path
        for path in below
        if Path(path).suffix.lower() in FORMAT_OF_SUFFIX and not storage.is_hidden(path)
    )
    for path in found:
        if not is_utf8(str(path)):
            raise UserError(f"the name {one_line(str(path))} is not UTF-8: rename it")
    return found
