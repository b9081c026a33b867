"""Messages between a process that restores photos and the one that has started it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference import FetchedWeights
    from .inputs import Item
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
    """Whether the results belong to a ledger."""
    threads: int | None = None
    """Threads for the model's arithmetic; None for torch's own choice."""
    calls: int = 1
    """Requests that are worked on at the same time: while the photos of one are restored, those of another are
    read or written."""


@dataclass(frozen=True)
class LoadModel:
    """A request to load the model now, and not for the first photo; answered by `Loaded` or `Refused`."""


@dataclass(frozen=True)
class Restore:
    """A request to read, restore and write photos; answered by `Restored`, or by `Refused`."""

    items: tuple[Item, ...]


@dataclass(frozen=True)
class Restored:
    """The answer that photos have been dealt with."""

    pickled: bytes
    """A list with a `FinishedPhoto` of each, in order; pickled, as an actor passes it on without a look at it."""
    restoring: float
    """Share of the model in the time that they took, 0 to 1."""


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


class Stage(Enum):
    """A report before the answer: what begins now."""

    READS = "reads"
    WAITS = "waits"
    """For the model, which works on other photos."""
    LOADS = "loads"
    """Loads the model."""
    RESTORES = "restores"
    WRITES = "writes"


@dataclass(frozen=True)
class Passes:
    """A report before the answer: passes of the network done, of those that a photo or a batch needs.

    0 of 0: the photo is read, and the model is not loaded yet.
    """

    done: int
    total: int


@dataclass(frozen=True)
class Failed:
    """The answer to a request that met a fault of this program, with its traceback."""

    trace: str
