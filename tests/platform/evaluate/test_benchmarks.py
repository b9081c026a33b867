"""Benchmarks by name: where they are found, under which conditions they are restored, and what is measured."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from diffuir_core import Schedule, Weights, build
from diffuir_core.errors import UserError
from diffuir_core.metrics import PROTOCOLS, psnr, write_niqe
from diffuir_core.metrics.lpips import BACKBONES, Lpips, lpips
from diffuir_core.metrics.scene_statistics import Gaussian
from diffuir_platform.data.building import build_index
from diffuir_platform.data.layouts import find_layout
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.evaluate import evaluate_sets
from diffuir_platform.evaluate.benchmarks import BENCHMARKS, GROUPS, Benchmark, find_benchmarks
from diffuir_platform.evaluate.measures import METRICS, Measure, Meter, Photos, blind, fidelity
from diffuir_platform.evaluate.run import check, expects_equalised, sets_of
from diffuir_platform.evaluate.sets import Condition, ImageSet, benchmark_sets, photo_sets
from diffuir_platform.evaluate.settings import EvaluateSettings
from diffuir_platform.evaluate.staging import load, save_png
from support.evaluating import SETTINGS, brighten, photo
from support.paths import ROOT

ALIKE = {"Rain13K/test/Rain100L": ("input", "target"), "LOL/eval15": ("low", "high")}
"""Folder -> names of its two sides, for sets with the same names on both."""


def condition(benchmark: Benchmark) -> Condition:
    return Condition.named(benchmark.steps, benchmark.equalise)


def found(data: Path | str, names: str = "all") -> dict[str, ImageSet]:
    return {one.name: one for one in benchmark_sets(find_benchmarks(names), str(data), condition)}


def put(file: Path, seed: int, shade: int = 1, **size: int) -> None:
    save_png(file, photo(seed, **size) // shade)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of data sets as they unpack."""
    folder = tmp_path / "data"
    for place, sides in ALIKE.items():
        for seed in (1, 2):
            for shade, side in zip((2, 1), sides, strict=True):
                put(folder / place / side / f"{seed}.png", seed, shade)
    for side, shade in (("blur", 2), ("sharp", 1)):
        put(folder / "GOPRO_Large" / "test" / "G1" / side / "0001.png", 3, shade)
    put(folder / "SOTS" / "outdoor" / "hazy" / "0001_0.8_0.2.png", 4, 2)
    put(folder / "SOTS" / "outdoor" / "gt" / "0001.png", 4)
    put(folder / "Practical" / "a" / "1.png", 5)
    put(folder / "Practical" / "a" / "1.bmp", 6)
    put(folder / "MEF" / "house.png", 7, height=60, width=70)
    put(folder / "realistic" / "winter.png", 8)
    for side, shade in (("LQ", 2), ("HQ", 1)):
        put(folder / "Toled_test" / side / "1.png", 9, shade, height=24, width=2048)
    return folder


def test_the_paper_names_20_sets_and_each_is_in_a_table_of_it() -> None:
    named = {name for group, names in GROUPS.items() if group != "all" for name in names}
    assert len(BENCHMARKS) == 21
    assert {one.name for one in BENCHMARKS} - named == {"LIME", "RealBlur-J", "RealBlur-R"} - named
    assert sum(one.images or 0 for one in BENCHMARKS[:5]) == 4298


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda one: one.name)
def test_each_is_a_split_of_a_layout_with_measures_that_fit_it(benchmark: Benchmark) -> None:
    for layout, dataset in benchmark.places:
        parts = [p for p in find_layout(layout).parts if (p.dataset, p.split) == (dataset, benchmark.split)]
        assert parts
        assert {part.task for part in parts} == {benchmark.task}
        for measure in benchmark.measures:
            assert METRICS[measure.metric].needs_truth is not parts[0].is_unpaired
    for measure in benchmark.measures:
        assert measure.metric not in ("psnr", "ssim") or measure.protocol in PROTOCOLS
    assert benchmark.steps == (4 if benchmark.task == "udc" else 3)
    assert benchmark.equalise is (benchmark.task == "low_light")
    assert benchmark.describe()


def test_names_and_tables_in_any_case() -> None:
    assert [one.name for one in find_benchmarks("lol, table-4,RAIN100H")] == [
        *("Rain100H", "LOL", "TOLED", "POLED")
    ]
    assert find_benchmarks("all") == list(BENCHMARKS)
    with pytest.raises(UserError, match=r"no benchmark 'Rain100': choose among all, table-1, .*Rain100H"):
        find_benchmarks("LOL,Rain100")


def test_sets_are_found_where_their_archives_put_them(data: Path) -> None:
    sets = found(data)
    there = {name: [case.key for case in one.cases] for name, one in sets.items() if one.cases}
    assert there == {
        "Rain100L": ["1", "2"],
        "Practical": ["a/1.bmp", "a/1.png"],
        "LOL": ["1", "2"],
        "MEF": ["house"],
        "Snow100K-realistic": ["winter"],
        "SOTS-outdoor": ["0001_0.8_0.2"],
        "GoPro": ["G1/0001"],
        "TOLED": ["1"],
    }
    assert sets["SOTS-outdoor"].cases[0].clean is not None
    assert sets["SOTS-outdoor"].cases[0].clean.uri.endswith("outdoor/gt/0001.png")
    assert "has no photos of it: looked by the layout hide or deblur" in sets["HIDE"].failed["HIDE"]
    assert sets["LOL"].notes == {"LOL": "2 images of 15 that are published"}


