"""Tables 1, 4 and 5 of the paper, with the paper's own figures and those of an evaluation beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .benchmarks import GROUPS, by_name
from .means import Mean, mean_of_images, mean_of_sets
from .measures import METRICS, Measure
from .rows import MeasuredImage
from .tables import INTERVALS, Table, columns

if TYPE_CHECKING:
    from diffuir_core.metrics.cost import Cost

FIGURES = Path(__file__).parent / "paper.yaml"
"""The paper's figures."""
PUBLISHED = "as published"
"""Protocol of the paper's rows, which it does not name for each figure."""
FLOPS_NOTE = (
    "FLOPS: the paper's are 0.3 times a count that leaves out most convolutions; ours are PyTorch's count of one "
    "pass of 256x256 pixels"
)
UNKNOWN_MEAN = (
    "The paper does not say whether several sets are averaged by set or by image, so both are given"
)

Protocols = Mapping[str, str]
"""Metric -> definition, for one row of a table."""


@dataclass(frozen=True)
class Column:
    """A column: a metric of the images of one set or of several."""

    title: str
    sets: tuple[str, ...]
    metric: str

    @property
    def heading(self) -> str:
        """Heading with the number of sets, as the paper has it."""
        many = f" ({len(self.sets)} sets)" if len(self.sets) > 1 else ""
        return f"{self.title}{many} {METRICS[self.metric].title}"


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table of the paper."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[Protocols, ...]
    """Definitions of each row of an evaluation: the paper's first, then what its field reports."""
    has_cost: bool = False
    """Whether its last two columns are parameters and FLOPS."""


def _columns(metrics: str, **sets: Sequence[str]) -> tuple[Column, ...]:
    return tuple(
        Column(title.replace("_", " "), tuple(names), metric)
        for title, names in sets.items()
        for metric in metrics.split()
    )


def _in(protocol: str) -> Protocols:
    return {"psnr": protocol, "ssim": protocol}


REAL_BLUR = ("HIDE", "RealBlur-J", "RealBlur-R")
"""The sets of deblurring in Table 5, whose text does not say which of the three its figures are of."""
PAPER_TABLES = (
    PaperTable(
        name="table-1",
        columns=_columns(
            "psnr ssim",
            Deraining=GROUPS["table-1"][:5],
            Enhancement=("LOL",),
            Desnowing=("Snow100K-S", "Snow100K-L"),
            Dehazing=("SOTS-outdoor",),
            Deblurring=("GoPro",),
        ),
        rows=(_in("released-y"), _in("matlab-y"), _in("rgb")),
        has_cost=True,
    ),
    PaperTable(
        name="table-4",
        columns=_columns("psnr ssim lpips", TOLED=("TOLED",), POLED=("POLED",)),
        rows=({**_in("rgb-3d"), "lpips": "vgg-01"},),
    ),
    PaperTable(
        name="table-5",
        columns=(
            *_columns("niqe loe", Deraining=("Practical",), Enhancement=("MEF", "NPE", "DICM")),
            *_columns("niqe il-niqe", Desnowing=("Snow100K-realistic",)),
            *_columns("psnr ssim", Deblurring=REAL_BLUR),
        ),
        rows=(
            {**_in("released-y"), "niqe": "niqe-released", "loe": "loe-local-max", "il-niqe": "il-niqe"},
            {**_in("rgb"), "niqe": "niqe-matlab", "loe": "loe-resize", "il-niqe": "il-niqe-unresized"},
        ),
    ),
)


def paper_tables(
    images: Sequence[MeasuredImage], method: str, cost: Cost | None = None
) -> Iterator[tuple[str, Table]]:
    """Yield (name, table) of the tables of which an evaluation fills a column.

    method: name of its rows. cost: what the weights cost, None where that is not known. A column is filled only
    where all its sets were measured; a note says which others were.
    """
    by_set: dict[str, list[MeasuredImage]] = {}
    for image in images:
        by_set.setdefault(image.set_name, []).append(image)
    for table in PAPER_TABLES:
        rows = [row for protocols in table.rows for row in _own_rows(table, protocols, by_set, method, cost)]
        notes = list(_notes(table, by_set))
        if rows:
            yield table.name, _table(table, rows, notes)


