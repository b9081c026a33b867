"""The items that each task is trained on: rows of an index, folders of clean photos, and folders of real pairs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, overload

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field

from diffuir_core import UserError
from diffuir_core.degradations import TASKS
from diffuir_core.imaging import DEFAULT_LIMITS, FORMAT_OF_SUFFIX

from .. import storage
from ..config import Config
from . import mat
from .index import EQUALISE, SCHEMA, open_index
from .layouts import ANY_TASK
from .pairs import images_in, pairs_of

PLACE = ("degraded_uri", "degraded_offset", "degraded_length", "clean_uri", "clean_offset", "clean_length")
COLUMNS = pa.schema([SCHEMA.field(name) for name in ("key", *PLACE, "width", "height", "preprocessing")])
"""Columns of an item. width and height are 0 for photos of a folder, whose headers have not been read."""


def _check_is_local(folder: Any) -> Any:
    """Refuse a URI, which `Path` would take for a folder of a strange name."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder)):
        raise ValueError(
            f"{folder} is not a folder of this machine: make an index of it with diffuir index, and name that "
            "under index"
        )
    return folder


Folder = Annotated[Path, BeforeValidator(_check_is_local)]
"""A folder of this machine, or one that all nodes share."""


class PairFolder(Config):
    """A folder of pairs: `degraded/` and `clean/`, with the same file stems in both."""

    path: Folder
    """The folder that holds `degraded/` and `clean/`."""
    repeat: int = Field(default=1, ge=1)
    """Times that each pair comes up in an epoch of its task, among the synthetic pairs."""


class DataConfig(Config):
    """Sources of the training images."""

    index: tuple[str, ...] = ()
    """Indexes made by `diffuir index`, local or in a bucket. Pairs serve their own task; clean photos alone serve
    every task, degraded on the fly."""
    split: str = "train"
    """Split of the indexes whose rows are used."""
    datasets: tuple[str, ...] = ()
    """Data sets of the indexes whose rows are used; empty for all."""
    clean: tuple[Folder, ...] = ()
    """Folders of clean photos; each photo is degraded on the fly for every task."""
    pairs: dict[str, tuple[PairFolder, ...]] = Field(default_factory=dict)
    """Task -> folders of real pairs, used besides the synthetic pairs or, without clean photos, alone."""
    apart_from: tuple[str, ...] = ()
    """Indexes of test photos: the run is refused where a training photo is one of them, or shows its place from
    the same stand."""
    max_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1)
    """Largest photo to train and validate on, width x height in pixels; others are unusable. The largest file
    follows from it: 8 bytes a pixel, or 1 GiB if that is more."""


Photo = tuple[str, int | None, int | None, int]
"""(URI, offset, length, most pixels) for `read_pixels`; offset and length are None but for a part of a packed
file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One training item: a real pair, or, without a degraded side, a clean photo to be degraded on the fly.

    Each side is a file, or `length` bytes from `offset` on in a packed file. width, height: size in pixels from
    the index, 0 where unknown. preprocessing: what is done to the degraded photo first, "" or "equalise".
    max_pixels: as in `DataConfig`.
    """

    clean_uri: str
    clean_offset: int | None = None
    clean_length: int | None = None
    degraded_uri: str | None = None
    degraded_offset: int | None = None
    degraded_length: int | None = None
    width: int = 0
    height: int = 0
    preprocessing: str = ""
    key: str = ""
    max_pixels: int = DEFAULT_LIMITS.max_pixels

    @property
    def photos(self) -> tuple[Photo, ...]:
        """The clean photo and, for a pair, the degraded one."""
        clean = (self.clean_uri, self.clean_offset, self.clean_length, self.max_pixels)
        if self.degraded_uri is None:
            return (clean,)
        return clean, (self.degraded_uri, self.degraded_offset, self.degraded_length, self.max_pixels)


class Items(Sequence[Source]):
    """The items of one task as Arrow columns: a million take what their text takes, once on each machine.

    max_pixels: as in `DataConfig`, for all of them.
    """

    def __init__(self, table: pa.Table, max_pixels: int = DEFAULT_LIMITS.max_pixels) -> None:
        self.table = table
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, item: int) -> Source: ...
    @overload
    def __getitem__(self, item: slice) -> Items: ...
    def __getitem__(self, item: int | slice) -> Source | Items:
        if isinstance(item, slice):
            return self.take(range(*item.indices(len(self))))
        values = {name: self.table.column(name)[item].as_py() for name in self.table.column_names}
        return Source(**values, max_pixels=self.max_pixels)

    def take(self, places: Sequence[int]) -> Items:
        """Return the items at these places, in this order."""
        return Items(self.table.take(pa.array(places, pa.int64())), self.max_pixels)

    def pairs(self) -> Items:
        """Return the items that have a degraded side."""
        return Items(self.table.filter(pc.field("degraded_uri").is_valid()), self.max_pixels)


