"""The full condition of the diffusion and its ablations (section 4.4, Table 2).

The ablation of Table 2 removes parts of the condition. EC, the explicit condition, is I_in in the forward
process. IC, the implicit condition, is I_in beside I_t at the network's input. SDT is the shared distribution
term, delta_bar_t I_in.

| `condition` | Table 2     | I_t                                       | the network sees | also known as        |
|-------------|-------------|-------------------------------------------|------------------|----------------------|
| `full`      | DiffUIR     | Eq. 4                                     | I_t, I_in        |                      |
| `no-sdt`    | -SDT        | I_0 + alpha_bar I_res + beta_bar eps      | I_t, I_in        | RDDM (section 3.1)   |
| `no-ec-sdt` | -EC & SDT   | (1 - alpha_bar) I_0 + beta_bar eps        | I_t, I_in        | conditional DDPM     |
| `no-ic-sdt` | -IC & SDT   | I_0 + alpha_bar I_res + beta_bar eps      | I_t              | RDDM, explicit only  |

The network predicts I_res in all of them, so that they share loss, loop and size.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Condition = Literal["full", "no-sdt", "no-ec-sdt", "no-ic-sdt"]
"""Name of the full condition or of one of its ablations; the first column of the table above."""


class ConditionParts(NamedTuple):
    """The parts that a condition has (section 4.4)."""

    explicit: bool
    """True with I_in in the forward process (EC)."""
    implicit: bool
    """True with I_in at the network's input (IC)."""
    shared: bool
    """True with the shared distribution term (SDT)."""


CONDITIONS: dict[str, ConditionParts] = {
    "full": ConditionParts(explicit=True, implicit=True, shared=True),
    "no-sdt": ConditionParts(explicit=True, implicit=True, shared=False),
    "no-ec-sdt": ConditionParts(explicit=False, implicit=True, shared=False),
    "no-ic-sdt": ConditionParts(explicit=True, implicit=False, shared=False),
}
