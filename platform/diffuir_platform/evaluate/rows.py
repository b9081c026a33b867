"""Measured images, and the Parquet files that keep them: parts while an evaluation runs, one file at its end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffuir_core.errors import UserError

from .. import storage
from .measures import Measure, Score
from .sets import Side

FILE = "images.parquet"
"""File of the finished rows in the folder of an evaluation."""
SECONDS_BETWEEN_PARTS = 5.0
"""Time after which measured images are written, seconds; a killed evaluation measures no more than these again."""

_SIDE = pa.struct([("uri", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])
SCHEMA = pa.schema(
    [
        pa.field("set", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("before", pa.float64()),
        pa.field("after", pa.float64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("weights_sha256", pa.string(), nullable=False),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("equalise", pa.bool_(), nullable=False),
        pa.field("seconds", pa.float64()),
        pa.field("degraded_sha256", pa.string(), nullable=False),
        pa.field("clean_sha256", pa.string()),
        pa.field("degraded", _SIDE, nullable=False),
        pa.field("clean", _SIDE),
        pa.field("restored", pa.list_(pa.string()), nullable=False),
    ]
)
"""Columns: a row for each measure of each image.

set, key: names of the image. metric, protocol: what was measured. before, after: its value of the degraded and of
the restored photo. width, height: pixels. weights_sha256, steps, equalise: how it was restored. seconds: time of
its restore; null where that is not known. degraded_sha256, clean_sha256: of the bytes of both sides. degraded,
clean: where they are. restored: paths of the results below the folder of the evaluation, from left to right.
"""
_FACTS = SCHEMA.names[6:]


@dataclass(frozen=True, kw_only=True)
class MeasuredImage:
    """One image with its scores; the columns of SCHEMA say what the fields are."""

    set_name: str
    key: str
    scores: tuple[Score, ...]
    width: int
    height: int
    weights_sha256: str
    steps: int
    equalise: bool
    seconds: float | None
    degraded_sha256: str
    clean_sha256: str | None
    degraded: Side
    clean: Side | None
    restored: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name in reports: `<set>/<key>`."""
        return f"{self.set_name}/{self.key}"

    def score(self, measure: Measure) -> Score | None:
        """Return its score by a measure; None where it has none."""
        return next((score for score in self.scores if score.measure == measure), None)


def write_images(file: str, images: Iterable[MeasuredImage]) -> None:
    """Write measured images as one Parquet file, which appears whole."""
    rows = [row for image in images for row in _rows(image)]
    with storage.writing(file) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary, compression="zstd")


def read_images(file: str) -> list[MeasuredImage]:
    """Read measured images; raises `UserError` where the file is missing or holds something else."""
    file_system, path = storage.arrow_file_system(file)
    try:
        with storage.translated_errors(file, "read"), pq.ParquetFile(path, filesystem=file_system) as opened:
            rows = opened.read(columns=SCHEMA.names).to_pylist()
        return [_image(list(group)) for _, group in groupby(rows, key=lambda row: (row["set"], row["key"]))]
    except (pa.ArrowInvalid, KeyError) as error:
        raise UserError(
            f"{file} holds no measured images of this version: evaluate into another folder"
        ) from error


class Parts:
    """Measured images of an evaluation that is not finished yet, in parts below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[MeasuredImage] = []
        self._written = time.monotonic()

    def read(self) -> Iterator[MeasuredImage]:
        """Yield the images of all parts."""
        for file in sorted(self._folder.glob("*.parquet")):
            yield from read_images(str(file))

    def add(self, image: MeasuredImage) -> None:
        """Add an image, and write those that have waited long enough."""
        self._waiting.append(image)
        if time.monotonic() - self._written > SECONDS_BETWEEN_PARTS:
            self.flush()

    def flush(self) -> None:
        """Write the images that wait."""
        if self._waiting:
            write_images(str(self._folder / f"{uuid.uuid4().hex}.parquet"), self._waiting)
        self._waiting, self._written = [], time.monotonic()


def _rows(image: MeasuredImage) -> Iterator[dict[str, Any]]:
    facts = {name: value for name, value in asdict(image).items() if name in _FACTS}
    for score in image.scores:
        yield {
            "set": image.set_name,
            "key": image.key,
            "metric": score.measure.metric,
            "protocol": score.measure.protocol,
            "before": score.before,
            "after": score.after,
            **facts,
        }


def _image(rows: Sequence[dict[str, Any]]) -> MeasuredImage:
    first = rows[0]
    facts = {name: first[name] for name in _FACTS}
    facts["restored"] = tuple(first["restored"])
    for side in ("degraded", "clean"):
        facts[side] = None if first[side] is None else Side(**first[side])
    scores = tuple(
        Score(
            measure=Measure(row["metric"], row["protocol"]),
            before=row["before"],
            after=row["after"],
        )
        for row in rows
    )
    return MeasuredImage(set_name=first["set"], key=first["key"], scores=scores, **facts)
