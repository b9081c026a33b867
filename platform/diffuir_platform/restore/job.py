"""One run of `diffuir restore`, from the paths to the summary."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from diffuir_core.errors import UserError

from ..runtime import ray_session
from .discovery import plan, prepare_output
from .pipeline import ModelSettings, restored
from .progress import Progress
from .summary import Summary


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """The options of `diffuir restore`; raises UserError for a value out of range."""

    weights: str | None = None
    """A weights file; None for those that ship."""
    steps: int = 3
    """Sampling steps, 1 to 1000."""
    seed: int = 0
    """With a photo's own content, what its noise is drawn from; 0 or more."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, or cuda."""
    batch_size: int = 4
    """Photos handed to the model at once."""
    quality: int = 95
    """Of JPEG and lossy WebP, 1 to 100."""
    address: str | None = None
    """A running Ray cluster to join; None starts one on this machine."""

    def __post_init__(self) -> None:
        ranges = {"steps": (1, 1000), "seed": (0, 2**63 - 1), "batch_size": (1, 1024), "quality": (1, 100)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name.replace('_', '-')} is {value}: it must lie in {low} .. {high}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise UserError(f"device is {self.device!r}: choose auto, cpu or cuda")


def restore(
    source: str | os.PathLike[str], target: str | os.PathLike[str], options: RestoreOptions | None = None
) -> Summary:
    """Restore a photo or a folder of photos into `target`; show progress on stderr; return what came of it.

    Everything that a user can put right is checked before Ray starts and raises UserError. Photos that fail are
    in the summary and stop nothing. A Ray that this process has already started is used.
    """
    options = options or RestoreOptions()
    work = plan(os.fspath(source), os.fspath(target))
    weights = _checked_weights(options.weights)
    _check_device(options)
    prepare_output(work.target)
    summary = Summary(str(target), ignored=work.ignored)
    for key, reason in work.unreadable:
        summary.fail(key, reason)
    if work.items:
        settings = ModelSettings(
            weights=weights, steps=options.steps, seed=options.seed, device=options.device
        )
        with (
            Progress(summary, len(work.items)) as progress,
            ray_session(options.address, options.device, len(work.items)) as resources,
        ):
            for status in restored(work.items, settings, resources, options.batch_size, options.quality):
                summary.add(status)
                progress.update()
    summary.finish()
    return summary


def _checked_weights(weights: str | None) -> str | None:
    """Open the weights once here, so that a wrong file is one sentence now and not a failure in a worker later."""
    from diffuir_core import open_weights

    open_weights(weights)
    return None if weights is None else str(Path(weights).absolute())


def _check_device(options: RestoreOptions) -> None:
    import torch

    if options.device == "cuda" and options.address is None and not torch.cuda.is_available():
        raise UserError("this machine has no GPU that torch can use: leave --device out or say cpu")
