"""The comparison of two finished evaluations: paired differences, a sign test, and the images that differ most."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from scipy import stats

from diffuir_core.errors import UserError
from diffuir_core.imaging import Pixels

from .. import storage
from ..text import counted
from .gallery import Card, card, page, photos_of
from .means import mean_of_images
from .measures import METRICS, Measure
from .report import Report, Settings
from .rows import FILE, MeasuredImage, read_images
from .tables import INTERVALS, Table, by_set, columns

PAGE = "compare.html"
HEADINGS = (
    *("set", "metric", "protocol", "images", "A", "B"),
    *("difference", "better", "worse", "equal", "p"),
)
CARDS = 12
"""Images that a page shows, or two of each set if that is more."""
NOTES = (
    "Difference: the mean over images of B minus A",
    INTERVALS,
    "p: two-sided sign test of as many images being better as worse; equal ones do not count",
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A finished evaluation as it lies in its folder."""

    folder: Path
    caption: str
    """Its settings on one line."""
    images: Mapping[str, MeasuredImage]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations, A and B, on the images that both measured."""

    a: Evaluation
    b: Evaluation
    pairs: Sequence[tuple[MeasuredImage, MeasuredImage]]
    """The same image in A and in B, of the same bytes."""
    left_out: Mapping[str, str]
    """{name: reason} of the other images."""

    def table(self) -> Table:
        """Return the paired differences of each set and measure."""
        rows = []
        others = {one.name: other for one, other in self.pairs}
        for set_name, measure, found in by_set([one for one, _ in self.pairs]):
            both = [image for image in found if others[image.name].score(measure) is not None]
            if both:
                rows.append(_row(set_name, measure, both, [others[image.name] for image in both]))
        return Table(
            title="Paired differences",
            headings=HEADINGS,
            rows=rows,
            names=3,
            notes=NOTES,
        )

    def most_different(self) -> list[tuple[MeasuredImage, MeasuredImage]]:
        """Return the pairs that differ most by the first measure of their set, as many of each set."""
        sets = dict.fromkeys(one.set_name for one, _ in self.pairs)
        each = max(2, CARDS // max(1, len(sets)))
        chosen = []
        for name in sets:
            members = [pair for pair in self.pairs if pair[0].set_name == name]
            chosen += sorted(members, key=lambda pair: -abs(_difference(*pair)))[:each]
        return chosen


def compare(a: Path, b: Path) -> Comparison:
    """Compare the evaluations in two folders.

    An image that only one of them measured, or whose degraded or true side has other bytes, is left out. Raises
    `UserError` for a folder without a finished evaluation, and for two that have no image in common.
    """
    one, other = _read(a), _read(b)
    pairs, left_out = [], {}
    for name in dict.fromkeys([*one.images, *other.images]):
        first, second = one.images.get(name), other.images.get(name)
        if first is None or second is None:
            left_out[name] = f"only {'B' if first is None else 'A'} measured it"
        elif (first.degraded_sha256, first.clean_sha256) != (second.degraded_sha256, second.clean_sha256):
            left_out[name] = "its photos are others in A than in B"
        elif not {s.measure for s in first.scores} & {s.measure for s in second.scores}:
            left_out[name] = "A and B measured it by other protocols"
        else:
            pairs.append((first, second))
    if not pairs:
        why = next(iter(left_out.values()), "neither has any")
        raise UserError(f"{a} and {b} have no image in common ({why}): evaluate both on the same sets")
    return Comparison(a=one, b=other, pairs=pairs, left_out=left_out)


def write_comparison(found: Comparison, folder: Path) -> Path:
    """Write the page of a comparison into `folder`, and return its file."""
    facts = [f"A: {found.a.folder}; {found.a.caption}", f"B: {found.b.folder}; {found.b.caption}"]
    if found.left_out:
        name, reason = next(iter(found.left_out.items()))
        facts.append(f"Left out: {counted(len(found.left_out), 'image')}, first {name}: {reason}.")
    text = page("B against A", facts, [found.table()], list(_cards(found)), "The images that differ most")
    storage.write_bytes(str(folder / PAGE), text.encode())
    return folder / PAGE


def _read(folder: Path) -> Evaluation:
    if not (folder / FILE).is_file() or not (folder / "results.json").is_file():
        raise UserError(
            f"{folder} holds no finished evaluation: name what diffuir evaluate was given as --out"
        )
    document = json.loads((folder / "results.json").read_bytes())
    settings = Settings(**{f.name: document[f.name] for f in fields(Settings) if f.name in document})
    images = {image.name: image for image in read_images(str(folder / FILE))}
    return Evaluation(folder=folder, caption=Report(settings=settings, images=()).caption(), images=images)


def _row(
    set_name: str, measure: Measure, a: Sequence[MeasuredImage], b: Sequence[MeasuredImage]
) -> list[str]:
    metric = METRICS[measure.metric]
    (_, first), (_, second) = columns(a, measure), columns(b, measure)
    differences = [0.0 if x == y else y - x for x, y in zip(first, second, strict=True)]
    signs = [d if metric.rises else -d for d in differences]
    better, worse = sum(s > 0 for s in signs), sum(s < 0 for s in signs)
    p = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    return [
        set_name,
        metric.title,
        measure.protocol,
        str(len(a)),
        *(replace(mean_of_images(v), half_width=None).text(metric.digits) for v in (first, second)),
        mean_of_images(differences).text(metric.digits, signed=True),
        *map(str, (better, worse, len(signs) - better - worse)),
        f"{p:.3g}",
    ]


def _difference(a: MeasuredImage, b: MeasuredImage) -> float:
    """Return B minus A by the first measure of both, 0 where they are equal."""
    for score in a.scores:
        other = b.score(score.measure)
        if other is not None:
            return 0.0 if score.after == other.after else other.after - score.after
    return 0.0


def _cards(found: Comparison) -> Iterator[Card]:
    for one, other in found.most_different():
        facts = []
        for score in one.scores:
            second = other.score(score.measure)
            if second is not None:
                metric = METRICS[score.measure.metric]
                values = f"A {score.after:.{metric.digits}f}, B {second.after:.{metric.digits}f}"
                facts.append(f"{metric.title} by {score.measure.protocol}: {values}")
        photos: dict[str, Pixels] = {}
        try:
            photos["degraded"], photos["A"], clean = photos_of(one, found.a.folder)
            _, photos["B"], _ = photos_of(other, found.b.folder)
        except UserError as error:
            yield Card(name=one.name, facts=[*facts, str(error)])
            continue
        if clean is not None:
            photos["truth"] = clean
        yield card(one.name, facts, photos, ("A", "B"))