def test_sets_are_found_through_an_index(data: Path, tmp_path: Path) -> None:
    index = tmp_path / "lol.parquet"
    build_index(str(data / "LOL"), str(index), IndexOptions(layout="lol"))
    one = found(index, "LOL,GoPro")["LOL"]
    assert one.cases == found(data, "LOL")["LOL"].cases
    packed = tmp_path / "packed.parquet"
    build_index(str(data / "LOL"), str(packed), IndexOptions(layout="lol", pack=str(tmp_path / "pack")))
    case = found(packed, "LOL")["LOL"].cases[0]
    assert case.degraded.offset is not None
    assert case.degraded.read() == one.cases[0].degraded.read()


def test_what_is_at_fault_within_a_set_is_named(data: Path) -> None:
    (data / "LOL" / "eval15" / "high" / "2.png").unlink()
    one = found(data, "LOL")["LOL"]
    assert [case.key for case in one.cases] == ["1"]
    (reason,) = one.failed.values()
    assert "there is no clean file 2" in reason
    (data / "LOL" / "eval15" / "high" / "1.png").unlink()
    one = found(data, "LOL,GoPro")["LOL"]
    assert one.cases == []
    assert set(one.failed) == {"LOL/eval15/low/1", "LOL/eval15/low/2"}


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images of LOL, GoPro: name the folder"):
        found(tmp_path, "LOL,GoPro")
    with pytest.raises(UserError, match="there is no folder"):
        found(tmp_path / "none")


