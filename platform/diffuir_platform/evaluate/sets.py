"""The sets of images that an evaluation measures: folders of pairs, folders of photos, or benchmarks by name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Self

from diffuir_core.errors import UserError

from .. import storage
from ..data.index import IndexRow, open_index, read_image
from ..data.layouts import Part, find_layout
from ..data.matching import File, Matcher, translated_database_errors
from ..data.pairs import find_sets, images_in, match_pairs
from ..text import counted
from .benchmarks import TEST, Benchmark
from .measures import Measure


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Conditions under which the images of a set are restored, which results depend on."""

    steps: int
    """Sampling steps."""
    equalise: bool = False
    """Whether the degraded photo's histogram is equalised first."""
    folder: str = ""
    """Folder of its results below `restored/`, where an evaluation has several conditions."""

    @classmethod
    def named(cls, steps: int, equalise: bool) -> Self:
        """Return a condition with a folder of its own."""
        return cls(steps=steps, equalise=equalise, folder=f"{steps}-steps" + "-equalised" * equalise)


@dataclass(frozen=True, kw_only=True)
class Side:
    """Place of a photo: a file, `length` bytes from `offset` on in a packed file, or a photo in a MATLAB file."""

    uri: str
    offset: int | None = None
    length: int | None = None

    def read(self) -> bytes:
        """Return its bytes; raises `UserError` where they can't be read."""
        try:
            return read_image(self.uri, self.offset, self.length)
        except OSError as error:
            raise UserError(
                f"{self.uri} can't be read ({error.strerror}): look whether it is there"
            ) from error


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image of a set: its degraded side and, where it has one, its truth."""

    set_name: str
    key: str
    degraded: Side
    clean: Side | None

    @property
    def name(self) -> str:
        """Name in reports: `<set>/<key>`."""
        return f"{self.set_name}/{self.key}"


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A set of images that are restored under one condition and measured alike."""

    name: str
    cases: Sequence[Case]
    measures: tuple[Measure, ...]
    condition: Condition
    piece: int | None = None
    """Width, in pixels, of the pieces that its photos are restored in; None for whole photos."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reasons of what is at fault with its files, by name."""
    notes: dict[str, str] = field(default_factory=dict)
    """Remarks for a reader of its figures, by name."""


def pair_sets(folder: Path, measures: tuple[Measure, ...], condition: Condition) -> list[ImageSet]:
    """Return the sets of pairs in `folder`, which is one or holds several, as `find_pairs` finds them.

    What `find_pairs` refuses is in `failed` of its set. Raises `UserError` for a folder that is missing or holds
    no set.
    """
    found = []
    for place in find_sets(folder):
        name = _name(place, folder)
        try:
            pairs, faults = match_pairs(place)
        except UserError as error:
            found.append(_broken(name, str(error), measures, condition))
            continue
        cases = [
            Case(set_name=name, key=p.key, degraded=_file(p.degraded), clean=_file(p.clean)) for p in pairs
        ]
        failed = {f"{name}/{key}": reason for key, reason in faults.items()}
        found.append(ImageSet(name=name, cases=cases, measures=measures, condition=condition, failed=failed))
    return found


