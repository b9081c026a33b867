"""The diffusion as pure functions over tensors: the forward process, the loss, one reverse step.

| here        | paper            | shape, range                                                        |
|-------------|------------------|---------------------------------------------------------------------|
| `clean`     | I_0              | (B, 3, H, W), [-1, 1]                                               |
| `degraded`  | I_in             | (B, 3, H, W), [-1, 1]                                               |
| `residual`  | I_res            | (B, 3, H, W), degraded - clean; what the network predicts           |
| `image`     | I_t              | (B, 3, H, W), about [-1, 1] plus noise                              |
| `noise`     | epsilon          | (B, 3, H, W), standard normal                                       |
| `t`         | t                | (B,) int64 in 0 .. 999 (0-based), or one int for the whole batch    |

With the full condition these are the paper's equations. The ablations of Table 2 (`conditions.py`) set I_in to
zero in the process or at the network's input, or delta_bar to zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .conditions import CONDITIONS
from .schedule import Schedule

Network = Callable[[Tensor, Tensor], Tensor]
"""(B, 6, H, W) = concat(I_t, I_in) and (B,) times -> (B, 3, H, W) residual."""

START_NOISE = 0.1
"""Standard deviation of the noise at the published code's starting point (the paper has beta_bar_T there)."""


def network_time(schedule: Schedule, t: Tensor) -> Tensor:
    """The time input of the network at `t`: alpha_bar_t * 1000, float32, the shape of `t`."""
    return schedule.alpha_bar[t] * 1000.0


def forward_process(schedule: Schedule, clean: Tensor, degraded: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """I_t of Eq. 4: I_0 + alpha_bar_t I_res + beta_bar_t noise - delta_bar_t I_in."""
    alpha_bar, beta_bar, delta_bar = (
        c[t].view(-1, 1, 1, 1) for c in (schedule.alpha_bar, schedule.beta_bar, schedule.delta_bar)
    )
    end = schedule.explicit_condition(degraded)
    return clean + alpha_bar * (end - clean) + beta_bar * noise - delta_bar * end


def residual_loss(
    network: Network, schedule: Schedule, clean: Tensor, degraded: Tensor, t: Tensor, image: Tensor
) -> Tensor:
    """The L1 loss of Eq. 11 (Algorithm 1) for `image`, which is I_t, one value per image: float32 (B,).

    The mean over a batch is the training loss. One value per image allows losses per task.
    """
    x = torch.cat((image, schedule.implicit_condition(degraded)), dim=1)
    predicted = network(x, network_time(schedule, t))
    return (predicted.float() - (degraded - clean)).abs().mean(dim=(1, 2, 3))


def start_release(schedule: Schedule, degraded: Tensor, noise: Tensor) -> Tensor:
    """The published code's starting point of sampling: (1 - delta_bar_T) I_in + 0.1 noise.

    Without EC (`conditions.py`) the process ends in pure noise, which 0.1 noise does not resemble, so the starting
    point is Algorithm 2's.
    """
    if not CONDITIONS[schedule.condition].explicit:
        return start_paper(schedule, degraded, noise)
    return (1.0 - schedule.delta_bar[-1]) * schedule.explicit_condition(degraded) + START_NOISE * noise


def start_paper(schedule: Schedule, degraded: Tensor, noise: Tensor) -> Tensor:
    """Algorithm 2's starting point of sampling: (1 - delta_bar_T) I_in + beta_bar_T noise."""
    return (1.0 - schedule.delta_bar[-1]) * schedule.explicit_condition(degraded) + schedule.beta_bar[
        -1
    ] * noise


def predict_residual(network: Network, schedule: Schedule, image: Tensor, degraded: Tensor, t: int) -> Tensor:
    """The residual that the network predicts at time `t`, clipped to [-1, 1] as published."""
    time = network_time(schedule, torch.full((len(image),), t, device=image.device))
    x = torch.cat((image, schedule.implicit_condition(degraded)), dim=1)
    return network(x, time).float().clamp(-1.0, 1.0)


def end_minus_clean(schedule: Schedule, degraded: Tensor, residual: Tensor) -> Tensor:
    """The difference that the forward process scales by alpha_bar: I_res, or without EC 0 - I_0."""
    if CONDITIONS[schedule.condition].explicit:
        return residual
    return -(degraded - residual).clamp(-1.0, 1.0)


def ddim_step(
    schedule: Schedule, image: Tensor, degraded: Tensor, residual: Tensor, t: int, t_next: int
) -> Tensor:
    """I_{t-k} from I_t by Eq. 8, k = t - t_next; `t_next` = -1 gives the restored image I_in - I_res."""
    if t_next < 0:
        return (degraded - residual).clamp(-1.0, 1.0)
    alpha = schedule.alpha_bar[t] - schedule.alpha_bar[t_next]
    delta = schedule.delta_bar[t] - schedule.delta_bar[t_next]
    return (
        image
        - alpha * end_minus_clean(schedule, degraded, residual)
        + delta * schedule.explicit_condition(degraded)
    )


def ddpm_step(
    schedule: Schedule, image: Tensor, degraded: Tensor, residual: Tensor, t: int, noise: Tensor
) -> Tensor:
    """I_{t-1} from I_t by Eq. 6 and 7; t = 0 gives the restored image I_in - I_res.

    The noise in I_t follows from the residual by Eq. 4. noise: a fresh standard normal draw, (B, 3, H, W).
    """
    clean = (degraded - residual).clamp(-1.0, 1.0)
    if t == 0:
        return clean
    beta_bar, beta_squared = schedule.beta_bar[t], schedule.beta_squared[t]
    end, residual = schedule.explicit_condition(degraded), end_minus_clean(schedule, degraded, residual)
    predicted_noise = (
        image - clean - schedule.alpha_bar[t] * residual + schedule.delta_bar[t] * end
    ) / beta_bar
    mean = (
        image
        - schedule.alpha[t] * residual
        + schedule.delta[t] * end
        - beta_squared / beta_bar * predicted_noise
    )
    return mean + beta_squared.sqrt() * schedule.beta_bar[t - 1] / beta_bar * noise
