"""Agreement with every value of the published implementation's arrays, where these are at hand.

golden/ holds summaries of the same arrays, which test_golden.py checks in every clone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_cases import CASES, SCHEDULE_ARRAYS
from torch import Tensor

from diffuir_core import Schedule, UNet, load_weights, open_weights, sample
from diffuir_core.diffusion import forward_process, residual_loss, start_release


class Arrays:
    """The arrays of one case as tensors, and the network with its weights."""

    def __init__(self, file: Path, model: UNet) -> None:
        self.arrays = dict(np.load(file))
        self.model = model
        self.steps = int(self.arrays["steps"])

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def image(self, name: str) -> Tensor:
        """A uint8 image as (1, 3, H, W) in [0, 1]."""
        return self[name].permute(2, 0, 1)[None].float() / 255

    def training_pair(self) -> tuple[Tensor, Tensor]:
        """(clean, degraded) in [-1, 1], repeated for the five training times."""
        clean, degraded = ((self.image(name) * 2 - 1).expand(5, -1, -1, -1) for name in ("clean", "degraded"))
        return clean, degraded


@pytest.fixture(scope="module", params=CASES)
def arrays(request: pytest.FixtureRequest, shared: Path, by_rule: Callable[[str], UNet]) -> Arrays:
    file = shared / "golden" / f"golden_{request.param}.npz"
    return Arrays(file, by_rule(CASES[request.param].variant))


def worst(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max())


@pytest.mark.parametrize(("array", "attribute"), SCHEDULE_ARRAYS.items())
def test_schedule(shared: Path, array: str, attribute: str) -> None:
    expected = torch.from_numpy(np.load(shared / "golden" / "schedule_release.npz")[array])
    assert worst(getattr(Schedule.release(), attribute), expected) <= 1e-6


def test_network_output(arrays: Arrays) -> None:
    with torch.inference_mode():
        assert worst(arrays.model(arrays["unet_in"], arrays["unet_time"]), arrays["unet_out"]) <= 2e-5


def test_starting_point(arrays: Arrays) -> None:
    start = start_release(Schedule.release(), arrays.image("degraded") * 2 - 1, arrays["sampling_noise"])
    assert worst((start[0] + 1) / 2, arrays["start"]) <= 1e-6


def test_iterates_and_result(arrays: Arrays) -> None:
    iterates = sample(
        arrays.model, arrays.image("degraded"), arrays.steps, arrays["sampling_noise"], trajectory=True
    )
    assert worst(torch.cat(iterates), arrays["iterates"]) <= 1e-4
    restored = sample(arrays.model, arrays.image("degraded"), arrays.steps, arrays["sampling_noise"])
    assert worst(restored[0], arrays["restored"]) <= 1e-4


def test_forward_process(arrays: Arrays) -> None:
    clean, degraded = arrays.training_pair()
    noisy = forward_process(Schedule.release(), clean, degraded, arrays["train_t"], arrays["train_noise"])
    assert worst(noisy, arrays["train_xt"]) <= 1e-6


def test_training_loss(arrays: Arrays) -> None:
    clean, degraded = arrays.training_pair()
    with torch.inference_mode():
        losses = residual_loss(
            arrays.model, Schedule.release(), clean, degraded, arrays["train_t"], arrays["train_xt"]
        )
    assert float(losses.mean()) == pytest.approx(float(arrays["train_loss"]), abs=2e-6)


def test_a_published_checkpoint_gives_its_averaged_weights(shared: Path, tiny: UNet) -> None:
    file = shared / "golden" / "model-300.pt"
    loaded, expected = load_weights(file).state_dict(), tiny.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    assert open_weights(file).schedule.delta_end == pytest.approx(1.8e-3)
