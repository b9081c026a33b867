"""What a task is trained on: rows of an index, folders of clean photos, and folders of real pairs."""

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
from diffuir_core.imaging import FORMAT_OF_SUFFIX

from .. import storage
from ..config import Config
from . import mat
from .index import EQUALISE, SCHEMA, open_index
from .layouts import ANY_TASK
from .pairs import images_in, pairs_of

PLACE = ("degraded_uri", "degraded_offset", "degraded_length", "clean_uri", "clean_offset", "clean_length")
COLUMNS = pa.schema([SCHEMA.field(name) for name in ("key", *PLACE, "width", "height", "preprocessing")])
"""Of an item. Photos of a folder, whose headers nobody has read, have neither width nor height: 0."""


def _of_this_machine(folder: Any) -> Any:
    """A bucket would be taken for a folder of a strange name."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder)):
        raise ValueError(
            f"{folder} is no folder of this machine, which it must be: make an index of it with diffuir index and "
            "name that under index"
        )
    return folder


Folder = Annotated[Path, BeforeValidator(_of_this_machine)]
"""Of this machine, or one that all nodes share."""


class PairFolder(Config):
    """A folder with `degraded/` and `clean/`, the same file stem in both."""

    path: Folder
    repeat: int = Field(default=1, ge=1)
    """How often each pair comes in an epoch of its task, beside the synthetic ones."""


class DataConfig(Config):
    """Where training images come from."""

    index: tuple[str, ...] = ()
    """Indexes made by `diffuir index`, local or in a bucket. Pairs serve their task; clean photos alone serve
    every task, degraded on the fly."""
    split: str = "train"
    """Of the indexes' rows those of this split."""
    datasets: tuple[str, ...] = ()
    """Of the indexes' rows those of these data sets; empty for all."""
    clean: tuple[Folder, ...] = ()
    """Folders of clean photos; each photo is degraded on the fly for every task."""
    pairs: dict[str, tuple[PairFolder, ...]] = Field(default_factory=dict)
    """Real pairs by task, beside (or, without clean folders, instead of) the synthetic ones."""


Photo = tuple[str, int | None, int | None]
"""URI, and offset and length in bytes where it is a part of that: what `read_pixels` takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One training item: a real pair, or without a degraded side a clean photo to be degraded.

    A side is a URI, or a part of it: `offset` and `length` in bytes. width, height: in pixels as the index says, 0
    where nobody has looked. preprocessing: what is done to the degraded photo first, "" or "equalise".
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

    @property
    def photos(self) -> tuple[Photo, ...]:
        """The clean photo, and the degraded one where there is one."""
        clean = (self.clean_uri, self.clean_offset, self.clean_length)
        if self.degraded_uri is None:
            return (clean,)
        return clean, (self.degraded_uri, self.degraded_offset, self.degraded_length)


class Items(Sequence[Source]):
    """The items of one task as Arrow columns: a million of them take what their text takes, and the processes of a
    machine share it."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, item: int) -> Source: ...
    @overload
    def __getitem__(self, item: slice) -> Items: ...
    def __getitem__(self, item: int | slice) -> Source | Items:
        if isinstance(item, slice):
            return self.take(range(*item.indices(len(self))))
        return Source(**{name: self.table.column(name)[item].as_py() for name in self.table.column_names})

    def take(self, places: Sequence[int]) -> Items:
        """The items at those places."""
        return Items(self.table.take(pa.array(places, pa.int64())))

    def pairs(self) -> Items:
        """Those that have a degraded side."""
        return Items(self.table.filter(pc.field("degraded_uri").is_valid()))


def list_sources(config: DataConfig, tasks: Collection[str] = TASKS) -> dict[str, Items]:
    """`find_items`; raises `UserError` for one of `tasks`, those that are trained, left without items too."""
    sources = find_items(config)
    for task, items in sources.items():
        if task in tasks and not items:
            raise UserError(
                f"nothing to train {task} on: name an index that has it, or a folder in data.clean or "
                f"data.pairs.{task}"
            )
    return sources