def list_sources(config: DataConfig, tasks: Collection[str] = TASKS) -> dict[str, Items]:
    """Find the items of every task as `find_items` does; raises `UserError` too where one of `tasks` has none.

    tasks: those that are trained.
    """
    sources = find_items(config)
    for task, items in sources.items():
        if task in tasks and not items:
            raise UserError(
                f"nothing to train {task} on: name an index that has it, or a folder in data.clean or "
                f"data.pairs.{task}"
            )
    return sources


def find_items(config: DataConfig, name: str = "data") -> dict[str, Items]:
    """Return the items of every task, in an order that depends on the index or the file names alone.

    name: name of the settings in messages. Raises `UserError` for a missing or empty folder or index, a data set
    that no index has, an index whose files are gone, and a pair without its counterpart.
    """
    unknown = sorted(set(config.pairs) - set(TASKS))
    if unknown:
        raise UserError(f"{name}.pairs: no task {unknown[0]!r}: choose among {', '.join(TASKS)}")
    _check_datasets(config, name)
    found = [_index_rows(uri, config, name) for uri in config.index]
    indexed = [(rows, rows.select(COLUMNS.names)) for rows in found]
    photos = [_photo_items(folder) for folder in config.clean]
    # Tasks with the same items share one object, so that Ray's store holds it once.
    kept: dict[tuple[int, ...], tuple[list[pa.Table], Items]] = {}
    sources = {}
    for task in TASKS:
        pairs = [
            table
            for folder in config.pairs.get(task, ())
            for table in [_pair_items(folder.path.absolute())] * folder.repeat
        ]
        parts = [*(_items_for_task(task, rows, items) for rows, items in indexed), *photos, *pairs]
        alike = tuple(id(part) for part in parts)
        if alike not in kept:
            table = pa.concat_tables([COLUMNS.empty_table(), *parts])
            kept[alike] = parts, Items(table, config.max_pixels)
        sources[task] = kept[alike][1]
    pa.default_memory_pool().release_unused()
    return sources


def _items_for_task(task: str, rows: pa.Table, items: pa.Table) -> pa.Table:
    """Return those of `items` whose `rows` serve a task; `items` itself, and no copy, where all do."""
    serves = pc.is_in(rows["task"], pa.array([task, ANY_TASK]))
    return items if pc.all(serves).as_py() else items.filter(serves)


def _check_datasets(config: DataConfig, name: str) -> None:
    """Raise `UserError` where the settings name a data set that no index has."""
    if not config.datasets:
        return
    tables = (open_index(uri).table(("dataset",)) for uri in config.index)
    known = {dataset for rows in tables for dataset in pc.unique(rows["dataset"]).to_pylist()}
    unknown = sorted(set(config.datasets) - known)
    if unknown:
        there = ", ".join(sorted(known)) or "no data set"
        raise UserError(f"{name}.datasets: no index has {unknown[0]!r}: choose among {there}")


def _index_rows(uri: str, config: DataConfig, name: str) -> pa.Table:
    """Return the rows of an index that the settings choose and that have a clean side, with their task."""
    rows = open_index(uri).table(("task", "dataset", "split", *COLUMNS.names))
    wanted = pc.field("clean_uri").is_valid() & (pc.field("split") == config.split)
    if config.datasets:
        wanted &= pc.field("dataset").isin(config.datasets)
    found = rows.filter(wanted)
    if not found.num_rows:
        splits = rows.group_by(("dataset", "split")).aggregate([]).to_pylist()
        there = ", ".join(sorted(f"{split['split']!r} of {split['dataset']}" for split in splits))
        of = f" of {', '.join(config.datasets)}" if config.datasets else ""
        raise UserError(
            f"{uri} has no rows of split {config.split!r}{of} with a clean side: choose among {there or 'no rows'}"
        )
    _check_rows(uri, found, name)
    for dataset in pc.unique(found["dataset"]).to_pylist():
        first = found.filter(pc.field("dataset") == dataset).slice(0, 1).to_pylist()[0]
        for side in ("clean_uri", "degraded_uri"):
            place = first[side]
            if place is not None and not storage.exists(mat.file_of(place)):
                raise UserError(f"{uri} names {place}, which does not exist: make the index again")
    return found


