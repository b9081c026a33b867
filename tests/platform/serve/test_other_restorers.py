"""A restorer of somebody else through evaluate, restore and serve: the same picture, and the same guarantees."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from safetensors.torch import save_file

from support.ports import free_port
from support.serving import started

CLI = "diffuir_platform.cli"
FACTORY = """
import os

def make(weights):
    def invert(images):
        if any(image[0, 0, 0] == 251 for image in images):
            os._exit(3)
        return [255 - image for image in images]
    return invert
"""


def factory(folder: Path) -> str:
    (folder / "mine.py").write_text(FACTORY)
    return "mine:make"


def spandrel_weights(folder: Path) -> str:
    """A DnCNN of three layers with weights made at random."""
    try:
        import spandrel  # noqa: F401
    except Exception as error:  # noqa: BLE001 - a torchvision that does not fit torch raises anything
        pytest.skip(f"the extra spandrel is not installed ({error})")
    torch.manual_seed(0)
    state = {}
    for layer, (wide, narrow) in enumerate([(8, 3), *[(8, 8)] * 6, (3, 8)]):
        state[f"model.{2 * layer}.weight"] = torch.randn(wide, narrow, 3, 3) * 0.1
        state[f"model.{2 * layer}.bias"] = torch.zeros(wide)
    save_file(state, folder / "dncnn.safetensors")
    return f"spandrel:{folder}/dncnn.safetensors"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", CLI, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("make", [factory, spandrel_weights])
def test_it_goes_through_evaluate_restore_and_serve(
    tmp_path: Path, make: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make(tmp_path)  # type: ignore[operator]
    pairs = tmp_path / "pairs"
    rng = np.random.default_rng(0)
    for side in ("degraded", "clean"):
        (pairs / side).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 200, (40, 56, 3), dtype=np.uint8)).save(pairs / side / "1.png")
    poisoned = np.full((24, 24, 3), 251, np.uint8)
    Image.fromarray(poisoned).save(tmp_path / "poisoned.png")
    (tmp_path / "in").mkdir()
    for file in (pairs / "degraded" / "1.png", tmp_path / "poisoned.png"):
        (tmp_path / "in" / file.name).write_bytes(file.read_bytes())

    done = run(tmp_path, "restore", "in", "out", "--restorer", name, "--attempts", "1")
    survives = name != "mine:make"
    assert done.returncode == (0 if survives else 1), done.stderr
    assert ("died 1 time" in done.stdout) is not survives
    picture = np.asarray(Image.open(tmp_path / "out" / "1.png"))
    degraded = np.asarray(Image.open(pairs / "degraded" / "1.png"))
    assert picture.shape == degraded.shape
    assert not np.array_equal(picture, degraded)
    if not survives:
        assert np.array_equal(picture, 255 - degraded)

    done = run(tmp_path, "evaluate", "pairs", "--restorer", name, "--out", "evaluation")
    assert done.returncode == 0, done.stderr
    (evaluated,) = (tmp_path / "evaluation" / "restored").rglob("1.png")
    assert np.array_equal(np.asarray(Image.open(evaluated)), picture)
    assert name in json.loads((tmp_path / "evaluation" / "results.json").read_text())["restorer"]

    port = free_port()
    monkeypatch.chdir(tmp_path)
    with started(["-m", CLI, "serve", "--restorer", name, "--port", str(port)], port) as endpoint:
        answer = endpoint.restore((pairs / "degraded" / "1.png").read_bytes())
        assert answer.status_code == 200, answer.text
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), picture)
        assert answer.headers["Diffuir-Restorer"] == name.replace(f"{tmp_path}/", "")
        assert "Diffuir-Steps" not in answer.headers
        refused = endpoint.restore((pairs / "degraded" / "1.png").read_bytes(), steps=2)
        assert refused.status_code == 422
        assert "steps: it has no effect" in refused.json()["detail"]
        (model,) = requests.get(f"{endpoint.url}/v1/models", timeout=30).json()["models"]
        assert (model["name"], model["variant"], len(model["sha256"])) == ("default", None, 64)
        assert requests.get(f"{endpoint.url}/healthz", timeout=30).status_code == 200
