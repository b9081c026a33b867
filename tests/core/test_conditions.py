"""The ablations of Table 2: the same loop with parts of the condition removed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffuir_core import Restorer, Schedule, UNet, UserError, open_weights, sample, sample_ddpm, save_weights
from diffuir_core.conditions import CONDITIONS
from diffuir_core.diffusion import ddim_step, forward_process, predict_residual, residual_loss, start_paper
from diffuir_core.restorer import content_noise

ABLATIONS = [name for name in CONDITIONS if name != "full"]
NAMES = pytest.mark.parametrize("name", CONDITIONS)


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    clean, degraded = torch.rand((2, 2, 3, 8, 8), generator=generator) - 0.5
    return clean, degraded


def at(t: int) -> Tensor:
    return torch.tensor([t, t])


def test_the_full_condition_is_equation_4_bit_for_bit() -> None:
    schedule, (clean, degraded) = Schedule.release(), pair()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    a, b, d = (c[700] for c in (schedule.alpha_bar, schedule.beta_bar, schedule.delta_bar))
    expected = clean + a * (degraded - clean) + b * noise - d * degraded
    assert torch.equal(forward_process(schedule, clean, degraded, at(700), noise), expected)
    residual = degraded - clean
    step = ddim_step(schedule, expected, degraded, residual, 700, 300)
    a, d = (c[700] - c[300] for c in (schedule.alpha_bar, schedule.delta_bar))
    assert torch.equal(step, expected - a * residual + d * degraded)


@pytest.mark.parametrize("name", ABLATIONS)
def test_no_ablation_has_the_shared_distribution_term(name: str) -> None:
    schedule = Schedule.release(condition=name)
    assert not schedule.delta_bar.any()
    assert torch.equal(schedule.alpha_bar, Schedule.release().alpha_bar)


@NAMES
@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("start", ["release", "paper"])
def test_ddim_with_the_true_residual_gives_the_clean_image(name: str, steps: int, start: str) -> None:
    clean, degraded = pair()
    schedule = Schedule.release(condition=name)
    restored = sample(
        lambda x, time: degraded - clean, (degraded + 1) / 2, steps, schedule=schedule, start=start
    )
    torch.testing.assert_close(restored, (clean + 1) / 2, atol=1e-6, rtol=0)


@NAMES
def test_ddpm_with_the_true_residual_stays_on_the_forward_process(name: str) -> None:
    """With the true residual, the image after 900 ancestral steps has the mean and spread of Eq. 4."""
    clean, degraded = torch.full((1, 3, 64, 64), 0.2), torch.full((1, 3, 64, 64), -0.4)
    seen: dict[int, Tensor] = {}
    schedule = Schedule.release(condition=name)

    def network(x: Tensor, time: Tensor) -> Tensor:
        seen[len(seen)] = x[:, :3]
        return degraded - clean

    restored = sample_ddpm(network, (degraded + 1) / 2, torch.randn(clean.shape), schedule)
    torch.testing.assert_close(restored, (clean + 1) / 2, atol=1e-6, rtol=0)
    t = 100
    mean = forward_process(schedule, clean, degraded, torch.tensor([t]), torch.zeros_like(clean)).mean()
    assert float(seen[999 - t].mean()) == pytest.approx(float(mean), abs=2e-2)
    assert float(seen[999 - t].std()) == pytest.approx(float(schedule.beta_bar[t]), rel=5e-2)


@NAMES
def test_ddim_steps_stay_on_the_forward_process_without_noise(name: str) -> None:
    """From the last time to the first, Eq. 8 maps the forward process's mean to its mean at an earlier time."""
    clean, degraded = pair()
    schedule = Schedule.release(condition=name)
    still = torch.zeros_like(clean)
    image = forward_process(schedule, clean, degraded, at(999), still)
    for t, t_next in ((999, 500), (500, 0)):
        image = ddim_step(schedule, image, degraded, degraded - clean, t, t_next)
        expected = forward_process(schedule, clean, degraded, at(t_next), still)
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)


@NAMES
def test_the_last_time_of_the_forward_process_is_where_sampling_starts(name: str) -> None:
    """They differ by the 0.6% of the clean image that alpha_bar_T = 0.9936 leaves, which no sampler can know."""
    clean, degraded = pair()
    schedule = Schedule.release(condition=name)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    gap = forward_process(schedule, clean, degraded, at(999), noise) - start_paper(schedule, degraded, noise)
    left = (1 - schedule.alpha_bar[-1]) * (clean - schedule.explicit_condition(degraded))
    torch.testing.assert_close(gap, left, atol=1e-5, rtol=0)


@NAMES
def test_where_the_degraded_image_comes_in(name: str) -> None:
    parts = CONDITIONS[name]
    schedule = Schedule.release(condition=name)
    clean, degraded = pair()
    still, other = torch.zeros_like(clean), degraded.flip(0)
    images = [forward_process(schedule, clean, d, at(500), still) for d in (degraded, other)]
    assert torch.equal(*images) is not parts.explicit
    inputs: list[Tensor] = []

    def network(x: Tensor, time: Tensor) -> Tensor:
        inputs.append(x)
        return x[:, :3]

    predict_residual(network, schedule, images[0], degraded, 500)
    residual_loss(network, schedule, clean, degraded, at(500), images[0])
    for x in inputs:
        assert torch.equal(x[:, :3], images[0])
        assert torch.equal(x[:, 3:], degraded if parts.implicit else still)


def test_without_the_explicit_condition_it_is_the_standard_diffusion() -> None:
    schedule, (clean, degraded) = Schedule.release(condition="no-ec-sdt"), pair()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    signal = torch.cumprod(1.0 - torch.linspace(1e-4, 0.02, 1000), 0)[400]
    expected = signal.sqrt() * clean + (1 - signal).sqrt() * noise
    torch.testing.assert_close(forward_process(schedule, clean, degraded, at(400), noise), expected)


@NAMES
def test_weights_are_restored_with_the_process_they_name(name: str, tiny: UNet, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_weights(file, tiny, Schedule.release(condition=name))
    schedule = open_weights(file).schedule
    assert schedule.condition == name
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    restorer = Restorer(file, "cpu", "float32")
    (restored,) = restorer.restore([image])
    signal = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    expected = sample(tiny, signal, noise=content_noise(image, 0), schedule=schedule)
    pixels = (expected[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.abs(restored.astype(int) - pixels).max() <= 1
    full = tmp_path / "full.safetensors"
    save_weights(full, tiny, Schedule.release())
    (other,) = Restorer(full, "cpu", "float32").restore([image])
    assert np.array_equal(restored, other) is (name == "full")


def resaved(file: Path, schedule: dict[str, object]) -> None:
    with safe_open(file, framework="pt") as opened:
        header = {**opened.metadata(), "schedule": json.dumps(schedule)}
        state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    save_file(state, file, metadata=header)


def test_weights_without_a_condition_have_the_full_one(tiny: UNet, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_weights(file, tiny, Schedule.release(condition="no-sdt"))
    resaved(file, {"name": "release", "delta_end": 1.4e-3})
    schedule = open_weights(file).schedule
    assert (schedule.condition, schedule.delta_end) == ("full", 1.4e-3)
    resaved(file, {"name": "release", "delta_end": 1.4e-3, "condition": "no-such"})
    with pytest.raises(UserError, match="no-such"):
        open_weights(file)


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="no-sdt"):
        Schedule.release(condition="sdt")