def find_items(config: DataConfig, name: str = "data") -> dict[str, Items]:
    """Every task's items, in an order that depends on the index or the file names alone.

    name: of the settings, for messages. Raises `UserError` for a missing or empty folder or index, a data set that
    no index has, an index whose files are gone, or a pair without its twin.
    """
    unknown = sorted(set(config.pairs) - set(TASKS))
    if unknown:
        raise UserError(f"{name}.pairs: no task {unknown[0]!r}: choose among {', '.join(TASKS)}")
    _check_datasets(config, name)
    found = [_indexed(uri, config, name) for uri in config.index]
    indexed = [(rows, rows.select(COLUMNS.names)) for rows in found]
    photos = [_photos(folder) for folder in config.clean]
    # What several tasks take alike is one object, so that Ray's store holds it once.
    kept: dict[tuple[int, ...], tuple[list[pa.Table], Items]] = {}
    sources = {}
    for task in TASKS:
        pairs = [
            table
            for folder in config.pairs.get(task, ())
            for table in [_pairs(folder.path.absolute())] * folder.repeat
        ]
        parts = [*(_serving(task, rows, items) for rows, items in indexed), *photos, *pairs]
        alike = tuple(id(part) for part in parts)
        if alike not in kept:
            kept[alike] = parts, Items(pa.concat_tables([COLUMNS.empty_table(), *parts]))
        sources[task] = kept[alike][1]
    pa.default_memory_pool().release_unused()
    return sources


def _serving(task: str, rows: pa.Table, items: pa.Table) -> pa.Table:
    """Those of `items` whose `rows` serve a task; `items` itself where all do, as those of clean photos alone."""
    serves = pc.is_in(rows["task"], pa.array([task, ANY_TASK]))
    return items if pc.all(serves).as_py() else items.filter(serves)


def _check_datasets(config: DataConfig, name: str) -> None:
    """Raise `UserError` for a data set that is asked for and that no index has."""
    if not config.datasets:
        return
    tables = (open_index(uri).table(("dataset",)) for uri in config.index)
    known = {dataset for rows in tables for dataset in pc.unique(rows["dataset"]).to_pylist()}
    unknown = sorted(set(config.datasets) - known)
    if unknown:
        there = ", ".join(sorted(known)) or "no data set"
        raise UserError(f"{name}.datasets: no index has {unknown[0]!r}: there is {there}")


def _indexed(uri: str, config: DataConfig, name: str) -> pa.Table:
    """The rows of an index that are asked for and have a clean side, with their task."""
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
            f"{uri} has no rows of split {config.split!r}{of} with a clean side: it has {there or 'no rows'}"
        )
    _check_rows(uri, found, name)
    for dataset in pc.unique(found["dataset"]).to_pylist():
        first = found.filter(pc.field("dataset") == dataset).slice(0, 1).to_pylist()[0]
        for side in ("clean_uri", "degraded_uri"):
            place = first[side]
            if place is not None and not storage.exists(mat.file_of(place)):
                raise UserError(f"{uri} says that there is {place}, and there is not: make the index again")
    return found


def _check_rows(uri: str, rows: pa.Table, name: str) -> None:
    """Raise `UserError` for rows that nobody would ask for, and photos that a worker could not find."""
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
                f"{uri} names {relative[0].as_py()} and not the folder that it lies in: make the index again"
            )


def _photos(folder: Path) -> pa.Table:
    files = list_images(folder)
    return _table([{"key": _key(file, folder), "clean_uri": str(file)} for file in files])


def _pairs(folder: Path) -> pa.Table:
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
    """The image files in `folder` and below, sorted; raises `UserError` where there are none."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: name one that holds images")
    files = images_in(folder.absolute())
    if not files:
        raise UserError(f"the folder {folder} holds no images ({' '.join(FORMAT_OF_SUFFIX)})")
    return files


def preprocessing(sources: Mapping[str, Items]) -> dict[str, str]:
    """Task -> what is to be done to its photos before a network that was trained on these sees them.

    Of tasks whose pairs all had it done; photos that are degraded on the fly never have. Where only some pairs
    had, the network has met both and nothing need be done.
    """
    equalised = {}
    for task, items in sources.items():
        done = pc.unique(items.pairs().table["preprocessing"]).to_pylist()
        if done == [EQUALISE]:
            equalised[task] = EQUALISE
    return equalised


def describe(sources: Mapping[str, Items]) -> dict[str, dict[str, int]]:
    """Per task how many distinct clean photos and real pairs there are, and how many items are equalised where any
    are, for the record of a run."""
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
    """64 hexadecimal digits that are others where the items, or their order, are others; where they lie is no part
    of it."""
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
