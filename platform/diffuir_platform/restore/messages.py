"""Messages between a command and the process in which it restores photos one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference import FetchedWeights
    from .settings import RestoreOptions


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """The first message, without an answer: the model and the settings of the photos that follow."""

    make: bytes
    """Pickled function that makes a restorer of a weights file, or of None for the weights that ship."""
    weights: FetchedWeights
    options: RestoreOptions
    target: str
    """URI of the folder of the results."""
    is_collection: bool
    """Whether the results belong to a ledger; otherwise what is under way is told by `Passes`."""


@dataclass(frozen=True)
class LoadModel:
    """A request to load the model now, and not for the first photo; answered by `Loaded` or `Refused`."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The answer that the model is loaded."""

    precision: str
    gpus: int
    """GPUs that models may use on this machine."""


@dataclass(frozen=True)
class Refused:
    """The answer that the model can't be loaded, with the sentence of the `UserError`."""

    reason: str


@dataclass(frozen=True)
class Passes:
    """A report before the answer: passes of the network done, of those that the photo needs.

    0 of 0: the photo is read, and the model is being loaded.
    """

    done: int
    total: int


@dataclass(frozen=True)
class Failed:
    """The answer to a request that met a fault of this program, with its traceback."""

    trace: str
