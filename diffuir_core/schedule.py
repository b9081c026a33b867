"""The three coefficients of the diffusion, over its T = 1000 times, and where the degraded image comes into it.

| here         | paper               | meaning                                             |
|--------------|---------------------|-----------------------------------------------------|
| `alpha_bar`  | alpha-bar_t (Eq. 4) | how much of the residual has been added             |
| `beta_bar`   | beta-bar_t (Eq. 4)  | standard deviation of the noise added               |
| `delta_bar`  | delta-bar_t (Eq. 4) | how much of the degraded image has been taken away  |

The paper lets alpha_bar reach 1 and says nothing of the curves; the numbers here are those of the published
implementation, which every published weight was trained with.

The ablation of Table 2 takes parts of the condition away. EC, the explicit condition, is I_in in the forward
process; IC, the implicit one, is I_in beside I_t at the network's input; SDT is the shared distribution term.

| `condition` | Table 2     | I_t                                       | the network sees | also known as        |
|-------------|-------------|-------------------------------------------|------------------|----------------------|
| `full`      | DiffUIR     | Eq. 4                                     | I_t, I_in        |                      |
| `no-sdt`    | -SDT        | I_0 + alpha_bar I_res + beta_bar eps      | I_t, I_in        | RDDM (section 3.1)   |
| `no-ec-sdt` | -EC & SDT   | (1 - alpha_bar) I_0 + beta_bar eps        | I_t, I_in        | conditional DDPM     |
| `no-ic-sdt` | -IC & SDT   | I_0 + alpha_bar I_res + beta_bar eps      | I_t              | RDDM, explicit only  |

What the network predicts is I_res in all of them, so that they share loss, loop and size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

T = 1000
"""Number of diffusion times (section 4.2)."""

Condition = Literal["full", "no-sdt", "no-ec-sdt", "no-ic-sdt"]


class Parts(NamedTuple):
    """What a condition is made of (section 4.4)."""

    explicit: bool
    implicit: bool
    shared: bool


CONDITIONS: dict[str, Parts] = {
    "full": Parts(explicit=True, implicit=True, shared=True),
    "no-sdt": Parts(explicit=True, implicit=True, shared=False),
    "no-ec-sdt": Parts(explicit=False, implicit=True, shared=False),
    "no-ic-sdt": Parts(explicit=True, implicit=False, shared=False),
}


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha_bar, beta_bar, delta_bar: float32 tensors of shape (1000,), index t = 0 .. 999.

    Built by a named constructor, so that `delta_end` and `condition` (what tells schedules apart) can be written
    beside the weights and read back.
    """

    alpha_bar: Tensor
    beta_bar: Tensor
    delta_bar: Tensor
    delta_end: float
    condition: str = "full"

    @classmethod
    def release(cls, delta_end: float = 1.8e-3, condition: str = "full") -> Self:
        """The published schedule.

        `delta_end` is the last increment of delta_bar: 1.8e-3 gives delta_bar_T = 0.9005 (DiffUIR), 1.4e-3
        gives 0.7005 (FoundIR). `condition`, a name of `CONDITIONS`: one without the shared distribution term has
        delta_bar = 0, whatever `delta_end` is.

        Raises `ValueError` where `delta_end` is not in [0, 1] and for another `condition`.
        """
        if not 0.0 <= delta_end <= 1.0:
            raise ValueError(f"delta_end is {delta_end}: it must lie in [0, 1]")
        if condition not in CONDITIONS:
            raise ValueError(f"no condition {condition!r}: choose one of {', '.join(CONDITIONS)}")
        # float32 from the start, as the published buffers were made: float64 differs in the seventh digit.
        signal = torch.cumprod(1.0 - torch.linspace(1e-4, 0.02, T), 0)
        delta_bar = torch.linspace(1e-6, delta_end, T).cumsum(0).clip(0.0, 1.0)
        return cls(
            alpha_bar=1.0 - signal**0.5,
            beta_bar=torch.sqrt(1.0 - signal),
            delta_bar=delta_bar if CONDITIONS[condition].shared else torch.zeros(T),
            delta_end=delta_end,
            condition=condition,
        )

    def explicit(self, degraded: Tensor) -> Tensor:
        """The I_in of the forward process, in which pure noise takes its place where there is no EC: I_in or 0."""
        return degraded if CONDITIONS[self.condition].explicit else torch.zeros_like(degraded)

    def implicit(self, degraded: Tensor) -> Tensor:
        """The I_in that the network sees beside I_t: I_in, or 0 where there is no IC."""
        return degraded if CONDITIONS[self.condition].implicit else torch.zeros_like(degraded)

    @property
    def alpha(self) -> Tensor:
        """alpha_t = alpha_bar_t - alpha_bar_(t-1), (1000,); the first, with none before it, is the second's."""
        return torch.cat((self.alpha_bar[1:2] - self.alpha_bar[:1], self.alpha_bar.diff()))

    @property
    def beta_squared(self) -> Tensor:
        """beta_t^2 = beta_bar_t^2 - beta_bar_(t-1)^2, (1000,); the first is the second's."""
        squared = self.beta_bar**2
        return torch.cat((squared[1:2] - squared[:1], squared.diff()))

    @property
    def delta(self) -> Tensor:
        """delta_t = delta_bar_t - delta_bar_(t-1), (1000,)."""
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
    """The times that `steps` sampling steps visit, from 999 down, with a last -1 that stands for "clean".

    `int(linspace(-1, 999, steps + 1))` reversed, as published: 3 steps give [999, 665, 332, -1].

    Raises `ValueError` where `steps` is not in 1 .. 1000.
    """
    if not 1 <= steps <= T:
        raise ValueError(f"steps is {steps}: it must lie in 1 .. {T}")
    return [int(t) for t in torch.linspace(-1, T - 1, steps + 1)][::-1]
