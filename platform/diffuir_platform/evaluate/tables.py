"""Tables as Markdown, CSV and LaTeX, and the table of the sets of an evaluation."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import rich.table
from rich.text import Text

from ..text import markdown_table
from .means import Mean, mean_of_images
from .measures import METRICS, Measure
from .rows import MeasuredImage

INTERVALS = "± is half of the 95% confidence interval over images, by Student's t"
SET_HEADINGS = ("set", "metric", "protocol", "images", "before", "after", "gain")
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "†": "$\\dagger$",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int
    """Leading columns that hold names, and are aligned to the left."""
    notes: Sequence[str] = ()
    """Sentences below it."""

    def terminal(self) -> rich.table.Table:
        """Return it for the terminal."""
        # Text objects, as rich would take brackets in a name for markup.
        table = rich.table.Table(title=Text(self.title), title_justify="left")
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if index < self.names else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def markdown(self) -> str:
        """Return it as Markdown, with its title above and its notes below."""
        parts = [
            f"**{self.title}**",
            markdown_table(self.headings, self.rows, left=self.names),
            *self.notes,
        ]
        return "\n\n".join(parts) + "\n"

    def csv(self) -> str:
        """Return headings and rows as CSV (RFC 4180)."""
        file = io.StringIO()
        csv.writer(file).writerows([self.headings, *self.rows])
        return file.getvalue()

    def latex(self) -> str:
        """Return it as LaTeX that needs no package."""
        columns = "l" * self.names + "r" * (len(self.headings) - self.names)
        lines = [
            "\\begin{table}",
            f"\\caption{{{_escaped('. '.join([self.title, *self.notes]))}.}}",
            f"\\begin{{tabular}}{{{columns}}}",
            "\\hline",
            _latex_row(self.headings),
            "\\hline",
            *map(_latex_row, self.rows),
            "\\hline",
            "\\end{tabular}",
            "\\end{table}",
        ]
        return "\n".join(lines) + "\n"


def set_table(images: Sequence[MeasuredImage]) -> Table:
    """Return the table of all sets: a row for each set and measure, with its means before and after."""
    rows = []
    for set_name, measure, found in by_set(images):
        metric = METRICS[measure.metric]
        before, after = (mean_of_images(values) if values else None for values in columns(found, measure))
        gain = gain_of(found, measure)
        cells = [_cell(before, metric.digits), _cell(after, metric.digits), _cell(gain, metric.digits, True)]
        rows.append([set_name, metric.title, measure.protocol, str(len(found)), *cells])
    return Table(
        title="All sets, before and after",
        headings=SET_HEADINGS,
        rows=rows,
        names=3,
        notes=(INTERVALS,),
    )


def by_set(images: Sequence[MeasuredImage]) -> Iterable[tuple[str, Measure, list[MeasuredImage]]]:
    """Yield (set, measure, its images) of all sets and measures, in the order of the images."""
    for name in dict.fromkeys(image.set_name for image in images):
        members = [image for image in images if image.set_name == name]
        for measure in dict.fromkeys(score.measure for image in members for score in image.scores):
            yield name, measure, [image for image in members if image.score(measure) is not None]


def columns(images: Iterable[MeasuredImage], measure: Measure) -> tuple[list[float], list[float]]:
    """Return the values of images before (none of a measure without them) and after."""
    scores = [score for image in images if (score := image.score(measure)) is not None]
    return [s.before for s in scores if s.before is not None], [s.after for s in scores]


def gain_of(images: Iterable[MeasuredImage], measure: Measure) -> Mean | None:
    """Return the mean of what images gain, paired; None where there is no value before.

    Images that equal their truth before and after gain nothing; those that do once are left out and counted.
    """
    before, after = columns(images, measure)
    if not before:
        return None
    return mean_of_images(0.0 if a == b else b - a for a, b in zip(before, after, strict=True))


def _cell(mean: Mean | None, digits: int, signed: bool = False) -> str:
    return "" if mean is None else mean.text(digits, signed)


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(_escaped, cells))} \\\\"


def _escaped(text: str) -> str:
    return re.sub(r"[&%$#_{}\\~^±†]", lambda sign: _LATEX[sign[0]], " ".join(text.split()))
