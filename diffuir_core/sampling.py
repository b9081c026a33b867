"""The reverse process (Algorithm 2): a degraded image in, a restored one out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal, overload

import torch
from torch import Tensor

from .diffusion import Network, ddim_step, ddpm_step, predict_residual, start_paper, start_release
from .schedule import Schedule, T, sampling_times

Start = Callable[[Schedule, Tensor, Tensor], Tensor]

STARTS: dict[str, Start] = {"release": start_release, "paper": start_paper}


@overload
def sample(
    model: Network,
    degraded: Tensor,
    steps: int = 3,
    noise: Tensor | None = None,
    schedule: Schedule | None = None,
    trajectory: Literal[False] = False,
    start: str = "release",
) -> Tensor: ...
@overload
def sample(
    model: Network,
    degraded: Tensor,
    steps: int = 3,
    noise: Tensor | None = None,
    schedule: Schedule | None = None,
    *,
    trajectory: Literal[True],
    start: str = "release",
) -> list[Tensor]: ...
@torch.inference_mode()
def sample(
    model: Network,
    degraded: Tensor,
    steps: int = 3,
    noise: Tensor | None = None,
    schedule: Schedule | None = None,
    trajectory: bool = False,
    start: str = "release",
) -> Tensor | list[Tensor]:
    """Restore by DDIM (Algorithm 2 with Eq. 8) in `steps` passes of the network.

    degraded: (B, 3, H, W) float in [0, 1]. noise: (B, 3, H, W) standard normal, drawn where None. schedule: the
    released one where None. start: "release" (0.1 eps) or "paper" (beta_bar_T eps).

    Returns the restored (B, 3, H, W) in [0, 1]; with `trajectory` the list of the image after each step, not
    clipped but for the last. Raises `ValueError` for steps outside 1 .. 1000 or another start.
    """
    schedule, noise, degraded = _prepare(degraded, noise, schedule)
    if start not in STARTS:
        raise ValueError(f"no starting point {start!r}: choose one of {', '.join(STARTS)}")
    image = STARTS[start](schedule, degraded, noise)
    times = sampling_times(steps)
    images = []
    for t, t_next in itertools.pairwise(times):
        residual = predict_residual(model, schedule, image, degraded, t)
        image = ddim_step(schedule, image, degraded, residual, t, t_next)
        images.append(_to_unit(image))
    return images if trajectory else images[-1]


@torch.inference_mode()
def sample_ddpm(
    model: Network,
    degraded: Tensor,
    noise: Tensor | None = None,
    schedule: Schedule | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Restore by all 1000 ancestral steps of Eq. 6 and 7, from the paper's starting point.

    degraded: (B, 3, H, W) float in [0, 1]. noise: the first draw, (B, 3, H, W); later ones come from `generator`
    (torch's global one where None). Returns (B, 3, H, W) in [0, 1].
    """
    schedule, noise, degraded = _prepare(degraded, noise, schedule)
    image = start_paper(schedule, degraded, noise)
    for t in range(T - 1, -1, -1):
        residual = predict_residual(model, schedule, image, degraded, t)
        fresh = torch.randn(image.shape, generator=generator).to(image.device)
        image = ddpm_step(schedule, image, degraded, residual, t, fresh)
    return _to_unit(image)


def _prepare(
    degraded: Tensor, noise: Tensor | None, schedule: Schedule | None
) -> tuple[Schedule, Tensor, Tensor]:
    schedule = (schedule or Schedule.release()).to(degraded.device)
    if noise is None:
        noise = torch.randn_like(degraded)
    return schedule, noise, degraded * 2.0 - 1.0


def _to_unit(image: Tensor) -> Tensor:
    return (image + 1.0) / 2.0
