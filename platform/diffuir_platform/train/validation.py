"""Validation: what the averaged weights of a checkpoint make of held-out pairs, beside the training.

Ray Train runs it as a task of its own wherever the cluster has room, ranks the checkpoints by its `psnr`, and runs
it again where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import mean
from typing import Any

import ray
import ray.train

from diffuir_core import Restorer, UserError, open_weights
from diffuir_core.degradations import TASKS
from diffuir_core.equalise import equalised
from diffuir_core.metrics import psnr, ssim

from ..data import DataConfig, Items, PairFolder, find_items
from ..data.index import EQUALISE
from ..data.samples import read_pixels
from ..tracking import Tracker
from .checkpoints import WEIGHTS_FILE, file_of
from .settings import ValidationConfig

SCORE = "psnr"
"""The mean over the tasks of each one's mean PSNR: what "best" means."""


def held_out(config: ValidationConfig) -> dict[str, Items]:
    """The pairs of each task that has any, at most `config.images`, spread evenly; raises `UserError` as
    `list_sources` does, and where there are none."""
    pairs = {task: tuple(PairFolder(path=path) for path in paths) for task, paths in config.pairs.items()}
    data = DataConfig(index=config.index, split=config.split, datasets=config.datasets, pairs=pairs)
    found = {task: items.pairs() for task, items in find_items(data).items()}
    chosen = {}
    for task, items in found.items():
        if items:
            count = min(len(items), config.images)
            chosen[task] = items.take([i * len(items) // count for i in range(count)])
    if not chosen:
        raise UserError("validation names no pair: give an index that has the split, or folders of pairs")
    return chosen


def validate(checkpoint: ray.train.Checkpoint, *, pairs: Any, tracker: Tracker) -> dict[str, float]:
    """PSNR (dB) and SSIM on Y, of all and per task; pairs: a reference to `held_out`'s."""
    with file_of(checkpoint, WEIGHTS_FILE) as weights:
        step = open_weights(weights).recipe["steps_done"]
        restorer = Restorer(weights, precision="float32")
    figures = measure(restorer, ray.get(pairs))
    tracker.log({f"validation_{name}": value for name, value in figures.items()}, step)
    tracker.flush()
    return figures


def measure(restorer: Restorer, pairs: Mapping[str, Items]) -> dict[str, float]:
    """PSNR (dB) and SSIM on Y of what it makes of the pairs: `psnr_TASK` and `ssim_TASK`, and the means over the
    tasks, `psnr` and `ssim`."""
    figures: dict[str, float] = {}
    for task in TASKS:
        if task in pairs:
            measured = list(_measured(restorer, pairs[task]))
            figures[f"psnr_{task}"] = mean(db for db, _ in measured)
            figures[f"ssim_{task}"] = mean(similarity for _, similarity in measured)
    for name in ("psnr", "ssim"):
        figures[name] = mean(value for key, value in figures.items() if key.startswith(f"{name}_"))
    return figures


def _measured(restorer: Restorer, items: Items) -> Iterator[tuple[float, float]]:
    for source in items:
        clean, degraded = (read_pixels(*photo) for photo in source.photos)
        degraded = equalised(degraded) if source.preprocessing == EQUALISE else degraded
        (restored,) = restorer.restore([degraded])
        yield psnr(restored, clean), ssim(restored, clean)
