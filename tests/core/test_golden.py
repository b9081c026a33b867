"""Agreement with numbers computed by the published implementation (golden/README.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import (
    CASES,
    PREFIX,
    SCHEDULE_ARRAYS,
    distance,
    drawn,
    read,
    read_image,
    summary,
    weight_by_rule,
)
from torch import Tensor

from diffuir_core import Schedule, UNet, load_weights, open_weights, sample
from diffuir_core.diffusion import forward_process, residual_loss, start_release


class Golden:
    """The inputs and expected results of one case, and the network with its weights."""

    def __init__(self, name: str, model: UNet) -> None:
        self.model = model
        self.expected: dict[str, Any] = read(name)
        self.clean, self.degraded = (read_image(name, side) for side in ("clean", "degraded"))
        self._name = name

    def draw(self, name: str, *shape: int) -> Tensor:
        """A random input for the case's images: (*shape, H, W)."""
        return torch.from_numpy(drawn(CASES[self._name], name, (*shape, *self.clean.shape[-2:])))

    def training_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """(clean, degraded, t): the five training times, and both images in [-1, 1], repeated for them."""
        t = torch.tensor(self.expected["train_t"])
        clean, degraded = (
            (image * 2 - 1).expand(len(t), -1, -1, -1) for image in (self.clean, self.degraded)
        )
        return clean, degraded, t


@pytest.fixture(scope="module", params=CASES)
def golden(request: pytest.FixtureRequest, by_rule: Callable[[str], UNet]) -> Golden:
    return Golden(request.param, by_rule(CASES[request.param].variant))


@pytest.mark.parametrize(("array", "attribute"), SCHEDULE_ARRAYS.items())
def test_schedule(array: str, attribute: str) -> None:
    assert distance(getattr(Schedule.release(), attribute), read("schedule_release")[array]) <= 1e-6


def test_network_output(golden: Golden) -> None:
    with torch.inference_mode():
        out = golden.model(golden.draw("unet_in", 1, 6), torch.tensor(golden.expected["unet_time"]))
    assert distance(out, golden.expected["unet_out"]) <= 2e-5


def test_starting_point(golden: Golden) -> None:
    noise = golden.draw("sampling_noise", 1, 3)
    start = start_release(Schedule.release(), golden.degraded * 2 - 1, noise)
    assert distance((start[0] + 1) / 2, golden.expected["start"]) <= 1e-6


def test_iterates_and_result(golden: Golden) -> None:
    steps, noise = golden.expected["steps"], golden.draw("sampling_noise", 1, 3)
    iterates = sample(golden.model, golden.degraded, steps, noise, trajectory=True)
    assert distance(torch.cat(iterates), golden.expected["iterates"]) <= 1e-4
    assert torch.equal(sample(golden.model, golden.degraded, steps, noise), iterates[-1])


def test_forward_process(golden: Golden) -> None:
    clean, degraded, t = golden.training_batch()
    noisy = forward_process(Schedule.release(), clean, degraded, t, golden.draw("train_noise", 5, 3))
    assert distance(noisy, golden.expected["train_xt"]) <= 1e-6


def test_training_loss(golden: Golden) -> None:
    clean, degraded, t = golden.training_batch()
    schedule = Schedule.release()
    with torch.inference_mode():
        noisy = forward_process(schedule, clean, degraded, t, golden.draw("train_noise", 5, 3))
        losses = residual_loss(golden.model, schedule, clean, degraded, t, noisy)
    assert float(losses.mean()) == pytest.approx(golden.expected["train_loss"], abs=2e-6)


def test_a_summary_shows_a_change_of_any_single_value() -> None:
    array = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    expected = summary(array.numpy())
    assert distance(array, expected) < 1e-8
    for place in torch.randint(array.numel(), (100,), generator=torch.Generator().manual_seed(1)):
        changed = array.clone()
        changed.view(-1)[place] += 0.01
        assert distance(changed, expected) > 2e-5


def test_parameters_have_the_published_names_and_shapes(tiny: UNet) -> None:
    ours = {key: list(value.shape) for key, value in tiny.state_dict().items()}
    assert ours == read("checkpoint_T")["parameters"]


@pytest.mark.parametrize("delta_end", [1.8e-3, 1.4e-3])
def test_a_published_checkpoint_gives_its_averaged_weights(
    tiny: UNet, tmp_path: Path, delta_end: float
) -> None:
    """A checkpoint in the published trainer's layout, whose live weights are half of the averaged ones."""
    layout = read("checkpoint_T")
    buffers = {name: torch.zeros(1000) for name in layout["buffers"]} | {
        "delta": torch.linspace(1e-6, delta_end, 1000)
    }
    averaged = {PREFIX + key: weight_by_rule(key, tuple(s)) for key, s in layout["parameters"].items()}
    live = {key: value / 2 for key, value in averaged.items()} | buffers
    ema = {f"ema_model.{key}": value for key, value in (averaged | buffers).items()}
    ema |= {f"online_model.{key}": value for key, value in live.items()}
    ema |= {"initted": torch.tensor(True), "step": torch.tensor(300_000)}
    optimizer = torch.optim.Adam([torch.zeros(1)], 8e-5, (0.9, 0.99)).state_dict()
    file = tmp_path / "model-300.pt"
    torch.save({"step": 300_000, "model": live, "opt0": optimizer, "ema": ema, "scaler": None}, file)
    loaded, expected = load_weights(file).state_dict(), tiny.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    assert open_weights(file).schedule.delta_end == pytest.approx(delta_end)
