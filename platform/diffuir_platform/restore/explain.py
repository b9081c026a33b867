"""`diffuir restore --explain`: what would be done to each photo, from its header alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import rich.table

from diffuir_core import Restorer
from diffuir_core.errors import UserError
from diffuir_core.imaging import inspect
from diffuir_core.planning import Plan, pixels_of

from ..inference import fetch_weights
from ..text import one_line
from .inputs import Item
from .run import check_device, items_at
from .settings import RestoreOptions
from .stages import read_input

SHOWN_AT_MOST = 100
"""Photos of a folder that are looked at."""

SAMPLE_SIDE = 256
"""Side of the image whose time tells the machine's, in pixels."""


@dataclass(frozen=True)
class Explanation:
    """What would be done to one photo, or the reason why nothing would."""

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
    """The restorer that would be used, each of the first photos explained, and whether there are more.

    Writes nothing and starts no Ray. Raises UserError as `restore` does.
    """
    weights = fetch_weights(options.weights)
    check_device(options)
    found = items_at(source, target, options)
    first = list(islice(found, SHOWN_AT_MOST))
    with weights.as_file() as file:
        restorer = options.restorer(file)
    per_pixel = seconds_per_pixel(restorer)
    more = next(found, None) is not None
    return restorer, (_explained(item, restorer, per_pixel) for item in first), more


def seconds_per_pixel(restorer: Restorer) -> float:
    """How long the restorer takes, by restoring a small image twice: the first time everything is set up."""
    image = np.random.default_rng(0).integers(0, 256, (SAMPLE_SIDE, SAMPLE_SIDE, 3), dtype=np.uint8)
    restorer.restore([image])
    began = time.perf_counter()
    restorer.restore([image])
    return (time.perf_counter() - began) / SAMPLE_SIDE**2


def _explained(item: Item, restorer: Restorer, per_pixel: float) -> Explanation:
    try:
        header = inspect(read_input(item))
    except UserError as error:
        return Explanation(item.key, reason=item.reason or str(error))
    how = restorer.plan(header.height, header.width)
    seconds = per_pixel * pixels_of(how, header.height, header.width)
    format = header.format if item.format is None else f"{header.format} to {item.format}"
    return Explanation(item.key, format, header.width, header.height, how, seconds)


def explanation_table(explanations: Iterable[Explanation]) -> rich.table.Table:
    """A line for each photo."""
    table = rich.table.Table(
        "photo", "format", "size", "how", "memory", "free", "about", box=None, pad_edge=False
    )
    for one in explanations:
        key = one_line(one.key)
        if one.plan is None:
            table.add_row(key, "", "", f"fails: {one.reason}")
            continue
        table.add_row(
            key,
            one.format,
            f"{one.width}x{one.height}",
            str(one.plan.tiling or "whole"),
            _gib(one.plan.needed),
            _gib(one.plan.available),
            f"{one.seconds:.1f} s",
        )
    return table


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
