"""Folders of pairs: `<set>/degraded/<stem>.*` and `<set>/clean/<stem>.*`."""

from __future__ import annotations

from collections.abc import Sequence
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
    return [pair for one in find_sets(folder) for pair in pairs_of(one)]


def find_sets(folder: Path) -> list[Path]:
    """Return the sets that `find_pairs` looks into: those folders that hold `degraded/`, `clean/` or both, sorted.

    Raises `UserError` for a folder that is missing or holds none.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one that holds degraded/ and clean/")
    sets = [folder] if _sides(folder) else sorted(d for d in folder.iterdir() if d.is_dir() and _sides(d))
    if not sets:
        raise UserError(
            f"{folder} holds no pairs: put them into degraded/ and clean/, or into folders that hold these"
        )
    return sets


def _sides(folder: Path) -> list[str]:
    return [side for side in (DEGRADED, CLEAN) if (folder / side).is_dir()]


def pairs_of(folder: Path) -> list[Pair]:
    """Return the pairs of one set, sorted by key; raises `UserError` as `find_pairs` does."""
    pairs, faults = match_pairs(folder)
    for reason in faults.values():
        more = f" ({len(faults) - 1} more are at fault)" if len(faults) > 1 else ""
        raise UserError(reason + more)
    return pairs


def match_pairs(folder: Path) -> tuple[list[Pair], dict[str, str]]:
    """Return the pairs of one set, sorted by key, and {key: reason} of pictures that are in none.

    A picture without a counterpart, and all pictures of a key that two of one side have, are in no pair. Raises
    `UserError` for a folder that is missing, has one side only, or holds no pictures.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one that holds degraded/ and clean/")
    for side in (DEGRADED, CLEAN):
        if not (folder / side).is_dir():
            raise UserError(
                f"{folder} has no {side}/ folder: a set of pairs needs degraded/ and clean/, so add it"
            )
    degraded, clean = _by_key(folder / DEGRADED), _by_key(folder / CLEAN)
    if not degraded and not clean:
        raise UserError(f"{folder / DEGRADED} and {folder / CLEAN} hold no pictures: put the pairs into them")
    name = folder.resolve().name
    pairs, faults = [], {}
    for key in sorted(degraded.keys() | clean.keys()):
        both = degraded.get(key, []), clean.get(key, [])
        if reason := _fault(folder, key, *both):
            faults[key] = reason
        else:
            pairs.append(Pair(set_name=name, key=key, degraded=both[0][0], clean=both[1][0]))
    return pairs, faults


def _fault(folder: Path, key: str, degraded: Sequence[Path], clean: Sequence[Path]) -> str | None:
    """Return the reason why the pictures of a key are no pair; None where they are one."""
    for files in (degraded, clean):
        if len(files) > 1:
            return f"{files[0]} and {files[1]} are both named {key}: keep one of the two"
    for here, there, side in ((degraded, clean, CLEAN), (clean, degraded, DEGRADED)):
        if here and not there:
            return f"{here[0]} has no counterpart: put a picture named {key} into {folder / side}"
    return None


def _by_key(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in images_in(folder):
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
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
