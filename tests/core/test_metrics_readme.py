"""The README of the metrics says of each definition what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import diffuir_core.metrics
from diffuir_core.metrics import IL_NIQE_VARIANTS, LOE_VARIANTS, NIQE_VARIANTS, PROTOCOLS
from diffuir_core.metrics.cost import PAPER_COST, cost
from diffuir_core.metrics.lpips import BACKBONES, LPIPS_VARIANTS
from diffuir_core.variants import VARIANTS

PAGE = (Path(diffuir_core.metrics.__file__).parent / "README.md").read_text(encoding="utf-8")
CHANNELS = {"Y": "y", "R, G, B": "rgb", "grey (`rgb2gray`)": "grey"}
BORDERS = {"last pixel repeated": "replicate", "inside only": "valid"}
WINDOWS = {"11x11, each channel": "2d", "11x11x11 over height, width and channels": "3d"}


def rows(first_heading: str, nth: int = 0) -> list[list[str]]:
    """The rows of the nth table whose first heading is that."""
    tables = re.findall(rf"^\| {first_heading} \|.*\n\|[-:|]+\|\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    lines = tables[nth].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_protocols_is_that_of_the_code() -> None:
    shown = rows("protocol")
    assert [name.strip("`") for name, *_ in shown] == list(PROTOCOLS)
    for row, protocol in zip(shown, PROTOCOLS.values(), strict=True):
        _, channel, rounded, borders, window, crop, source = row
        assert CHANNELS[channel] == protocol.channel
        assert (rounded == "to whole levels") is protocol.rounded
        assert BORDERS[borders] == protocol.borders
        assert WINDOWS[window] == protocol.window
        assert int(crop) == protocol.crop
        assert source == protocol.source


def test_every_definition_is_named_and_explained() -> None:
    assert [name.strip("`") for name, *_ in rows("metric")] == [
        *NIQE_VARIANTS,
        *IL_NIQE_VARIANTS,
        *LOE_VARIANTS,
    ]
    for names, backbone, linear in rows("variant"):
        for name in re.findall(r"`([\w-]+)`", names):
            published = BACKBONES[LPIPS_VARIANTS[name].backbone]
            assert published.file.name in backbone
            assert f"`{published.linear.name}`" in linear


@pytest.mark.parametrize("row", rows("variant", 1), ids=lambda row: row[0])
def test_the_costs_are_those_of_the_code(row: list[str]) -> None:
    name, parameters, paper_parameters, gflop, published, paper_flops = row
    found, paper = cost(name), PAPER_COST[name]
    assert int(parameters.replace(",", "")) == found.parameters
    assert float(gflop) == round(found.gflop, 1)
    assert float(published) == VARIANTS[name].gflop_256
    assert (float(paper_parameters), float(paper_flops)) == (paper.parameters_m, paper.flops_g)