def _check_rows(uri: str, rows: pa.Table, name: str) -> None:
    """Raise `UserError` for rows of tasks that are not trained, and for paths without their folder."""
    unknown = sorted(set(pc.unique(rows["task"]).to_pylist()) - {*TASKS, ANY_TASK})
    if unknown:
        raise UserError(
            f"{uri} has rows of the task {unknown[0]!r}, which is none of {', '.join(TASKS)}: name the other data "
            f"sets in {name}.datasets, or make the index again"
        )
    for side in ("clean_uri", "degraded_uri"):
        places = rows[side].drop_null()
        relative = places.filter(pc.invert(pc.match_substring_regex(places, r"^(/|[a-z0-9]+://)")))
        if len(relative):
            raise UserError(
                f"{uri} names {relative[0].as_py()} without the folder that it is in: make the index again"
            )


def _photo_items(folder: Path) -> pa.Table:
    files = list_images(folder)
    return _table([{"key": _key(file, folder), "clean_uri": str(file)} for file in files])


def _pair_items(folder: Path) -> pa.Table:
    return _table(
        [
            {"key": pair.key, "clean_uri": str(pair.clean), "degraded_uri": str(pair.degraded)}
            for pair in pairs_of(folder)
        ]
    )


def _table(rows: list[dict[str, str]]) -> pa.Table:
    unknown = {"width": 0, "height": 0, "preprocessing": ""}
    return pa.Table.from_pylist([unknown | row for row in rows], schema=COLUMNS)


def _key(file: Path, folder: Path) -> str:
    return file.relative_to(folder.absolute()).as_posix()


def list_images(folder: Path) -> list[Path]:
    """Return the image files in `folder` and below, sorted; raises `UserError` where there are none."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one that holds images")
    files = images_in(folder.absolute())
    if not files:
        raise UserError(
            f"the folder {folder} holds no images: name one with files that end in {' '.join(FORMAT_OF_SUFFIX)}"
        )
    return files


def preprocessing(sources: Mapping[str, Items]) -> dict[str, str]:
    """Return {task: preprocessing} that a network trained on these items expects of photos.

    Only for tasks whose pairs were all preprocessed (photos that are degraded on the fly never are): where only
    some were, the network has seen both and needs none.
    """
    equalised = {}
    for task, items in sources.items():
        done = pc.unique(items.pairs().table["preprocessing"]).to_pylist()
        if done == [EQUALISE]:
            equalised[task] = EQUALISE
    return equalised


def describe(sources: Mapping[str, Items]) -> dict[str, dict[str, int]]:
    """Return for each task the number of distinct clean photos and of real pairs, and of equalised items where
    there are any, for the record of a run."""
    counts = {}
    for task, items in sources.items():
        alone = items.table.filter(pc.field("degraded_uri").is_null())
        pairs = items.table.filter(pc.field("degraded_uri").is_valid())
        counts[task] = {
            side: pc.count_distinct(pc.binary_join_element_wise(rows["clean_uri"], rows["key"], "\n")).as_py()
            for side, rows in (("photos", alone), ("pairs", pairs))
        }
        equalised = pairs.filter(pc.field("preprocessing") == EQUALISE).num_rows
        if equalised:
            counts[task]["equalised"] = equalised
    return counts


def fingerprint(sources: Mapping[str, Items]) -> str:
    """Return 64 hexadecimal digits that identify the items and their order, but not where they are stored."""
    digest = hashlib.sha256()
    for task in TASKS:
        digest.update(f"{task} {len(sources[task])}\n".encode())
        for line in _identities(sources[task].table):
            digest.update(line.encode())
    return digest.hexdigest()


def _identities(table: pa.Table) -> Iterator[str]:
    columns = (*("key", "width", "height", "preprocessing"), "degraded_uri")
    for batch in table.select(columns).to_batches(max_chunksize=10_000):
        keys, widths, heights, first, degraded = (batch.column(name).to_pylist() for name in columns)
        yield "".join(
            f"{key}\0{width}x{height}\0{done}\0{uri is not None}\n"
            for key, width, height, done, uri in zip(keys, widths, heights, first, degraded, strict=True)
        )
