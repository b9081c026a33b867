"""The reverse process (Algorithm 2): a degraded image in, a restored one out."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, overload

import torch
from torch import Tensor

from .diffusion import Network, ddim_step, ddpm_step, predict_residual, start_paper, start_release
from .schedule import Schedule, T, sampling_times

Start = Callable[[Schedule, Tensor, Tensor], Tensor]
"""The schedule, I_in and a standard normal draw -> the starting point, (B, 3, H, W)."""

Predict = Callable[[Tensor, int, int], Tensor]
"""I_t, the number of the step from 0, its time t -> the residual, clipped to [-1, 1]."""

STARTS: dict[str, Start] = {"release": start_release, "paper": start_paper}
"""The starting points by name: the published code's and Algorithm 2's."""


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

    degraded: (B, 3, H, W) float in [0, 1]. noise: (B, 3, H, W) standard normal; None draws it. schedule: None for
    the published one. start: "release" (0.1 eps) or "paper" (beta_bar_T eps).

    Returns the restored images, (B, 3, H, W) in [0, 1]; with `trajectory` the list of the images after each step,
    of which only the last is clipped to [0, 1]. Raises `ValueError` for steps outside 1 .. 1000 or another start.
    """
    schedule, noise, degraded = _prepare(degraded, noise, schedule)
    if start not in STARTS:
        raise ValueError(f"there is no starting point {start!r}: choose one of {', '.join(STARTS)}")

    def predict(image: Tensor, step: int, t: int) -> Tensor:
        return predict_residual(model, schedule, image, degraded, t)

    image = STARTS[start](schedule, degraded, noise)
    images = (_to_unit(image) for image in ddim(predict, schedule, image, degraded, steps))
    return list(images) if trajectory else last(images)


def ddim(
    predict: Predict, schedule: Schedule, image: Tensor, degraded: Tensor, steps: int
) -> Iterator[Tensor]:
    """Yield the image after each of `steps` DDIM steps, (B, 3, H, W), scaled to [-1, 1].

    image: the starting point. degraded: I_in, (B, 3, H, W) in [-1, 1].
    """
    for step, (t, t_next) in enumerate(itertools.pairwise(sampling_times(steps))):
        residual = predict(image, step, t)
        image = ddim_step(schedule, image, degraded, residual, t, t_next)
        yield image


def last(images: Iterable[Tensor]) -> Tensor:
    """The last of `images`; the earlier ones are not kept."""
    return deque(images, maxlen=1)[0]


@torch.inference_mode()
def sample_ddpm(
    model: Network,
    degraded: Tensor,
    noise: Tensor | None = None,
    schedule: Schedule | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Restore by all 1000 ancestral steps of Eq. 6 and 7, from the paper's starting point.

    degraded: (B, 3, H, W) float in [0, 1]. noise: the starting point's draw, (B, 3, H, W); None draws it.
    generator: the source of each step's noise, on the CPU; None for torch's global one. Returns (B, 3, H, W) in
    [0, 1].
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
