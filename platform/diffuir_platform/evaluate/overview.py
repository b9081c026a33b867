"""The page of an evaluation: its tables, and of each set the images that gained most and least."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from diffuir_core.errors import UserError

from .. import storage
from .gallery import Card, card, page, photos_of
from .measures import METRICS
from .report import Report
from .rows import MeasuredImage
from .tables import Table, set_table

PAGE = "report.html"


def write_page(report: Report, folder: Path, tables: Iterable[Table]) -> None:
    """Write the page of an evaluation into its folder, which holds the restored photos."""
    facts = [report.caption(), *report.note_lines()]
    rows = [[name, reason] for name, reason in report.failed.items()]
    failed = Table(title="Not measured", headings=("what", "why"), rows=rows, names=2)
    shown = [set_table(report.measured), *tables, *([failed] if rows else [])]
    text = page(
        "Evaluation", facts, shown, _cards(report, folder), "The most and the least gained of each set"
    )
    storage.write_bytes(str(folder / PAGE), text.encode())


def _cards(report: Report, folder: Path) -> Iterator[Card]:
    for name in dict.fromkeys(image.set_name for image in report.measured):
        members = sorted(
            (image for image in report.measured if image.set_name == name), key=_gain, reverse=True
        )
        for image in dict.fromkeys((members[0].name, members[-1].name)):
            (found,) = (one for one in members if one.name == image)
            yield _card(found, folder)


def _gain(image: MeasuredImage) -> float:
    """Return what an image gained by its first measure; of one without a value before, minus its value."""
    score = image.scores[0]
    if score.before is None:
        return -score.after
    gain = 0.0 if score.before == score.after else score.after - score.before
    return gain if METRICS[score.measure.metric].rises else -gain


def _card(image: MeasuredImage, folder: Path) -> Card:
    facts = []
    for score in image.scores:
        metric = METRICS[score.measure.metric]
        before = "" if score.before is None else f"{score.before:.{metric.digits}f} before, "
        facts.append(
            f"{metric.title} by {score.measure.protocol}: {before}{score.after:.{metric.digits}f} after"
        )
    try:
        degraded, restored, clean = photos_of(image, folder)
    except UserError as error:
        facts.append(str(error))
        return Card(name=image.name, facts=facts)
    photos = {"degraded": degraded, "restored": restored} | ({} if clean is None else {"truth": clean})
    return card(image.name, facts, photos, ("degraded", "restored"))
