"""Held-out pairs: unusable ones are named before the training, and those lost during it are counted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import ray as ray_module
from mlflow import MlflowClient
from PIL import Image
from ray.train import Checkpoint

from diffuir_core import Schedule, UserError, build, save_weights
from diffuir_platform.data.samples import read_pixels
from diffuir_platform.tracking import open_run
from diffuir_platform.train.checkpoints import WEIGHTS_FILE
from diffuir_platform.train.settings import ValidationConfig
from diffuir_platform.train.validation import _averaged, held_out, validate


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Folder with three pairs of rain: a dark photo and its bright counterpart."""
    for side, brightness in (("degraded", 90), ("clean", 180)):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for seed in range(3):
            pixels = np.random.default_rng(seed).integers(0, brightness, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pairs" / side / f"{seed}.png")
    return tmp_path / "pairs"


def test_a_pair_that_cannot_be_used_is_named_at_the_start(pairs: Path) -> None:
    config = ValidationConfig(pairs={"rain": (pairs,)})
    assert len(held_out(config)["rain"]) == 3
    photo = pairs / "degraded" / "1.png"
    Image.new("RGB", (10, 10)).save(photo)
    read_pixels.cache.clear()
    with pytest.raises(UserError, match=r"the pair 1 that validates rain .* must be of one size"):
        held_out(config)
    photo.write_bytes(photo.read_bytes()[:60])
    read_pixels.cache.clear()
    with pytest.raises(UserError, match=r"the pair 1 that validates rain can't be used: .*1\.png"):
        held_out(config)


def test_settings_of_the_validation_are_named_as_its_own(pairs: Path) -> None:
    with pytest.raises(UserError, match=r"validation\.pairs: no task 'fog'"):
        held_out(ValidationConfig(pairs={"fog": (pairs,)}))


def test_a_pair_that_is_lost_later_is_left_out_and_named(pairs: Path, tmp_path: Path, ray: object) -> None:
    save_weights(tmp_path / WEIGHTS_FILE, build("T"), Schedule.release(), {"steps_done": 7})
    tracker = open_run(f"sqlite:///{tmp_path / 'mlflow.db'}", "test", "run", None, tmp_path / "artifacts")
    chosen = held_out(ValidationConfig(pairs={"rain": (pairs,), "snow": (pairs,)}))
    kept, checkpoint = ray_module.put(chosen), Checkpoint.from_directory(tmp_path)
    whole = validate(checkpoint, pairs=kept, tracker=tracker)
    (pairs / "clean" / "1.png").unlink()
    read_pixels.cache.clear()
    figures = validate(checkpoint, pairs=kept, tracker=tracker)
    assert (
        figures.keys()
        == whole.keys()
        == {f"{m}{t}" for m in ("psnr", "ssim") for t in ("", "_rain", "_snow")}
    )
    client = MlflowClient(tracker.uri)
    assert client.get_run(tracker.run_id).data.metrics["validation_left_out"] == 2
    named = Path(client.download_artifacts(tracker.run_id, "validation/left-out-0000007.txt")).read_text()
    assert [line.partition(": ")[0] for line in named.splitlines()] == ["rain 1", "snow 1"]

    for photo in pairs.rglob("*.png"):
        photo.unlink()
    read_pixels.cache.clear()
    assert validate(checkpoint, pairs=kept, tracker=tracker) == {}
    tracker.finish("FINISHED")


def test_photos_that_equal_their_truth_are_counted_and_in_no_mean() -> None:
    found = _averaged({"rain": [(30.0, 0.9), (math.inf, 1.0)], "snow": [(20.0, 0.8)], "haze": []})
    assert found == {
        **{"psnr_rain": 30.0, "psnr_snow": 20.0, "psnr": 25.0, "equal_rain": 1.0},
        **{"ssim_rain": pytest.approx(0.95), "ssim_snow": 0.8, "ssim": pytest.approx(0.875)},
    }
    assert _averaged({"rain": [(30.0, 0.9)], "snow": [(math.inf, 1.0)]})["psnr"] == 30.0
    assert _averaged({"rain": []}) == {}
