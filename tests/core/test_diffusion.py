"""The equations of the paper agree with each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffuir_core import Schedule, sample, sample_ddpm
from diffuir_core.diffusion import ddim_step, ddpm_step, forward_process, start_paper, start_release
from diffuir_core.schedule import sampling_times

SCHEDULE = Schedule.release()


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    clean, degraded = torch.rand((2, 2, 3, 8, 8), generator=generator) - 0.5
    return clean, degraded


def oracle(clean: Tensor) -> object:
    """A network that returns the true residual."""
    return lambda x, time: x[:, 3:] - clean


def test_published_end_of_the_schedule() -> None:
    assert float(SCHEDULE.delta_bar[-1]) == pytest.approx(0.9005, abs=1e-4)
    assert float(SCHEDULE.alpha_bar[-1]) == pytest.approx(0.9936, abs=1e-4)
    assert float(Schedule.release(1.4e-3).delta_bar[-1]) == pytest.approx(0.7005, abs=1e-4)


def test_delta_bar_is_capped_at_one() -> None:
    assert float(Schedule.release(1e-2).delta_bar.max()) == 1.0


@pytest.mark.parametrize("delta_end", [-1e-9, 1.1])
def test_impossible_delta_is_refused(delta_end: float) -> None:
    with pytest.raises(ValueError, match="delta_end"):
        Schedule.release(delta_end)


@pytest.mark.parametrize(
    ("steps", "times"), [(1, [999, -1]), (3, [999, 665, 332, -1]), (4, [999, 749, 499, 249, -1])]
)
def test_sampling_times(steps: int, times: list[int]) -> None:
    assert sampling_times(steps) == times


def test_a_thousand_steps_visit_every_time() -> None:
    assert sampling_times(1000) == list(range(999, -2, -1))


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="steps"):
        sampling_times(steps)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("start", ["release", "paper"])
def test_ddim_with_the_true_residual_gives_the_clean_image(steps: int, start: str) -> None:
    clean, degraded = pair()
    restored = sample(oracle(clean), (degraded + 1) / 2, steps, start=start)  # type: ignore[arg-type]
    torch.testing.assert_close(restored, (clean + 1) / 2, atol=1e-6, rtol=0)


def test_ddpm_with_the_true_residual_gives_the_clean_image() -> None:
    clean, degraded = pair()
    restored = sample_ddpm(oracle(clean), (degraded + 1) / 2)  # type: ignore[arg-type]
    torch.testing.assert_close(restored, (clean + 1) / 2, atol=1e-6, rtol=0)


def test_ddim_step_stays_on_the_forward_process_without_noise() -> None:
    """Eq. 8 takes the mean of Eq. 4 at t to its mean at t - k."""
    clean, degraded = pair()
    still = torch.zeros_like(clean)
    at = {t: forward_process(SCHEDULE, clean, degraded, torch.tensor([t, t]), still) for t in (800, 300)}
    stepped = ddim_step(SCHEDULE, at[800], degraded, degraded - clean, 800, 300)
    torch.testing.assert_close(stepped, at[300], atol=1e-5, rtol=0)


def test_ddpm_step_has_the_mean_and_variance_of_the_forward_process() -> None:
    """From I_t drawn by Eq. 4, one step of Eq. 7 gives draws with the statistics of Eq. 4 at t - 1."""
    t = 500
    generator = torch.Generator().manual_seed(1)
    clean, degraded = torch.full((1, 3, 300, 300), 0.2), torch.full((1, 3, 300, 300), -0.4)
    image = forward_process(
        SCHEDULE, clean, degraded, torch.tensor([t]), torch.randn(clean.shape, generator=generator)
    )
    fresh = torch.randn(clean.shape, generator=generator)
    stepped = ddpm_step(SCHEDULE, image, degraded, degraded - clean, t, fresh)
    mean = forward_process(SCHEDULE, clean, degraded, torch.tensor([t - 1]), torch.zeros_like(clean))
    assert float(stepped.mean()) == pytest.approx(float(mean.mean()), abs=5e-3)
    assert float(stepped.std()) == pytest.approx(float(SCHEDULE.beta_bar[t - 1]), rel=1e-2)


def test_the_two_starting_points() -> None:
    _, degraded = pair()
    noise = torch.randn(degraded.shape, generator=torch.Generator().manual_seed(0))
    rest = (1 - SCHEDULE.delta_bar[-1]) * degraded
    torch.testing.assert_close(start_release(SCHEDULE, degraded, noise) - rest, 0.1 * noise)
    torch.testing.assert_close(start_paper(SCHEDULE, degraded, noise) - rest, SCHEDULE.beta_bar[-1] * noise)


def test_unknown_start_is_refused() -> None:
    _, degraded = pair()
    with pytest.raises(ValueError, match="starting point"):
        sample(oracle(degraded), degraded, start="middle")  # type: ignore[arg-type]


def test_same_noise_same_result_whatever_the_batch(tiny: object) -> None:
    degraded = torch.rand((3, 3, 24, 40), generator=torch.Generator().manual_seed(5))
    noise = torch.randn(degraded.shape, generator=torch.Generator().manual_seed(6))
    together = sample(tiny, degraded, noise=noise)  # type: ignore[arg-type]
    alone = torch.cat([sample(tiny, d[None], noise=n[None]) for d, n in zip(degraded, noise, strict=True)])  # type: ignore[arg-type]
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
