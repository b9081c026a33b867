"""The paper's tables with an evaluation's rows in them, and means with their intervals."""

from __future__ import annotations

import csv
import io
import math
from statistics import fmean, stdev

import pytest
from scipy import stats

from diffuir_core.metrics.cost import Cost
from diffuir_platform.evaluate.benchmarks import GROUPS
from diffuir_platform.evaluate.means import mean_of_images, mean_of_sets
from diffuir_platform.evaluate.measures import Measure, Score, blind, fidelity
from diffuir_platform.evaluate.paper_tables import PAPER_TABLES, PUBLISHED, paper_tables
from diffuir_platform.evaluate.rows import MeasuredImage
from diffuir_platform.evaluate.sets import Side
from diffuir_platform.evaluate.tables import Table, set_table

COST = Cost(variant="T", height=256, width=256, parameters=886_435, gflop=37.5, seconds=None, paper=None)


def image(set_name: str, key: str, value: float, *measures: Measure) -> MeasuredImage:
    """An image with `value` by every measure after, and 10 less before."""
    scores = tuple(Score(measure=m, before=value - 10, after=value) for m in measures)
    return MeasuredImage(
        set_name=set_name,
        key=key,
        scores=scores,
        width=1,
        height=1,
        weights_sha256="",
        steps=3,
        equalise=False,
        seconds=None,
        degraded_sha256="",
        clean_sha256=None,
        degraded=Side(uri="a"),
        clean=None,
        restored=(),
    )


def rain(*counts: int) -> list[MeasuredImage]:
    """Images of the five sets of rain; image k of set s has the PSNR 20 + s + k."""
    return [
        image(name, str(k), 20 + s + k, *fidelity("released-y", "matlab-y"))
        for s, (name, count) in enumerate(zip(GROUPS["table-1"][:5], counts, strict=True))
        for k in range(count)
    ]


def own_rows(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.headings, row, strict=True)) for row in table.rows if row[1] != PUBLISHED]


def test_an_interval_is_that_of_student() -> None:
    values = [20.0, 21.5, 19.0, 24.0]
    mean = mean_of_images([*values, math.inf])
    assert mean.value == fmean(values)
    expected = stats.t.interval(0.95, 3, loc=fmean(values), scale=stdev(values) / 2)
    assert mean.half_width == pytest.approx(expected[1] - fmean(values))
    assert mean.text(2) == f"21.12 ± {mean.half_width:.2f} and 1 equal"
    assert mean_of_images([20.0]).half_width is None
    assert mean_of_images([math.inf]).text(2) == "equal"
    assert mean_of_images([3.0, 3.0]).half_width == 0


def test_a_mean_of_sets_weighs_each_set_alike() -> None:
    sets = [[10.0, 12.0], [20.0, 20.5, 21.0, 20.1]]
    mean = mean_of_sets(sets)
    assert mean.value == fmean(map(fmean, sets))
    assert mean.images == 6
    # Welch's interval of the difference of two means has the same width as that of their sum.
    welch = stats.ttest_ind(*sets, equal_var=False).confidence_interval()
    assert mean.half_width == pytest.approx((welch.high - welch.low) / 4)


def test_five_sets_are_averaged_both_ways_and_every_row_names_its_protocol() -> None:
    ((name, table),) = paper_tables(rain(2, 2, 2, 2, 8), "ours", COST)
    assert name == "table-1"
    rows = own_rows(table)
    assert [(row["method"], row["protocol"]) for row in rows] == [
        (f"ours, mean of {what}", protocol)
        for protocol in ("released-y", "matlab-y")
        for what in ("sets", "images")
    ]
    by_set, by_image = rows[0]["Deraining (5 sets) PSNR"], rows[1]["Deraining (5 sets) PSNR"]
    assert by_set.startswith(f"{(20.5 + 21.5 + 22.5 + 23.5 + 27.5) / 5:.2f} ± ")
    assert by_image.startswith(f"{(2 * (20.5 + 21.5 + 22.5 + 23.5) + 8 * 27.5) / 16:.2f} ± ")
    assert {row["Enhancement PSNR"] for row in rows} == {""}
    assert {(row["Params (M)"], row["FLOPS (G)"]) for row in rows} == {("0.89", "37.5")}
    assert any("so both are given" in note for note in table.notes)
    assert "Of Test100, 2 of 98 images were measured" in table.notes


