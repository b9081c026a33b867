"""The demo: bundled photos degraded for each of the five tasks, restored, measured and shown on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffuir_core.contact_sheet import SheetRow, contact_sheet
from diffuir_core.degradations import TASKS
from diffuir_core.errors import UserError
from diffuir_core.imaging import Pixels
from diffuir_core.metrics import DEFAULT_PROTOCOL, psnr, ssim

from ..data.examples import DRAWS, bundled_photo, typical
from .evaluation import RestoreFolder
from .report import PairScores, SetSummary, summarise
from .staging import load, save_png

PHOTOS = ("rocket", "astronaut", "chelsea", "coffee")
TITLE = "DiffUIR, one set of weights, told nothing of the task: degraded, restored, truth"
SHOWN = {"haze": "rocket", "rain": "astronaut", "snow": "chelsea", "low_light": "coffee", "blur": "astronaut"}
"""Task -> the photo of it that is on the sheet, chosen for its subject and not for its result."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Results of the demo: the mean scores of each task, and the file of the contact sheet."""

    tasks: Sequence[SetSummary]
    sheet: Path


def demo(out: Path, restore: RestoreFolder) -> Demo:
    """Write `clean/`, `degraded/<task>/`, `restored/<task>/` and `contact_sheet.png` into `out`.

    Each photo is degraded for each task with fixed seeds, restored and measured; the sheet shows one photo per
    task (`SHOWN`). Raises `UserError` where `out` can't be written or a photo is not restored.
    """
    clean = {name: bundled_photo(name) for name in PHOTOS}
    try:
        _write_inputs(out, clean)
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}): name another folder") from error
    failed = restore(out / "degraded", out / "restored")
    if failed:
        name, reason = next(iter(failed.items()))
        raise UserError(f"the demo's photo {name} was not restored: {reason}")
    summaries, rows = [], []
    for task in TASKS:
        scores = [_measure(out, task, name, clean[name]) for name in PHOTOS]
        summary = summarise(task.replace("_", " "), scores)
        summaries.append(summary)
        shown = scores[PHOTOS.index(SHOWN[task])]
        rows.append(_row(out, summary, task, shown, clean[shown.key]))
    sheet = out / "contact_sheet.png"
    save_png(sheet, np.asarray(contact_sheet(rows, TITLE)), compress_level=9)
    return Demo(tasks=summaries, sheet=sheet)


def _write_inputs(out: Path, clean: dict[str, Pixels]) -> None:
    for index, (name, photo) in enumerate(clean.items()):
        save_png(out / "clean" / f"{name}.png", photo)
        for task in TASKS:
            save_png(_path(out, "degraded", task, name), typical(task, photo, seed=index * DRAWS))


def _measure(out: Path, task: str, name: str, clean: Pixels) -> PairScores:
    before, after = (load(_path(out, side, task, name)) for side in ("degraded", "restored"))
    return PairScores(
        set_name=task,
        key=name,
        protocol=DEFAULT_PROTOCOL,
        psnr_before=psnr(before, clean),
        psnr_after=psnr(after, clean),
        ssim_before=ssim(before, clean),
        ssim_after=ssim(after, clean),
    )


def _row(out: Path, summary: SetSummary, task: str, shown: PairScores, clean: Pixels) -> SheetRow:
    mean = f"{summary.psnr_before:.1f} to {summary.psnr_after:.1f} dB"
    return SheetRow(
        images=[load(_path(out, side, task, shown.key)) for side in ("degraded", "restored")] + [clean],
        captions=[f"degraded: {shown.psnr_before:.1f} dB", f"restored: {shown.psnr_after:.1f} dB", "truth"],
        heading=f"{summary.name.capitalize()}  (mean of {summary.images} photos: {mean})",
    )


def _path(out: Path, side: str, task: str, name: str) -> Path:
    return out / side / task / f"{name}.png"
