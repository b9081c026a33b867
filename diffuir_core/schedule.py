"""The three coefficients of the diffusion over its T = 1000 times.

| here         | paper               | meaning                                             |
|--------------|---------------------|-----------------------------------------------------|
| `alpha_bar`  | alpha-bar_t (Eq. 4) | share of the residual added so far                  |
| `beta_bar`   | beta-bar_t (Eq. 4)  | standard deviation of the noise added so far        |
| `delta_bar`  | delta-bar_t (Eq. 4) | share of the degraded image subtracted so far       |

The paper lets alpha_bar reach 1 and does not give the curves. The numbers here are those of the published
implementation, with which all published weights were trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from .conditions import CONDITIONS

T = 1000
"""Number of diffusion times (section 4.2)."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha_bar, beta_bar, delta_bar: float32 tensors of shape (1000,), index t = 0 .. 999.

    `release` makes one. Two schedules differ by `delta_end` and `condition` alone, so a weights file stores these.
    """

    alpha_bar: Tensor
    beta_bar: Tensor
    delta_bar: Tensor
    delta_end: float
    condition: str = "full"

    @classmethod
    def release(cls, delta_end: float = 1.8e-3, condition: str = "full") -> Self:
        """The published schedule.

        delta_end: last increment of delta_bar; 1.8e-3 gives delta_bar_T = 0.9005 (DiffUIR), 1.4e-3 gives 0.7005
        (FoundIR). condition: a name of `CONDITIONS`; without the shared distribution term delta_bar is 0, whatever
        `delta_end` is.

        Raises `ValueError` for a `delta_end` outside [0, 1] or another `condition`.
        """
        if not 0.0 <= delta_end <= 1.0:
            raise ValueError(f"delta_end is {delta_end}: it must lie in [0, 1]")
        if condition not in CONDITIONS:
            raise ValueError(f"there is no condition {condition!r}: choose one of {', '.join(CONDITIONS)}")
        # In float32 throughout, like the published buffers: float64 differs in the seventh digit.
        signal = torch.cumprod(1.0 - torch.linspace(1e-4, 0.02, T), 0)
        delta_bar = torch.linspace(1e-6, delta_end, T).cumsum(0).clip(0.0, 1.0)
        return cls(
            alpha_bar=1.0 - signal**0.5,
            beta_bar=torch.sqrt(1.0 - signal),
            delta_bar=delta_bar if CONDITIONS[condition].shared else torch.zeros(T),
            delta_end=delta_end,
            condition=condition,
        )

    def explicit_condition(self, degraded: Tensor) -> Tensor:
        """I_in as the forward process uses it: `degraded`, or zeros without EC."""
        return degraded if CONDITIONS[self.condition].explicit else torch.zeros_like(degraded)

    def implicit_condition(self, degraded: Tensor) -> Tensor:
        """I_in as the network sees it beside I_t: `degraded`, or zeros without IC."""
        return degraded if CONDITIONS[self.condition].implicit else torch.zeros_like(degraded)

    @property
    def alpha(self) -> Tensor:
        """alpha_t = alpha_bar_t - alpha_bar_(t-1), (1000,); the first one repeats the second, as published."""
        return torch.cat((self.alpha_bar[1:2] - self.alpha_bar[:1], self.alpha_bar.diff()))

    @property
    def beta_squared(self) -> Tensor:
        """beta_t^2 = beta_bar_t^2 - beta_bar_(t-1)^2, (1000,); the first one repeats the second, as published."""
        squared = self.beta_bar**2
        return torch.cat((squared[1:2] - squared[:1], squared.diff()))

    @property
    def delta(self) -> Tensor:
        """delta_t = delta_bar_t - delta_bar_(t-1), (1000,); the first one is delta_bar_0."""
        return torch.cat((self.delta_bar[:1], self.delta_bar.diff()))

    def to(self, device: torch.device | str) -> Self:
        """The same schedule with its tensors on `device`."""
        return replace(
            self,
            alpha_bar=self.alpha_bar.to(device),
            beta_bar=self.beta_bar.to(device),
            delta_bar=self.delta_bar.to(device),
        )


def sampling_times(steps: int) -> list[int]:
    """The times that `steps` sampling steps visit, from 999 down; a final -1 stands for the clean image.

    `int(linspace(-1, 999, steps + 1))` reversed, as published: 3 steps give [999, 665, 332, -1].

    Raises `ValueError` for `steps` outside 1 .. 1000.
    """
    if not 1 <= steps <= T:
        raise ValueError(f"steps is {steps}: it must lie in 1 .. {T}")
    return [int(t) for t in torch.linspace(-1, T - 1, steps + 1)][::-1]