def photo_sets(folder: Path, measures: tuple[Measure, ...], condition: Condition) -> list[ImageSet]:
    """Return the photos in `folder` and in each folder in it as sets without truths.

    A folder that can't be listed is in `failed` of its set. Raises `UserError` where there is no photo.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one that holds photos")
    found = []
    inside = sorted(d for d in folder.iterdir() if d.is_dir() and not storage.is_hidden(d.name))
    for place in (folder, *inside):
        name = _name(place, folder)
        try:
            files = [file for file in images_in(place) if place != folder or file.parent == folder]
        except UserError as error:
            found.append(_broken(name, str(error), measures, condition))
            continue
        keys = _keys([file.relative_to(place).as_posix() for file in files])
        cases = [
            Case(set_name=name, key=key, degraded=_file(file), clean=None)
            for key, file in zip(keys, files, strict=True)
        ]
        if cases:
            found.append(ImageSet(name=name, cases=cases, measures=measures, condition=condition))
    if not found:
        raise UserError(f"{folder} and the folders in it hold no photos: name a folder that does")
    return found


def _name(place: Path, folder: Path) -> str:
    """Return the name of the set in `place`; that of `folder` itself may be given as "."."""
    return place.resolve().name if place == folder else place.name


def _keys(paths: Sequence[str]) -> list[str]:
    """Return the key of each photo: its path without its ending, or with it where another has the same."""
    times = Counter(map(_stem, paths))
    return [_stem(path) if times[_stem(path)] == 1 else path for path in paths]


def benchmark_sets(
    benchmarks: Sequence[Benchmark], data: str, condition_of: Callable[[Benchmark], Condition]
) -> list[ImageSet]:
    """Return the images of each benchmark that is in `data`: an index, or a folder that holds data sets.

    In a folder, the files of each are looked for by its layouts, in the folder itself and in each folder in it.
    What is at fault (a benchmark that is not there, files without a counterpart) is in `failed` of its set, and a
    set that has other than the published number of images has a note. Raises `UserError` where `data` is missing
    or has none of the benchmarks.
    """
    find = _Indexed(data) if data.lower().endswith(".parquet") else _Unpacked(data)
    found = []
    for benchmark in benchmarks:
        cases, failed = find(benchmark)
        if not cases and not failed:
            looked = " or ".join(layout for layout, _ in benchmark.places)
            failed = {benchmark.name: f"{data} has no photos of it: looked by the layout {looked}"}
        count = len(cases) + len(failed)
        notes = {}
        if cases and benchmark.images not in (None, count):
            notes[benchmark.name] = f"{counted(count, 'image')} of {benchmark.images:,} that are published"
        found.append(
            ImageSet(
                name=benchmark.name,
                cases=cases,
                measures=benchmark.measures,
                condition=condition_of(benchmark),
                piece=benchmark.piece,
                failed=failed,
                notes=notes,
            )
        )
    if not any(one.cases for one in found):
        names = ", ".join(benchmark.name for benchmark in benchmarks)
        raise UserError(
            f"{data} holds no images of {names}: name the folder that holds the unpacked data sets, or an index "
            "(diffuir index --help shows where each layout looks)"
        )
    return found


class _Indexed:
    """Finds benchmarks in an index."""

    def __init__(self, uri: str) -> None:
        self._rows: dict[tuple[str, str], list[IndexRow]] = {}
        for row in open_index(uri).rows():
            if row.split == TEST and row.degraded_uri is not None:
                self._rows.setdefault((row.dataset, row.split), []).append(row)

    def __call__(self, benchmark: Benchmark) -> tuple[list[Case], dict[str, str]]:
        for _, dataset in benchmark.places:
            if rows := self._rows.get((dataset, benchmark.split)):
                keys = [row.key for row in rows]
                keys = _keys(keys) if rows[0].clean_uri is None else keys
                return [_indexed_case(benchmark.name, *one) for one in zip(keys, rows, strict=True)], {}
        return [], {}


class _Unpacked:
    """Finds benchmarks in a folder that holds unpacked data sets."""

    def __init__(self, folder: str) -> None:
        self._folder = storage.absolute(folder)
        if not storage.is_folder(self._folder):
            raise UserError(
                f"there is no folder {folder}: name one that holds data sets, or an index of them"
            )
        prefix = storage.join(self._folder, "")
        self._files = sorted(
            (uri.removeprefix(prefix), size) for uri, size in storage.list_files(self._folder)
        )
        self._inside = [
            name for name, _ in groupby(path.partition("/")[0] for path, _ in self._files if "/" in path)
        ]

    def __call__(self, benchmark: Benchmark) -> tuple[list[Case], dict[str, str]]:
        faulty: dict[str, str] = {}
        for layout, dataset in benchmark.places:
            parts = [
                part
                for part in find_layout(layout).parts
                if (part.dataset, part.split) == (dataset, benchmark.split)
            ]
            for inside in ("", *self._inside):
                found = self._look(benchmark.name, inside, parts)
                if found[0]:
                    return found
                faulty = faulty or found[1]
        return [], faulty

    def _look(self, name: str, inside: str, parts: Sequence[Part]) -> tuple[list[Case], dict[str, str]]:
        """Look into the folder `inside` (empty for all) as the ROOT of a layout."""
        root = storage.join(self._folder, inside) if inside else self._folder
        # A layout of any photos in any folders would take those of other data sets.
        if (
            any(part.degraded == "{path}" for part in parts)
            and root.rpartition("/")[2].lower() != name.lower()
        ):
            return [], {}
        prefix = f"{inside}/" if inside else ""
        below = ((p.removeprefix(prefix), size) for p, size in self._files if p.startswith(prefix))
        with translated_database_errors(), Matcher(root, parts) as matcher:
            matcher.add(below)
            found = [(c, c.degraded) for c in matcher.candidates() if c.degraded is not None]
            failed = {f"{name}/{_stem(m.path)}": f"{m.path}: {m.reason}" for m in matcher.mismatches()}
        keys = [candidate.key for candidate, _ in found]
        cases = [
            Case(
                set_name=name,
                key=key,
                degraded=_below(root, degraded),
                clean=None if candidate.clean is None else _below(root, candidate.clean),
            )
            for key, (candidate, degraded) in zip(
                _keys(keys) if parts[0].is_unpaired else keys, found, strict=True
            )
        ]
        return cases, failed


def _indexed_case(name: str, key: str, row: IndexRow) -> Case:
    degraded = Side(uri=row.degraded_uri or "", offset=row.degraded_offset, length=row.degraded_length)
    clean = None
    if row.clean_uri is not None:
        clean = Side(uri=row.clean_uri, offset=row.clean_offset, length=row.clean_length)
    return Case(set_name=name, key=key, degraded=degraded, clean=clean)


def _below(root: str, file: File) -> Side:
    return Side(uri=storage.join(root, file.path))


def _broken(name: str, reason: str, measures: tuple[Measure, ...], condition: Condition) -> ImageSet:
    return ImageSet(name=name, cases=(), measures=measures, condition=condition, failed={name: reason})


def _file(path: Path) -> Side:
    return Side(uri=str(path.absolute()))


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]
