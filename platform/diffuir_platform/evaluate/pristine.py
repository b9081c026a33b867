"""Statistics of pristine photos for NIQE and IL-NIQE, fitted to a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffuir_core.errors import UserError
from diffuir_core.imaging import ImageError, decode
from diffuir_core.metrics import (
    IL_NIQE_VARIANTS,
    MetricError,
    fit_il_niqe,
    fit_niqe,
    il_niqe_samples,
    niqe_samples,
    write_il_niqe,
    write_niqe,
)

from ..data.pairs import images_in


@dataclass(frozen=True, kw_only=True)
class FittedPristine:
    """The photos and blocks that statistics were fitted to."""

    photos: int
    blocks: int
    failed: dict[str, str]
    """Reasons of photos that were not used, by path."""


def fit_pristine(folder: Path, out: Path, metric: str) -> FittedPristine:
    """Fit the statistics of a metric, "niqe-..." or "il-niqe...", to the photos below `folder`, and write them to
    `out`.

    A photo that can't be read or is too small is in `failed`. Raises `UserError` for a folder that is missing,
    photos with too few sharp blocks, and a name that does not end in .npz.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one with pristine photos")
    if out.suffix != ".npz":
        raise UserError(f"{out} does not end in .npz: name a file that does")
    samples_of: Callable[..., Any] = il_niqe_samples if metric in IL_NIQE_VARIANTS else niqe_samples
    samples, failed = _samples(images_in(folder), partial(samples_of, variant=metric))
    if metric in IL_NIQE_VARIANTS:
        write_il_niqe(out, fit_il_niqe(samples))
    else:
        write_niqe(out, fit_niqe(samples))
    return FittedPristine(photos=len(samples), blocks=sum(len(one) for one in samples), failed=failed)


def _samples(paths: Sequence[Path], samples_of: Callable[..., Any]) -> tuple[list[Any], dict[str, str]]:
    samples, failed = [], {}
    for path in paths:
        try:
            samples.append(samples_of(decode(path.read_bytes()).pixels))
        except (ImageError, MetricError, OSError) as error:
            failed[str(path)] = str(error)
    return samples, failed