def test_each_is_restored_and_measured_under_its_own_conditions(data: Path, tmp_path: Path) -> None:
    calls: list[tuple[Condition, set[str]]] = []

    def restore_under(condition: Condition):  # type: ignore[no-untyped-def]
        def restore(source: Path, target: Path) -> dict[str, str]:
            calls.append((condition, {p.relative_to(source).as_posix() for p in source.rglob("*.png")}))
            return brighten(source, target)

        return restore

    out = tmp_path / "out"
    sets = benchmark_sets(find_benchmarks("Rain100L,LOL,GoPro,TOLED"), str(data), condition)
    report = evaluate_sets(sets, restore_under, SETTINGS, out=out)
    assert calls == [
        (Condition(steps=3, folder="3-steps"), {"Rain100L/1.png", "Rain100L/2.png", "GoPro/G1/0001.png"}),
        (Condition(steps=3, equalise=True, folder="3-steps-equalised"), {"LOL/1.png", "LOL/2.png"}),
        (Condition(steps=4, folder="4-steps"), {"TOLED/1/0.png", "TOLED/1/1.png"}),
    ]
    rows = {(one.name, one.protocol) for one in report.sets()}
    assert rows == {
        *(("Rain100L", "released-y"), ("Rain100L", "matlab-y"), ("LOL", "released-y")),
        *(("GoPro", "released-y"), ("GoPro", "rgb"), ("TOLED", "rgb-3d")),
    }
    assert load(out / "restored" / "4-steps" / "TOLED" / "1" / "1.png").shape == (24, 1024, 3)
    (toled,) = (image for image in report.images if image.set_name == "TOLED")
    clean = photo(9, height=24, width=2048)
    assert toled.psnr_after == psnr(clean // 2 * 2, clean, "rgb-3d")
    assert "LPIPS is not measured" in report.notes["TOLED"]


def test_photos_without_truths_are_measured_by_what_needs_none(data: Path, tmp_path: Path) -> None:
    def keep(source: Path, target: Path) -> dict[str, str]:
        for path in source.rglob("*.png"):
            save_png(target / path.relative_to(source), load(path)[::-1])
        return {}

    sets = benchmark_sets(find_benchmarks("MEF,Snow100K-realistic"), str(data), condition)
    report = evaluate_sets(sets, lambda _: keep, SETTINGS)
    assert report.images == []
    (image,) = report.measured
    assert {score.measure.protocol for score in image.scores} == {"loe-local-max", "loe-resize"}
    assert all(score.before is None and score.after > 0 for score in image.scores)
    assert report.notes["MEF"] == "NIQE is not measured: name its files with --niqe"
    assert report.failed == {
        "Snow100K-realistic": "NIQE is not measured: name its files with --niqe; "
        "IL-NIQE is not measured: name its files with --il-niqe"
    }
    own = photo_sets(data / "Practical", blind("loe"), Condition(steps=3))
    assert [case.name for one in own for case in one.cases] == ["a/1.bmp", "a/1.png"]


def test_niqe_is_measured_where_its_statistics_are_named(tmp_path: Path) -> None:
    for seed in range(2):
        put(tmp_path / "photos" / f"{seed}.png", seed, height=200, width=300)
    rng = np.random.default_rng(0)
    write_niqe(tmp_path / "own.npz", Gaussian(rng.normal(size=36), np.eye(36)))
    meter = Meter(niqe=tmp_path / "own.npz")
    assert meter.measured(blind("il-niqe", "niqe")) == blind("niqe")
    sets = photo_sets(tmp_path / "photos", blind("niqe", "loe"), Condition(steps=3))
    report = evaluate_sets(sets, lambda _: brighten, SETTINGS, meter)
    values = [score.before for score in report.measured[0].scores if score.measure.metric == "niqe"]
    assert len(values) == 2
    assert values[0] != values[1]
    others = report.others()
    assert others is not None
    assert [row[:3] for row in others.rows] == [
        *(["photos", "NIQE", "niqe-matlab"], ["photos", "NIQE", "niqe-released"]),
        *(["photos", "LOE", "loe-local-max"], ["photos", "LOE", "loe-resize"]),
    ]
    with pytest.raises(UserError, match=r"none\.npz"):
        evaluate_sets(sets, lambda _: brighten, SETTINGS, Meter(niqe=tmp_path / "none.npz"))


def test_only_weights_that_saw_equalised_photos_get_them() -> None:
    def weights(**facts: object) -> Weights:
        return Weights(build("T"), Schedule.release(), **facts)  # type: ignore[arg-type]

    assert expects_equalised(weights(), "low_light")
    assert expects_equalised(
        weights(recipe={"steps": 1}, preprocessing={"low_light": "equalise"}), "low_light"
    )
    assert not expects_equalised(weights(recipe={"steps": 1}), "low_light")


def test_settings_decide_over_the_benchmarks(data: Path) -> None:
    def sets(**changes: object) -> list[ImageSet]:
        settings = EvaluateSettings(benchmark="LOL,TOLED", data=str(data), **changes)  # type: ignore[arg-type]
        return sets_of(settings, lambda: Weights(build("T"), Schedule.release()))

    assert [one.condition for one in sets()] == [Condition.named(3, True), Condition.named(4, False)]
    changed = sets(steps=2, equalise=False, protocol="gray")
    assert {one.condition for one in changed} == {Condition.named(2, False)}
    assert changed[0].measures == fidelity("gray")
    assert [measure.metric for measure in changed[1].measures] == ["psnr", "ssim", "lpips"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "there is nothing to evaluate"),
        ({"pairs": "a", "benchmark": "LOL"}, "give one of them"),
        ({"benchmark": "LOL"}, "needs --data"),
        ({"benchmark": "LOL", "data": "a", "truth": False}, "leave out --no-truth"),
        ({"pairs": "a", "tracking_uri": "sqlite:///x"}, "give --out too"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(EvaluateSettings(**settings))  # type: ignore[arg-type]


def test_the_readme_lists_every_benchmark_with_its_conditions() -> None:
    page = (ROOT / "platform" / "diffuir_platform" / "evaluate" / "README.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if re.search(r"\| [34] steps", line)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    listed = {name: row for row in rows for name in re.split(r"[,;] ", row[0])}
    assert listed.keys() == {one.name for one in BENCHMARKS}
    for one in BENCHMARKS:
        _, table, layouts, images, restored, measured = listed[one.name]
        assert {f"`{layout}`" for layout, _ in one.places} <= set(layouts.split(", "))
        assert one.images is None or str(one.images) in images.split(", ")
        assert restored.startswith(f"{one.steps} steps")
        assert ("equalised" in restored, "1024" in restored) == (one.equalise, one.piece == 1024)
        groups = [group[-1] for group, names in GROUPS.items() if one.name in names and group != "all"]
        assert table.split("; ")[-1 if one.name == "LIME" else 0] == (groups or ["none"])[0]
        for measure in one.measures:
            named = measure.metric in ("psnr", "ssim", "lpips")
            assert (f"`{measure.protocol}`" if named else METRICS[measure.metric].title) in measured


def test_lpips_is_measured_with_the_published_files_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    meter = Meter(lpips_backbone=other, lpips_linear=other)
    measure = Measure("lpips", "alex")
    with pytest.raises(UserError, match=r"other\.pth is another file, .* it should be alexnet-owt"):
        meter.check([measure])
    backbone = BACKBONES["alex"]
    state, linear = {}, {}
    inputs = 3
    for index, width, kernel, _, _ in backbone.layers:
        state[f"features.{index}.weight"] = torch.randn(width, inputs, kernel, kernel)
        state[f"features.{index}.bias"] = torch.randn(width)
        linear[f"lin{len(linear)}.model.1.weight"] = torch.rand(1, width, 1, 1)
        inputs = width
    model = Lpips("alex", state, linear)
    meter._lpips_models["alex"] = model  # in place of files of 244 MB
    clean, degraded = photo(1, 64, 64), photo(2, 64, 64)
    found = meter.score(measure, Photos(degraded=degraded, restored=clean, clean=clean))
    assert found.before == pytest.approx(lpips(degraded, clean, model))
    assert found.after == 0.0
