"""`diffuir analyse`: tables of sweeps beside the paper's, plots, and the numbers behind the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffuir_core import Schedule, build
from diffuir_core.degradations import TASKS
from diffuir_core.errors import UserError
from diffuir_core.features import attention_map, end_point_features
from diffuir_platform.analysis.commands import run_analyse
from diffuir_platform.analysis.network import separability
from diffuir_platform.analysis.settings import AnalyseSettings


def sweep(folder: Path, key: str, values: list[object]) -> Path:
    """What a sweep leaves, with made-up figures; its last run has failed."""
    figures = {f"{m}_{task}": 0.5 + i for i, m in enumerate(("ssim", "psnr")) for task in TASKS}
    figures |= {"psnr": 30.0, "ssim": 0.9, "psnr_rain": 31.5}
    runs = [{"name": str(v), "values": {key: v}, "weights": "", "figures": figures} for v in values]
    folder.mkdir(exist_ok=True)
    document = {"sweep": "mine", "runs": [*runs, {"name": "x", "values": {key: 9}, "figures": {}}]}
    (folder / "results.json").write_text(json.dumps(document))
    return folder


def photo(seed: int, side: int = 136) -> np.ndarray:
    small = np.random.default_rng(seed).integers(40, 220, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def pairs(folder: Path, side: int = 40) -> Path:
    for number, task in enumerate(("rain", "haze")):
        for name, pixels in (("clean", photo(number, side)), ("degraded", photo(number, side) // 2)):
            (folder / task / name).mkdir(parents=True)
            Image.fromarray(pixels).save(folder / task / name / "1.png")
    return folder


def made(tmp_path: Path, analysis: str, source: object, **more: object) -> Path:
    """The folder of an analysis that has run."""
    out = tmp_path / "out"
    settings = {"analysis": analysis, "source": str(source), "out": out, "device": "cpu", **more}
    assert run_analyse(AnalyseSettings.model_validate(settings)) == 0
    return out


def test_tables_2_and_3_stand_beside_the_papers(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", "condition", ["full", "no-ec-sdt"])
    lines = (made(tmp_path, "table-2", folder) / "table_2.md").read_text().splitlines()
    assert [line.split("|")[1:7] for line in lines if "EC & SDT" in line] == [
        [" -EC & SDT ", " Weak ", " Strong ", " this sweep ", " 31.50 ", " 0.500 "],
        [" -EC & SDT ", " Weak ", " Strong ", " the paper ", " 30.63 ", " 0.900 "],
    ]
    folder = sweep(tmp_path / "s", "delta_end", [1.8e-3, 1e-3])
    lines = (made(tmp_path, "table-3", folder) / "table_3.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines if line.startswith("| 0.")]
    assert rows[:2] == [["0.9005", "this sweep", "31.50"], ["0.9005", "the paper", "31.03"]]
    assert rows[2:] == [["0.5005", "this sweep", "31.50"], ["0.5005", "the paper", "31.01"]]
    with pytest.raises(UserError, match="is a sweep of delta_end: table-2 is made of one of condition"):
        made(tmp_path, "table-2", folder)
    with pytest.raises(UserError, match=r"holds no results\.json"):
        made(tmp_path, "table-2", tmp_path)


def test_steps_and_batch_sizes_are_plotted(tmp_path: Path) -> None:
    assert Image.open(
        made(tmp_path, "batch-size", sweep(tmp_path / "s", "accumulate", [1, 2])) / "batch_size.png"
    ).size > (900, 400)
    out = made(tmp_path, "steps", pairs(tmp_path / "pairs"), counts=(1, 2))
    assert (out / "steps.txt").read_text().startswith("haze: best at ")
    Image.open(out / "steps.png").verify()


def test_panels_have_a_column_for_each_restorer(tmp_path: Path) -> None:
    source = pairs(tmp_path / "pairs")
    text = (made(tmp_path, "panels", source, restorers=("identity",)) / "panels.txt").read_text()
    for line in text.splitlines():
        assert (
            line.partition("; identity: ")[2] == line.split(": ")[2].partition(";")[0]
        )  # as the degraded one
    with pytest.raises(UserError, match="there is no restorer"):
        made(tmp_path, "panels", source, restorers=("identical",))


def test_separability_is_high_for_clusters_and_chance_for_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(200, 4)).astype(np.float32)
    labels = ["rain", "haze"] * 100
    numbers = list(range(200))
    mixed = separability(cloud, labels, numbers)
    assert abs(mixed.silhouette) < 0.05
    assert abs(mixed.nearest - mixed.chance) < 0.1
    apart = separability(cloud + 20 * np.array([[0], [1]] * 100, np.float32), labels, numbers)
    assert apart.silhouette > 0.4
    assert apart.nearest == 1
    # Crops of one photo are no neighbours: they would look alike whatever the task.
    alone = separability(cloud[:4], ["rain", "rain", "haze", "haze"], [0, 0, 1, 1])
    assert (alone.nearest, alone.chance) == (0, 0)


def test_features_of_five_tasks_are_scored_and_drawn(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    for seed in (0, 1):
        Image.fromarray(photo(seed)).save(tmp_path / "clean" / f"{seed}.png")
    out = made(tmp_path, "features", tmp_path / "clean", crops=1)
    lines = (out / "features.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["without SDT", "with SDT"]
    assert all("silhouette" in line and "chance 20%" in line for line in lines)
    Image.open(out / "features.png").verify()
    with pytest.raises(UserError, match="there is no folder"):
        made(tmp_path, "features", tmp_path / "none")


def test_the_attention_over_a_photo_is_drawn_with_its_figures(tmp_path: Path) -> None:
    Image.fromarray(photo(0, 50)).save(tmp_path / "a.png")
    out = made(tmp_path, "attention", tmp_path / "a.png")
    assert "share of the attention on the most changed quarter" in (out / "attention.txt").read_text()
    Image.open(out / "attention.png").verify()


def test_features_and_attention_are_those_of_the_end_point() -> None:
    torch.manual_seed(0)
    model = build("T").eval()
    clean, noise = torch.rand(2, 3, 32, 48) * 2 - 1, torch.zeros(2, 3, 32, 48)
    gone = Schedule.release(1.0)  # delta_bar_T = 1: nothing of the photo is left but 1 - alpha_bar_T of it
    features = end_point_features(model, gone, clean, clean, noise)
    assert features.shape == (2, 64)
    torch.testing.assert_close(features[0], features[1])
    kept = end_point_features(model, Schedule.release(condition="no-sdt"), clean, clean, noise)
    assert not torch.allclose(kept[0], kept[1])
    attention = attention_map(model, gone, clean, noise)
    assert attention.shape == (2, 32, 48)
    torch.testing.assert_close(attention.mean((1, 2)), torch.ones(2))


@pytest.mark.parametrize("analysis", ["attention", "features"])
def test_what_is_no_photo_is_named(tmp_path: Path, analysis: str) -> None:
    (tmp_path / "photos").mkdir()
    file = tmp_path / "photos" / "notes.png"
    file.write_text("no photo")
    with pytest.raises(UserError, match=f"^{file}: it is not a JPEG"):
        made(tmp_path, analysis, file if analysis == "attention" else file.parent)
