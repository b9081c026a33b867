"""The worked examples of platform/EXTENDING.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffuir_platform.data import open_index
from diffuir_platform.data.building import build_index
from diffuir_platform.data.examples import PAIRS_FOLDER, PHOTOS_FOLDER
from diffuir_platform.data.layouts import registry
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.evaluate import Settings, evaluate
from support.paths import ROOT

PAGE = (ROOT / "platform" / "EXTENDING.md").read_text(encoding="utf-8")


def block(section: str, language: str) -> str:
    """The fenced block of that language in a section of the page; there must be one."""
    (text,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return found


def executed(section: str) -> dict[str, Any]:
    """The names that the Python of a section defines."""
    names: dict[str, Any] = {"__name__": "extension"}
    exec(compile(block(section, "python"), f"EXTENDING.md, {section}", "exec"), names)
    return names


def apply(diff: str, root: Path) -> None:
    """Make the changes of a diff without line numbers: each place that it names occurs once."""
    parts = re.split(r"^--- (\S+)\n", diff, flags=re.MULTILINE)[1:]
    for name, lines in zip(parts[::2], parts[1::2], strict=True):
        file = root / name
        marked = lines.splitlines(keepends=True)
        before = "".join(line[1:] for line in marked if line[0] in " -")
        after = "".join(line[1:] for line in marked if line[0] in " +")
        text = file.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{name} does not hold once what EXTENDING.md changes:\n{before}"
        file.write_text(text.replace(before, after), encoding="utf-8")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the two packages and of a test, to be changed."""
    for name in ("diffuir_core", "platform/diffuir_platform"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "examples")
        )
    (tmp_path / "tests/core").mkdir(parents=True)
    shutil.copy(ROOT / "tests/core/test_degradations.py", tmp_path / "tests/core")
    shutil.copytree(PHOTOS_FOLDER.parent, tmp_path / PHOTOS_FOLDER.parent.relative_to(ROOT))
    return tmp_path


def run_in(clone: Path, script: str) -> None:
    """Run a script on the packages of a clone; it ends with an error where one of its assertions fails."""
    path = os.pathsep.join([str(clone), str(clone / "platform")])
    here = f"import diffuir_core\nassert diffuir_core.__file__.startswith({str(clone)!r})\n"
    subprocess.run(
        [sys.executable, "-c", here + script],
        cwd=clone,
        env=os.environ | {"PYTHONPATH": path},
        timeout=120,
        check=True,
    )


def test_a_restorer_of_ones_own_restores_a_collection(
    ray: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed in (0, 1):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{seed}.png")
    median = executed("A restorer")["Median"]()
    assert "2 restored, 0 failed" in capsys.readouterr().out
    for seed in (0, 1):
        photo, restored = (
            np.asarray(Image.open(tmp_path / f / f"{seed}.png")) for f in ("photos", "restored")
        )
        assert np.array_equal(restored, median.restorations([photo])[0].pixels)
        assert not np.array_equal(restored, photo)


def test_a_metric_of_ones_own_measures_what_an_evaluation_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PAIRS_FOLDER, tmp_path / "pairs")

    def keep(source: Path, target: Path) -> dict[str, str]:
        shutil.copytree(source, target)
        return {}

    settings = Settings(weights="none", steps=0, seed=0, precision="none")
    evaluate(Path("pairs"), keep, settings, out=Path("evaluation"))
    executed("A metric")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all(0 < float(line.split()[2]) < 255 for line in lines)


def test_a_layout_of_ones_own_pairs_what_its_rule_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = executed("A layout")["STREETS"]
    monkeypatch.setattr(registry, "LAYOUTS", (*registry.LAYOUTS, layout))
    root = tmp_path / "streets"
    for name in ("wet/a_r1", "wet/a_r2", "wet/b-c_r1", "dry/a", "dry/b-c"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / f"{name}.png")
    out = str(tmp_path / "index.parquet")
    build_index(str(root), out, IndexOptions(layout="streets"))
    rows = [
        (row.task, Path(row.degraded_uri or "").stem, Path(row.clean_uri or "").stem)
        for row in open_index(out).rows()
    ]
    assert sorted(rows) == [("rain", "a_r1", "a"), ("rain", "a_r2", "a"), ("rain", "b-c_r1", "b-c")]


def test_a_task_of_ones_own_is_degraded_loaded_and_configured(clone: Path) -> None:
    (clone / "diffuir_core/degradations/noise.py").write_text(block("A task", "python"))
    apply(block("A task", "diff"), clone)
    (clone / "noise.yaml").write_text(block("A task", "yaml"))
    (clone / "photos").symlink_to(clone / PHOTOS_FOLDER.relative_to(ROOT))
    run_in(
        clone,
        """
from diffuir_core.degradations import TASKS
from diffuir_platform.config import load_config
from diffuir_platform.data import Mixture, list_sources
from diffuir_platform.data.samples import load_slot
from diffuir_platform.evaluate.demo import SHOWN
from diffuir_platform.train.settings import TrainConfig

assert TASKS[-1] == "noise" and set(SHOWN) == set(TASKS)
assert "noise" not in TrainConfig().tasks
config = load_config(TrainConfig, "noise.yaml")
sources = list_sources(config.data, config.tasks)
mixture = Mixture(0, config.batch_stages(), {t: len(s) for t, s in sources.items()}, config.mixture)
(slot,) = (slot for slot in mixture.slots(0) if slot.task == "noise")
degraded, clean = load_slot(slot, sources["noise"][slot.index], 64)
assert degraded.shape == clean.shape == (64, 64, 3) and (degraded != clean).any()
""",
    )


def test_a_variant_of_ones_own_is_built_saved_and_recognised(clone: Path) -> None:
    apply(block("A variant", "diff"), clone)
    run_in(
        clone,
        """
import torch
from torch.utils.flop_counter import FlopCounterMode
from diffuir_core import Restorer, Schedule, build, load_weights, save_weights
from diffuir_core.variants import VARIANTS
from diffuir_platform.train.settings import TrainConfig

model = build("XS")
assert sum(p.numel() for p in model.parameters()) == VARIANTS["XS"].parameters
with torch.no_grad(), FlopCounterMode(display=False) as counter:
    model(torch.zeros(1, 6, 256, 256), torch.zeros(1))
assert round(counter.get_total_flops() / 1e9, 1) == VARIANTS["XS"].gflop_256
save_weights("xs.safetensors", model, Schedule.release())
assert load_weights("xs.safetensors").variant.name == "XS"
assert TrainConfig(variant="XS").variant == "XS"
""",
    )
