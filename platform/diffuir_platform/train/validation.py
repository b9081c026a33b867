"""Validation: PSNR and SSIM of a checkpoint's averaged weights on held-out pairs, beside the training.

Both are measured by the protocol `DEFAULT_PROTOCOL`, released-y. Ray Train runs it as a separate task wherever the
cluster has room, ranks the checkpoints by `psnr`, and repeats a validation that was interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import ray
import ray.train

from diffuir_core import Restorer, UserError, open_weights
from diffuir_core.degradations import TASKS
from diffuir_core.imaging import DEFAULT_LIMITS
from diffuir_core.metrics import mean_psnr, psnr, ssim

from ..data import DataConfig, Items, PairFolder, Source, find_items, read_whole
from ..tracking import Tracker
from .checkpoints import WEIGHTS_FILE, file_of
from .settings import ValidationConfig

SCORE = "psnr"
"""Metric of the best checkpoint: each task's mean PSNR, averaged over the tasks."""

Score = tuple[float, float]
"""PSNR (dB) and SSIM of one photo."""


def held_out(config: ValidationConfig, max_pixels: int = DEFAULT_LIMITS.max_pixels) -> dict[str, Items]:
    """Return the validation pairs by task, at most `config.images` of each, spread evenly over all there are.

    max_pixels: as in `DataConfig`. Raises `UserError` as `list_sources` does, where there are none, and for a pair
    that can't be read or whose two photos differ in size.
    """
    pairs = {task: tuple(PairFolder(path=path) for path in paths) for task, paths in config.pairs.items()}
    data = DataConfig(
        index=config.index,
        split=config.split,
        datasets=config.datasets,
        pairs=pairs,
        max_pixels=max_pixels,
    )
    found = {task: items.pairs() for task, items in find_items(data, "validation").items()}
    chosen = {}
    for task, items in found.items():
        if items:
            count = min(len(items), config.images)
            chosen[task] = items.take([i * len(items) // count for i in range(count)])
    if not chosen:
        raise UserError("validation names no pair: give an index that has the split, or folders of pairs")
    for task, items in chosen.items():
        for source in items:
            try:
                read_whole(source)
            except UserError as error:
                raise UserError(
                    f"the pair {source.key} that validates {task} can't be used: {error}"
                ) from error
    return chosen


def validate(checkpoint: ray.train.Checkpoint, *, pairs: Any, tracker: Tracker) -> dict[str, float]:
    """Log PSNR (dB) and SSIM by `DEFAULT_PROTOCOL` of a checkpoint, and return them as `measure` does.

    pairs: a reference to the result of `held_out`. A pair that can't be read any more is left out: the tracker
    gets the number of these, and a file that names them.
    """
    with file_of(checkpoint, WEIGHTS_FILE) as weights:
        step = open_weights(weights).recipe["steps_done"]
        restorer = Restorer(weights, precision="float32", guard=False)
    scores: dict[str, list[Score]] = {}
    left_out: list[str] = []
    for task, items in ray.get(pairs).items():
        scores[task] = []
        for source in items:
            try:
                scores[task].append(_score(restorer, source))
            except UserError as error:
                left_out.append(f"{task} {source.key}: {error}")
    figures = _averaged(scores)
    logged = {**figures, "left_out": len(left_out)} if left_out else figures
    tracker.log({f"validation_{name}": value for name, value in logged.items()}, step)
    if left_out:
        tracker.log_text("\n".join(left_out), f"validation/left-out-{step:07d}.txt")
    tracker.flush()
    return figures


def measure(restorer: Restorer, pairs: Mapping[str, Items]) -> dict[str, float]:
    """Return PSNR (dB) and SSIM by `DEFAULT_PROTOCOL` of the restored pairs.

    `psnr_TASK`, `ssim_TASK`, and the means over the tasks, `psnr` and `ssim`. Photos that equal their truth have
    an infinite PSNR, are left out of its mean, and are counted in `equal_TASK` where there are any. Raises
    `UserError` for a pair that can't be read.
    """
    return _averaged({task: [_score(restorer, source) for source in items] for task, items in pairs.items()})


def _score(restorer: Restorer, source: Source) -> Score:
    clean, degraded = read_whole(source)
    (restored,) = restorer.restore([degraded])
    return psnr(restored, clean), ssim(restored, clean)


def _averaged(scores: Mapping[str, Sequence[Score]]) -> dict[str, float]:
    """Average the scores into the metrics of `measure`; a task without scores has none."""
    measured = [task for task in TASKS if scores.get(task)]
    if not measured:
        return {}
    means = {task: mean_psnr(psnr for psnr, _ in scores[task]) for task in measured}
    figures = {f"psnr_{task}": found.value for task, found in means.items()}
    figures["psnr"] = mean_psnr(figures.values()).value
    similar = {f"ssim_{task}": fmean(ssim for _, ssim in scores[task]) for task in measured}
    equal = {f"equal_{task}": float(found.equal) for task, found in means.items() if found.equal}
    return figures | similar | {"ssim": fmean(similar.values())} | equal
