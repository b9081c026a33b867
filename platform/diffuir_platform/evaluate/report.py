"""The report of a benchmark: scores as objects, as a table for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from rich.table import Table
from rich.text import Text

from diffuir_core.metrics import Channel

from .. import storage
from ..text import json_values, markdown_table

HEADINGS = ("set", "images", "PSNR before", "PSNR after", "gain", "SSIM before", "SSIM after")


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """Scores of one pair against its clean picture, before and after: PSNR in dB, SSIM in [-1, 1]."""

    set_name: str
    key: str
    psnr_before: float
    psnr_after: float
    ssim_before: float
    ssim_after: float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a benchmark: how the pictures are restored, and the channel on which they are measured."""

    weights: str
    steps: int
    seed: int
    precision: str
    guard: str = "off"
    channel: Channel = "y"


@dataclass(frozen=True, kw_only=True)
class SetSummary:
    """Mean scores of the images of one set: PSNR and gain in dB, SSIM in [-1, 1]."""

    name: str
    images: int
    psnr_before: float
    psnr_after: float
    gain: float
    ssim_before: float
    ssim_after: float

    def cells(self) -> tuple[str, ...]:
        """Return its row of a table, in the order of HEADINGS."""
        return (
            self.name,
            str(self.images),
            f"{self.psnr_before:.2f}",
            f"{self.psnr_after:.2f}",
            f"{self.gain:+.2f}",
            f"{self.ssim_before:.4f}",
            f"{self.ssim_after:.4f}",
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """A benchmark: its settings, the scores of every pair, and {pair name: reason} of failures."""

    settings: Settings
    images: Sequence[PairScores]
    failed: dict[str, str] = field(default_factory=dict)

    def sets(self) -> list[SetSummary]:
        """Return the mean scores of each set, in the order of its first image."""
        names = dict.fromkeys(image.set_name for image in self.images)
        return [summarise(name, [i for i in self.images if i.set_name == name]) for name in names]

    def caption(self) -> str:
        """Return the settings as one line."""
        how, on = self.settings, "Y" if self.settings.channel == "y" else "RGB"
        made = f"weights {how.weights}, {how.steps} steps, seed {how.seed}, {how.precision}"
        made += ", guarded" if how.guard == "on" else ""
        return f"{made}; PSNR (dB) and SSIM on {on}"


def summarise(name: str, images: Sequence[PairScores]) -> SetSummary:
    """Return the mean scores of `images`, at least one; the gain is the difference of the two mean PSNRs."""
    before, after = (fmean(getattr(i, f"psnr_{when}") for i in images) for when in ("before", "after"))
    return SetSummary(
        name=name,
        images=len(images),
        psnr_before=before,
        psnr_after=after,
        gain=0.0 if before == after else after - before,
        ssim_before=fmean(i.ssim_before for i in images),
        ssim_after=fmean(i.ssim_after for i in images),
    )


def terminal_table(summaries: Sequence[SetSummary], first: str = "set", title: str | None = None) -> Table:
    """Return a table for the terminal with one row for each set; first: heading of the column of names."""
    # Text objects, as rich would take brackets in a name for markup.
    table = Table(title=Text(title) if title else None, title_justify="left")
    for index, heading in enumerate((first, *HEADINGS[1:])):
        table.add_column(heading.replace(" ", "\n"), justify="right" if index else "left", vertical="bottom")
    for summary in summaries:
        table.add_row(*(Text(cell) for cell in summary.cells()))
    return table


def markdown_report(report: Report) -> str:
    """Return the table in Markdown, with the settings above it and the failures below."""
    table = markdown_table(HEADINGS, [summary.cells() for summary in report.sets()], left=1)
    lines = [report.caption(), "", table]
    if report.failed:
        lines += ["", "Not measured:", "", *(f"- {name}: {reason}" for name, reason in report.failed.items())]
    return "\n".join(lines) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Write `table.md` and `results.json` (means of each set, scores of each image) into `folder`, atomically
    each.

    JSON has no infinity: the PSNR of two equal images is the string "inf".
    """
    document = {
        **asdict(report.settings),
        "sets": [json_values(asdict(s)) for s in report.sets()],
        "images": [json_values(asdict(i)) for i in report.images],
        "failed": report.failed,
    }
    results = json.dumps(document, indent=2, allow_nan=False) + "\n"
    storage.write_bytes(str(folder / "table.md"), markdown_report(report).encode())
    storage.write_bytes(str(folder / "results.json"), results.encode())
