"""`diffuir restore --explain`: the plan for each photo, from its header alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import rich.table

from diffuir_core import Restorer
from diffuir_core.errors import UserError
from diffuir_core.imaging import Limits, inspect
from diffuir_core.memory_plan import Plan, pixels_per_step

from ..inference import fetch_weights
from ..text import one_line, size_text
from .inputs import Item
from .listing import items_at
from .settings import RestoreOptions
from .stages import read_input

SHOWN_AT_MOST = 100
"""Most photos of a collection that are explained."""

SAMPLE_SIDE = 256
"""Side of the image that is restored to measure the speed of this machine, pixels."""


@dataclass(frozen=True)
class Explanation:
    """The plan for one photo, or the reason why it would fail."""

    key: str
    format: str = ""
    width: int = 0
    height: int = 0
    plan: Plan | None = None
    seconds: float = 0.0
    reason: str = ""


def explain(
    source: str, target: str, options: RestoreOptions
) -> tuple[Restorer, Iterator[Explanation], bool]:
    """Return the restorer that would be used, explanations of the first photos, and whether there are more photos.

    Writes nothing and starts no Ray. Raises `UserError` as `restore` does, and for another restorer than DiffUIR.
    """
    if options.restorer is not None:
        raise UserError(
            "--explain knows the memory and speed of DiffUIR only: leave out --restorer, or use --plan"
        )
    weights = fetch_weights(options.weights)
    options.check_device()
    found = items_at(source, target, options)
    first = list(islice(found, SHOWN_AT_MOST))
    with weights.as_file() as file:
        restorer = options.diffuir(file)
    per_pixel = seconds_per_pixel(restorer)
    more = next(found, None) is not None
    limits = Limits.for_pixels(options.max_pixels)
    return restorer, (_explained(item, restorer, per_pixel, limits) for item in first), more


def seconds_per_pixel(restorer: Restorer) -> float:
    """Measure the restorer's seconds per pixel on a small image, after one restore to warm up."""
    image = np.random.default_rng(0).integers(0, 256, (SAMPLE_SIDE, SAMPLE_SIDE, 3), dtype=np.uint8)
    restorer.restore([image])
    began = time.perf_counter()
    restorer.restore([image])
    return (time.perf_counter() - began) / SAMPLE_SIDE**2


def _explained(item: Item, restorer: Restorer, per_pixel: float, limits: Limits) -> Explanation:
    try:
        header = inspect(read_input(item, limits), limits)
    except UserError as error:
        return Explanation(item.key, reason=item.reason or str(error))
    how = restorer.plan(header.height, header.width)
    seconds = per_pixel * pixels_per_step(how, header.height, header.width)
    format = header.format if item.format is None else f"{header.format} to {item.format}"
    return Explanation(item.key, format, header.width, header.height, how, seconds)


def explanation_table(explanations: Iterable[Explanation]) -> rich.table.Table:
    """Return a table with one row for each photo."""
    table = rich.table.Table(
        "photo", "format", "size", "how", "memory", "free", "about", box=None, pad_edge=False
    )
    for explanation in explanations:
        key = one_line(explanation.key)
        if explanation.plan is None:
            table.add_row(key, "", "", f"fails: {explanation.reason}")
            continue
        table.add_row(
            key,
            explanation.format,
            size_text(explanation.width, explanation.height),
            str(explanation.plan.tiling or "whole"),
            _gib(explanation.plan.needed),
            _gib(explanation.plan.available),
            f"{explanation.seconds:.1f} s",
        )
    return table


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
