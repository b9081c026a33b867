"""`diffuir evaluate`: pairs are found or refused by name, measured, and reported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from diffuir_core import Restorer, Schedule, build, save_weights
from diffuir_core.errors import UserError
from diffuir_core.metrics import PROTOCOLS, ProtocolName, psnr, ssim
from diffuir_platform.data.pairs import find_pairs
from diffuir_platform.evaluate import evaluate, terminal_table, write_report
from diffuir_platform.evaluate.report import summarise
from diffuir_platform.evaluate.staging import load, save_png
from support.command import diffuir_here
from support.evaluating import SETTINGS, brighten, keep, make_pair, photo


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diffuir_platform.cli", "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_the_command_measures_what_diffuir_restore_makes_and_names_what_failed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "t.safetensors"
    save_weights(weights, build("T"), Schedule.release())
    for stem in ("1", "2"):
        make_pair(tmp_path / "pairs" / "dark", stem, seed=int(stem))
    (tmp_path / "pairs" / "dark" / "clean" / "2.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    done = run(tmp_path / "pairs", "--weights", weights, "--steps", 1, "--device", "cpu", "--out", out)
    assert done.returncode == 1, done.stderr
    assert "dark/2" in done.stdout
    assert "Traceback" not in done.stderr
    degraded = photo(1) // 2
    restored = Restorer(weights, device="cpu", precision="float32", steps=1).restore([degraded])[0]
    difference = load(out / "restored" / "dark" / "1.png").astype(int) - restored
    assert np.abs(difference).max() <= 1
    measured = json.loads((out / "results.json").read_text())["images"]
    assert len(measured) == 1
    assert measured[0]["psnr_after"] == pytest.approx(psnr(restored, photo(1)), abs=0.1)


def test_the_command_says_in_one_sentence_what_stops_it(tmp_path: Path) -> None:
    make_pair(tmp_path, "1")
    weights = tmp_path / "w.safetensors"
    for arguments, message in (
        ([tmp_path, "--weights", weights], "w.safetensors"),
        ([tmp_path, "--protocol", "y"], "protocol = 'y'"),
        ([tmp_path / "none"], "there is no folder"),
        ([], "give PAIRS, or --benchmark"),
        (["--benchmark", "LOL,Set5", "--data", tmp_path], "no benchmark 'Set5'"),
    ):
        done = diffuir_here("evaluate", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_every_set_is_measured_before_and_after(tmp_path: Path) -> None:
    make_pair(tmp_path / "dark", "1.0_a", seed=1)
    make_pair(tmp_path / "dark", "2", seed=2)
    make_pair(tmp_path / "dusk", "deep/3", seed=3)
    report = evaluate(tmp_path, brighten, SETTINGS)
    assert [(s.name, s.images) for s in report.sets()] == [("dark", 2), ("dusk", 1)]
    first = report.images[0]
    assert first.key == "1.0_a"
    clean = photo(1)
    assert first.psnr_before == pytest.approx(psnr(clean // 2, clean))
    assert first.psnr_after == pytest.approx(psnr(clean // 2 * 2, clean))
    assert first.ssim_after == pytest.approx(ssim(clean // 2 * 2, clean))
    dark = report.sets()[0]
    assert dark.psnr_before == pytest.approx(sum(i.psnr_before for i in report.images[:2]) / 2)
    assert dark.gain == pytest.approx(dark.psnr_after - dark.psnr_before)
    assert dark.gain > 20


def test_a_single_set_is_named_after_its_folder(tmp_path: Path) -> None:
    make_pair(tmp_path / "lol", "1")
    report = evaluate(tmp_path / "lol", brighten, SETTINGS)
    assert [s.name for s in report.sets()] == ["lol"]


def test_a_jpeg_is_measured_without_a_second_coding(tmp_path: Path) -> None:
    make_pair(tmp_path, "1", suffix=".jpg")
    measured = evaluate(tmp_path, keep, SETTINGS).images[0]
    assert measured.psnr_after == measured.psnr_before
    assert measured.ssim_after == measured.ssim_before


def test_restored_pictures_table_and_results_are_written(tmp_path: Path) -> None:
    make_pair(tmp_path / "pairs" / "dark", "1", seed=1)
    out = tmp_path / "out"
    report = evaluate(tmp_path / "pairs", brighten, SETTINGS, out)
    write_report(report, out)
    assert np.array_equal(load(out / "restored" / "dark" / "1.png"), photo(1) // 2 * 2)
    results = json.loads((out / "results.json").read_text())
    assert results["steps"] == 3
    assert results["sets"][0]["gain"] == pytest.approx(report.sets()[0].gain)
    assert results["images"][0]["psnr_after"] == pytest.approx(report.images[0].psnr_after)
    table = (out / "table.md").read_text()
    assert "PSNR (dB) and SSIM by released-y" in table
    assert f"| dark | released-y | 1 | {report.sets()[0].psnr_before:.2f} |" in table
    made = ["_diffuir", "images.parquet", "restored", "results.json", "table.md", "tables"]
    assert sorted(p.name for p in out.iterdir()) == made
    assert sorted(p.name for p in (out / "tables").iterdir()) == ["sets.csv", "sets.md", "sets.tex"]


def test_an_infinite_psnr_is_valid_json(tmp_path: Path) -> None:
    for side in ("degraded", "clean"):
        save_png(tmp_path / "pairs" / side / "1.png", photo(1))
    report = evaluate(tmp_path / "pairs", keep, SETTINGS)
    write_report(report, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["images"][0]["psnr_before"] == "inf"
    assert results["sets"][0]["gain"] == 0.0
    assert results["sets"][0]["equal_after"] == 1
    assert "| equal | equal | +0.00 |" in (tmp_path / "table.md").read_text()


def test_images_that_equal_their_truth_are_counted_and_left_out_of_the_mean(tmp_path: Path) -> None:
    make_pair(tmp_path / "dark", "1", seed=1)
    make_pair(tmp_path / "dark", "2", seed=2)
    save_png(tmp_path / "dark" / "degraded" / "2.png", photo(2))
    report = evaluate(tmp_path, keep, SETTINGS)
    (dark,) = report.sets()
    assert (dark.images, dark.equal_before, dark.equal_after) == (2, 1, 1)
    assert dark.psnr_before == report.images[0].psnr_before
    assert dark.gain == 0.0
    write_report(report, tmp_path)
    assert f"| {dark.psnr_before:.2f} and 1 equal |" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_row_and_table_names_its_protocol(tmp_path: Path, protocol: ProtocolName) -> None:
    make_pair(tmp_path / "pairs" / "dark", "1", seed=1)
    report = evaluate(tmp_path / "pairs", brighten, replace(SETTINGS, protocol=protocol))
    measured = report.images[0]
    assert measured.ssim_before == ssim(photo(1) // 2, photo(1), protocol)
    assert measured.psnr_before == psnr(photo(1) // 2, photo(1), protocol)
    write_report(report, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert {results["protocol"], results["sets"][0]["protocol"], results["images"][0]["protocol"]} == {
        protocol
    }
    assert f"| dark | {protocol} | 1 |" in (tmp_path / "table.md").read_text()


def test_a_name_is_never_shortened_in_a_narrow_terminal(tmp_path: Path) -> None:
    make_pair(tmp_path / "snow100k_realistic_large", "1")
    report = evaluate(tmp_path, brighten, SETTINGS)
    console = Console(width=80, record=True, file=StringIO())
    console.print(terminal_table(report.sets()))
    cells = [line.split("│")[1].strip() for line in console.export_text().splitlines() if "│" in line]
    assert "".join(cells) == "snow100k_realistic_large"


def test_scores_of_two_protocols_are_never_one_mean(tmp_path: Path) -> None:
    make_pair(tmp_path, "1")
    one = evaluate(tmp_path, keep, SETTINGS).images[0]
    with pytest.raises(ValueError, match="too many values"):
        summarise("dark", [one, replace(one, protocol="rgb")])


def test_a_corrupt_picture_is_named_and_the_rest_is_measured(tmp_path: Path) -> None:
    for stem in ("1", "2", "3"):
        make_pair(tmp_path / "dark", stem)
    (tmp_path / "dark" / "degraded" / "2.png").write_bytes(b"no picture")

    def restore(source: Path, target: Path) -> dict[str, str]:
        brighten(source, target)
        return {"dark/3.png": "out of memory"}

    report = evaluate(tmp_path, restore, SETTINGS)
    assert [i.key for i in report.images] == ["1"]
    assert report.failed.keys() == {"dark/2", "dark/3"}
    assert report.failed["dark/3"] == "out of memory"


def test_a_picture_too_small_for_ssim_is_named(tmp_path: Path) -> None:
    for side in ("degraded", "clean"):
        save_png(tmp_path / side / "1.png", photo(1, 8, 8))
    report = evaluate(tmp_path, keep, SETTINGS)
    assert report.images == []
    assert "11x11" in next(iter(report.failed.values()))


def test_a_pair_of_two_sizes_is_named_and_the_rest_is_measured(tmp_path: Path) -> None:
    make_pair(tmp_path / "dark", "1")
    save_png(tmp_path / "dark" / "degraded" / "2.png", photo(1, 20, 26))
    save_png(tmp_path / "dark" / "clean" / "2.png", photo(1, 20, 27))
    report = evaluate(tmp_path, brighten, SETTINGS)
    assert [i.key for i in report.images] == ["1"]
    assert report.failed == {
        "dark/2": "the two images differ in size, 26x20 and 27x20 pixels: give two of one size"
    }


def test_swapped_pairs_are_named_and_neither_restored_nor_averaged(tmp_path: Path) -> None:
    for stem in ("1", "2", "3"):
        make_pair(tmp_path / "dark", stem, seed=int(stem))
    for one, other in (("1", "2"), ("2", "1")):
        save_png(tmp_path / "dark" / "clean" / f"{one}.png", photo(int(other)))
    restored: list[str] = []

    def restore(source: Path, target: Path) -> dict[str, str]:
        restored.extend(path.name for path in source.rglob("*.png"))
        return brighten(source, target)

    report = evaluate(tmp_path, restore, SETTINGS)
    assert restored == ["3.png"]
    assert [i.key for i in report.images] == ["3"]
    assert report.failed.keys() == {"dark/1", "dark/2"}
    assert report.failed["dark/1"].startswith("the truth of dark/2 fits it better")


def test_a_truth_that_is_a_jpeg_is_measured_and_noted(tmp_path: Path) -> None:
    make_pair(tmp_path / "pairs" / "dark", "1", seed=1)
    (tmp_path / "pairs" / "dark" / "clean" / "1.png").unlink()
    Image.fromarray(photo(1)).save(tmp_path / "pairs" / "dark" / "clean" / "1.jpg")
    report = evaluate(tmp_path / "pairs", brighten, SETTINGS)
    assert [i.key for i in report.images] == ["1"]
    assert report.notes.keys() == {"dark/1"}
    write_report(report, tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert re.search(r"Notes:\n\n- the truth is a JPEG, .*: dark/1\n", table)
    assert "dark/1" in json.loads((tmp_path / "results.json").read_text())["notes"]


def test_a_picture_without_its_counterpart_is_refused_by_name(tmp_path: Path) -> None:
    make_pair(tmp_path, "1")
    make_pair(tmp_path, "2")
    (tmp_path / "clean" / "2.png").unlink()
    with pytest.raises(UserError, match=r"degraded.2\.png has no counterpart.*clean"):
        find_pairs(tmp_path)
    (tmp_path / "degraded" / "1.png").unlink()
    (tmp_path / "degraded" / "2.png").unlink()
    with pytest.raises(UserError, match=r"clean.1\.png has no counterpart.*degraded"):
        find_pairs(tmp_path)


def test_folders_without_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*missing"):
        find_pairs(tmp_path / "missing")
    with pytest.raises(UserError, match="holds no pairs"):
        find_pairs(tmp_path)
    (tmp_path / "one" / "degraded").mkdir(parents=True)
    with pytest.raises(UserError, match=r"one has no clean/"):
        find_pairs(tmp_path)
    (tmp_path / "one" / "clean").mkdir()
    with pytest.raises(UserError, match="hold no pictures"):
        find_pairs(tmp_path)


def test_two_pictures_of_one_key_are_refused(tmp_path: Path) -> None:
    make_pair(tmp_path, "1")
    make_pair(tmp_path, "1", suffix=".jpg")
    with pytest.raises(UserError, match=r"both named 1: keep one"):
        find_pairs(tmp_path)
