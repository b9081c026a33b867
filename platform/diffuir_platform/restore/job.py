"""One run of `diffuir restore`, from the paths to the summary."""

from __future__ import annotations

import os
from pathlib import Path

from diffuir_core.errors import UserError

from ..runtime import ray_session
from .discovery import plan, prepare_output
from .pipeline import restored
from .progress import Progress
from .settings import RestoreOptions
from .summary import Summary


def restore(
    source: str | os.PathLike[str], target: str | os.PathLike[str], options: RestoreOptions | None = None
) -> Summary:
    """Restore a photo or a folder of photos into `target`; show progress on stderr; return what came of it.

    Everything that a user can put right is checked before Ray starts and raises UserError. Photos that fail are
    in the summary and stop nothing. A Ray that this process has already started is used.
    """
    options = options or RestoreOptions()
    work = plan(os.fspath(source), os.fspath(target), options.format)
    options = options.model_copy(update={"weights": checked_weights(options.weights)})
    check_device(options)
    prepare_output(work.target)
    summary = Summary(str(target), ignored=work.ignored)
    for key, reason in work.unreadable:
        summary.fail(key, reason)
    if work.items:
        with (
            Progress(summary, len(work.items)) as progress,
            ray_session(options.address, options.device, len(work.items)) as resources,
        ):
            for status in restored(work.items, options, resources):
                summary.add(status)
                progress.update()
    summary.finish()
    return summary


def checked_weights(weights: str | None) -> str | None:
    """The absolute path; opens the weights: a wrong file is one sentence now and not a worker's failure later."""
    from diffuir_core import open_weights

    open_weights(weights)
    return None if weights is None else str(Path(weights).absolute())


def check_device(options: RestoreOptions) -> None:
    """Raises UserError where the device that was asked for is not there."""
    import torch

    if options.device == "cuda" and options.address is None and not torch.cuda.is_available():
        raise UserError("this machine has no GPU that torch can use: leave --device out or say cpu")
