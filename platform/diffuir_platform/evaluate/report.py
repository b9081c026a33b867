"""The report of an evaluation: scores as objects, as a table for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import rich.table
from rich.text import Text

from diffuir_core.metrics import DEFAULT_PROTOCOL, ProtocolName, mean_psnr

from .. import storage
from ..text import counted, json_values, markdown_table
from .measures import METRICS
from .rows import MeasuredImage
from .tables import Table, set_table

NAMES = 2
"""Leading columns of a table that hold names."""
HEADINGS = ("set", "protocol", "images", "PSNR before", "PSNR after", "gain", "SSIM before", "SSIM after")


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """Scores of one pair against its clean picture, before and after: PSNR in dB, SSIM in [-1, 1]."""

    set_name: str
    key: str
    protocol: ProtocolName
    psnr_before: float
    psnr_after: float
    ssim_before: float
    ssim_after: float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of an evaluation: how the pictures are restored, and how they are measured."""

    restorer: str | None = None
    """Name of another restorer than DiffUIR."""
    weights: str
    """Name of the weights, for people."""
    steps: int | None
    """Sampling steps; None for those of each benchmark."""
    seed: int
    precision: str
    guard: str = "off"
    protocol: ProtocolName | None = DEFAULT_PROTOCOL
    """Definition of PSNR and SSIM; None for those of each benchmark."""
    benchmarks: str | None = None
    """Names of the benchmarks; None for a folder."""
    weights_sha256: str = ""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the files that metrics need, by their setting."""
    restore: dict[str, Any] = field(default_factory=dict)
    """All settings of the restore that its results depend on."""


@dataclass(frozen=True, kw_only=True)
class SetSummary:
    """Mean scores of the images of one set by one protocol: PSNR and gain in dB, SSIM in [-1, 1].

    Images that equal their truth, whose PSNR is infinite, are left out of a mean of PSNRs and counted.
    """

    name: str
    protocol: ProtocolName
    images: int
    equal_before: int
    equal_after: int
    psnr_before: float
    psnr_after: float
    gain: float
    ssim_before: float
    ssim_after: float

    def cells(self) -> tuple[str, ...]:
        """Return its row of a table, in the order of HEADINGS."""
        return (
            self.name,
            self.protocol,
            str(self.images),
            _psnr_cell(self.psnr_before, self.equal_before),
            _psnr_cell(self.psnr_after, self.equal_after),
            f"{self.gain:+.2f}",
            f"{self.ssim_before:.4f}",
            f"{self.ssim_after:.4f}",
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """An evaluation: its settings, the scores of every pair, {name: reason} of failures, and {name: note} of what
    was measured although something is wrong with it."""

    settings: Settings
    images: Sequence[PairScores]
    """PSNR and SSIM, a row for each pair and protocol."""
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    measured: Sequence[MeasuredImage] = ()
    """All scores of every image."""

    def sets(self) -> list[SetSummary]:
        """Return the mean scores of each set by each protocol, in the order of its first image."""
        members: dict[tuple[str, str], list[PairScores]] = {}
        for image in self.images:
            members.setdefault((image.set_name, image.protocol), []).append(image)
        return [summarise(name, images) for (name, _), images in members.items()]

    def others(self) -> Table | None:
        """Return the table of the metrics that are not PSNR and SSIM; None where none was measured."""
        table = set_table(self.measured)
        titles = {METRICS[metric].title for metric in ("psnr", "ssim")}
        rows = [row for row in table.rows if row[1] not in titles]
        return replace(table, title="Lower is better", rows=rows) if rows else None

    def note_lines(self) -> list[str]:
        """Return each note as one line, with the sets that have it, or the first of its pairs and their number."""
        sets = {one.set_name for one in self.measured}
        lines = []
        for note, names in by_note(self.notes).items():
            pairs = [name for name in names if name not in sets]
            who = f"{counted(len(pairs), 'pair')}, first {pairs[0]}" if pairs else ", ".join(names)
            lines.append(f"{who}: {note}")
        return lines

    def caption(self) -> str:
        """Return the settings as one line."""
        how = self.settings
        steps = "steps of each benchmark" if how.steps is None else counted(how.steps, "step")
        made = f"weights {how.weights}, {steps}, seed {how.seed}, {how.precision}"
        made += ", guarded" if how.guard == "on" else ""
        if how.restorer is not None:
            made = f"restorer {how.restorer}, weights {how.weights}"
        if self.measured and not self.images:
            return made
        return f"{made}; PSNR (dB) and SSIM by {how.protocol or 'the protocol of each row'}"


def summarise(name: str, images: Sequence[PairScores]) -> SetSummary:
    """Return the mean scores of `images`, at least one, all by one protocol; else it raises ValueError.

    The gain is the mean of those images that equal their truth neither before nor after, or both times (0 dB).
    """
    (protocol,) = {image.protocol for image in images}
    before, after = (mean_psnr(getattr(i, f"psnr_{when}") for i in images) for when in ("before", "after"))
    gains = [0.0 if i.psnr_before == i.psnr_after else i.psnr_after - i.psnr_before for i in images]
    return SetSummary(
        name=name,
        protocol=protocol,
        images=len(images),
        equal_before=before.equal,
        equal_after=after.equal,
        psnr_before=before.value,
        psnr_after=after.value,
        gain=mean_psnr(gains).value,
        ssim_before=fmean(i.ssim_before for i in images),
        ssim_after=fmean(i.ssim_after for i in images),
    )


def _psnr_cell(mean: float, equal: int) -> str:
    if math.isinf(mean):
        return "equal"
    return f"{mean:.2f} and {equal} equal" if equal else f"{mean:.2f}"


def by_note(notes: Mapping[str, str]) -> dict[str, list[str]]:
    """Return {note: names of the pairs that have it}, as a whole set may have the same."""
    found: dict[str, list[str]] = {}
    for name, note in notes.items():
        found.setdefault(note, []).append(name)
    return found


def terminal_table(
    summaries: Sequence[SetSummary], first: str = "set", title: str | None = None
) -> rich.table.Table:
    """Return a table for the terminal with one row for each set; first: heading of the column of names."""
    # Text objects, as rich would take brackets in a name for markup.
    table = rich.table.Table(title=Text(title) if title else None, title_justify="left")
    for index, heading in enumerate((first, *HEADINGS[1:])):
        table.add_column(
            heading.replace(" ", "\n"),
            justify="left" if index < NAMES else "right",
            vertical="bottom",
            overflow="fold",
        )
    for summary in summaries:
        table.add_row(*(Text(cell) for cell in summary.cells()))
    return table


def markdown_report(report: Report) -> str:
    """Return the table in Markdown, with the settings above it and failures and notes below."""
    lines = [report.caption(), ""]
    if report.images or not report.measured:
        lines.append(markdown_table(HEADINGS, [summary.cells() for summary in report.sets()], left=NAMES))
    if (others := report.others()) is not None:
        lines += ["", others.markdown()] if report.images else [others.markdown()]
    if report.failed:
        lines += ["", "Not measured:", "", *(f"- {name}: {reason}" for name, reason in report.failed.items())]
    if report.notes:
        lines += ["", "Notes:", ""]
        lines += [f"- {note}: {', '.join(names)}" for note, names in by_note(report.notes).items()]
    return "\n".join(lines) + "\n"


def write_report(report: Report, folder: Path, tables: Mapping[str, Table] | None = None) -> None:
    """Write `table.md`, `results.json` (means of each set, scores of each image) and `tables/` into `folder`,
    atomically each.

    tables: those of the paper, by name; each table, and that of all sets, is written as Markdown, CSV and LaTeX.
    JSON has no infinity: the PSNR of two equal images is the string "inf".
    """
    document = {
        **asdict(report.settings),
        "sets": [json_values(asdict(s)) for s in report.sets()],
        "images": [json_values(asdict(i)) for i in report.images],
        "failed": report.failed,
        "notes": report.notes,
    }
    results = json.dumps(document, indent=2, allow_nan=False) + "\n"
    storage.write_bytes(str(folder / "table.md"), markdown_report(report).encode())
    storage.write_bytes(str(folder / "results.json"), results.encode())
    for name, table in {"sets": set_table(report.measured), **(tables or {})}.items():
        for ending, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
            storage.write_bytes(str(folder / "tables" / f"{name}.{ending}"), text.encode())
