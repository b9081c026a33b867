"""What a benchmark found, as objects, a table on the terminal, Markdown and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from rich.table import Table
from rich.text import Text

from diffuir_core.files import replacing
from diffuir_core.metrics import Channel

HEADINGS = ("set", "images", "PSNR before", "PSNR after", "gain", "SSIM before", "SSIM after")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One pair, measured against its clean picture: PSNR in dB, SSIM in [-1, 1]."""

    set_name: str
    key: str
    psnr_before: float
    psnr_after: float
    ssim_before: float
    ssim_after: float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the pictures are restored, for the record, and on what they are measured."""

    weights: str
    steps: int
    seed: int
    precision: str
    channel: Channel = "y"


@dataclass(frozen=True, kw_only=True)
class SetSummary:
    """Means over the images of one set: PSNR and gain in dB, SSIM in [-1, 1]."""

    name: str
    images: int
    psnr_before: float
    psnr_after: float
    gain: float
    ssim_before: float
    ssim_after: float

    def cells(self) -> tuple[str, ...]:
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
    """A whole run: how it was made, every image measured, and what failed (path: reason)."""

    settings: Settings
    images: Sequence[Measured]
    failed: dict[str, str] = field(default_factory=dict)

    def sets(self) -> list[SetSummary]:
        names = dict.fromkeys(image.set_name for image in self.images)
        return [summarise(name, [i for i in self.images if i.set_name == name]) for name in names]

    def caption(self) -> str:
        how, on = self.settings, "Y" if self.settings.channel == "y" else "RGB"
        made = f"weights {how.weights}, {how.steps} steps, seed {how.seed}, {how.precision}"
        return f"{made}; PSNR (dB) and SSIM on {on}"


def summarise(name: str, images: Sequence[Measured]) -> SetSummary:
    """Means over `images` (at least one); the gain is the difference of the two mean PSNRs."""
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
    """The table for a terminal, one row a set; `first` heads the column of names."""
    # Texts, not strings: a name may hold what rich takes for markup.
    table = Table(title=Text(title) if title else None, title_justify="left")
    for index, heading in enumerate((first, *HEADINGS[1:])):
        table.add_column(heading.replace(" ", "\n"), justify="right" if index else "left", vertical="bottom")
    for summary in summaries:
        table.add_row(*(Text(cell) for cell in summary.cells()))
    return table


def markdown(report: Report) -> str:
    """The same table in Markdown, with the settings above it and the failures below."""
    rows = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *(s.cells() for s in report.sets())]
    lines = [report.caption(), "", *("| " + " | ".join(row) + " |" for row in rows)]
    if report.failed:
        lines += ["", "Not measured:", "", *(f"- {name}: {reason}" for name, reason in report.failed.items())]
    return "\n".join(lines) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Writes `table.md` and `results.json` (means per set, every image) into `folder`, each by a rename.

    JSON has no infinity: the PSNR of two equal images is the string "inf".
    """
    document = {
        **asdict(report.settings),
        "sets": [_finite(asdict(s)) for s in report.sets()],
        "images": [_finite(asdict(i)) for i in report.images],
        "failed": report.failed,
    }
    write_text(folder / "table.md", markdown(report))
    write_text(folder / "results.json", json.dumps(document, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text by a rename."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _finite(values: dict[str, object]) -> dict[str, object]:
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