def takes_cost(images: Sequence[MeasuredImage]) -> bool:
    """Whether a table with parameters and FLOPS is made of these images."""
    return any(name == "table-1" for name, _ in paper_tables(images, ""))


def _table(table: PaperTable, own: list[list[str]], notes: list[str]) -> Table:
    figures = _figures()[table.name]
    costs = ["Params (M)", "FLOPS (G)"] if table.has_cost else []
    published = [
        [f"{method}, {kind}", PUBLISHED, *("" if value == "-" else value for value in str(values).split())]
        for kind in ("task-specific", "universal")
        for method, values in figures[kind].items()
    ]
    return Table(
        title=f"{figures['title']}, the paper's figures and this evaluation's",
        headings=["method", "protocol", *(column.heading for column in table.columns), *costs],
        rows=[*published, *own],
        names=2,
        notes=[*notes, *[FLOPS_NOTE] * table.has_cost, INTERVALS],
    )


def _own_rows(
    table: PaperTable,
    protocols: Protocols,
    by_set: Mapping[str, Sequence[MeasuredImage]],
    method: str,
    cost: Cost | None,
) -> Iterator[list[str]]:
    """Yield the rows of an evaluation by one choice of definitions: none, one, or one for either kind of mean."""
    values = [_values(column, protocols, by_set) for column in table.columns]
    if not any(values):
        return
    used = {protocols[column.metric] for column, found in zip(table.columns, values, strict=True) if found}
    protocol = ", ".join(name for name in dict.fromkeys(protocols.values()) if name in used)
    costs = ["", ""] if cost is None else [f"{cost.parameters / 1e6:.2f}", f"{cost.gflop:.1f}"]
    kinds = {", mean of sets": mean_of_sets, ", mean of images": _mean_of_all}
    if not any(found is not None and len(found) > 1 for found in values):
        kinds = {"": mean_of_sets}
    for kind, mean in kinds.items():
        cells = [
            "" if found is None else mean(found).text(METRICS[column.metric].digits)
            for column, found in zip(table.columns, values, strict=True)
        ]
        yield [f"{method}{kind}", protocol, *cells, *costs[: 2 * table.has_cost]]


def _mean_of_all(sets: Sequence[Sequence[float]]) -> Mean:
    return mean_of_images(value for values in sets for value in values)


def _values(
    column: Column, protocols: Protocols, by_set: Mapping[str, Sequence[MeasuredImage]]
) -> list[list[float]] | None:
    """Return the values of each set of a column; None where a set has none."""
    measure = Measure(column.metric, protocols[column.metric])
    found = [columns(by_set.get(name, ()), measure)[1] for name in column.sets]
    return found if all(found) else None


def _notes(table: PaperTable, by_set: Mapping[str, Sequence[MeasuredImage]]) -> Iterator[str]:
    if any(len(c.sets) > 1 and all(name in by_set for name in c.sets) for c in table.columns):
        yield UNKNOWN_MEAN
    for names in dict.fromkeys(column.sets for column in table.columns):
        there = [name for name in names if name in by_set]
        if there and len(there) < len(names):
            verb = "were" if len(there) > 1 else "was"
            only = ", ".join(there)
            yield f"Of {', '.join(names)} only {only} {verb} measured, so their columns are empty"
        for name in there:
            benchmark = by_name(name)
            count = len(by_set[name])
            if benchmark is not None and benchmark.images not in (None, count):
                yield f"Of {name}, {count} of {benchmark.images:,} images were measured"


@cache
def _figures() -> dict[str, Any]:
    return dict(yaml.safe_load(FIGURES.read_text(encoding="utf-8")))