def test_a_column_of_which_a_set_is_missing_is_empty_and_says_so() -> None:
    images = [one for one in rain(2, 2, 2, 2, 2) if one.set_name != "Test2800"]
    images.append(image("LOL", "1", 25.0, *fidelity("released-y")))
    ((_, table),) = paper_tables(images, "ours", None)
    (row,) = own_rows(table)
    assert row["Deraining (5 sets) PSNR"] == ""
    assert row["Enhancement PSNR"] == "25.00"
    assert row["method"] == "ours"
    assert any("only Test100, Rain100H, Rain100L, Test1200 were measured" in note for note in table.notes)


def test_deblurring_is_in_y_and_in_rgb_in_rows_of_their_own() -> None:
    ((_, table),) = paper_tables([image("GoPro", "1", 29.0, *fidelity("released-y", "rgb"))], "ours")
    assert [(row["protocol"], row["Deblurring PSNR"]) for row in own_rows(table)] == [
        *(("released-y", "29.00"), ("rgb", "29.00")),
    ]


def test_metrics_without_truth_fill_table_5_by_both_definitions() -> None:
    ((name, table),) = paper_tables([image("Practical", "1", 3.0, *blind("niqe", "loe"))], "ours")
    assert name == "table-5"
    assert [row["protocol"] for row in own_rows(table)] == [
        *("niqe-released, loe-local-max", "niqe-matlab, loe-resize"),
    ]


def test_the_papers_figures_are_there_as_printed() -> None:
    measures = {"table-1": fidelity("released-y"), "table-4": fidelity("rgb-3d"), "table-5": blind("niqe")}
    sets = {"table-1": "LOL", "table-4": "POLED", "table-5": "Practical"}
    images = [image(sets[name], "1", 1.0, *measures[name]) for name in sets]
    tables = dict(paper_tables(images, "ours"))
    assert tables.keys() == {table.name for table in PAPER_TABLES}
    for table in tables.values():
        assert {len(row) for row in table.rows} == {len(table.headings)}
        assert all(row[1] for row in table.rows)
    published = {row[0]: row for row in tables["table-1"].rows}
    assert published["DiffUIR-L, universal"][2:] == (
        [
            "31.03",
            "0.904",
            "25.12",
            "0.907",
            "32.65",
            "0.927",
            "32.94",
            "0.956",
            "29.17",
            "0.864",
            "36.26",
            "9.88",
        ]
    )
    assert published["SwinIR (2021), task-specific"][2:6] == ["", "", "17.81", "0.723"]
    assert len(tables["table-1"].rows) == 20 + 1


def test_a_table_is_markdown_csv_and_latex() -> None:
    table = set_table(
        [image("a_b & c|d", "1", 30.0, *fidelity("rgb")), image("a_b & c|d", "2", 32.0, *fidelity("rgb"))]
    )
    rows = list(csv.reader(io.StringIO(table.csv())))
    assert rows[0] == list(table.headings)
    assert rows[1][:4] == ["a_b & c|d", "PSNR", "rgb", "2"]
    assert rows[1][5].startswith("31.00 ± ")
    assert rows[1][6] == "+10.00 ± 0.00"
    assert "a_b & c\\|d" in table.markdown()
    assert "a\\_b \\& c|d & PSNR & rgb & 2 & 21.00 $\\pm$ " in table.latex()
    assert table.latex().count("\\\\") == 1 + len(table.rows)
