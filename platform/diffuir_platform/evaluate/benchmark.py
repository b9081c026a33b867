"""PSNR and SSIM of a restore on folders of pairs, through the code that `diffuir restore` runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from diffuir_core.files import replacing
from diffuir_core.imaging import ImageError, Pixels, decode
from diffuir_core.metrics import (
    MetricError,
    ProtocolName,
    Signature,
    better_truths,
    check_pair,
    psnr,
    signature,
    ssim,
    truth_note,
)

from ..data.pairs import Pair, find_pairs
from .report import PairScores, Report, Settings

RestoreFolder = Callable[[Path, Path], dict[str, str]]
"""Restores every picture below the first folder into the second; returns {relative path: reason} of failures."""


def evaluate(folder: Path, restore: RestoreFolder, settings: Settings, out: Path | None = None) -> Report:
    """Restore the degraded side of every pair under `folder`, and measure it before and after.

    The pictures go through `restore` as PNG, so that no second lossy encoding is measured. With `out`, the
    restored pictures are kept in `out/restored/<set>/<key>.png`. A pair that can't be decoded, restored or
    measured, whose sides differ in size, or whose degraded picture fits the truth of another pair of its set
    better, is in the report's `failed` and does not stop the others; a truth that is a JPEG is in its `notes`.
    Raises `UserError` as `find_pairs` does.
    """
    pairs = find_pairs(folder)
    with tempfile.TemporaryDirectory(prefix="diffuir-evaluate-") as temporary:
        staged = Path(temporary) / "degraded"
        restored = (out or Path(temporary)) / "restored"
        failed, notes = _stage(pairs, staged)
        waiting = [pair for pair in pairs if pair_name(pair) not in failed]
        if waiting:
            failed |= {key.removesuffix(".png"): reason for key, reason in restore(staged, restored).items()}
        images = [image for pair in waiting if (image := _measure(pair, restored, failed, settings.protocol))]
    measured = {f"{image.set_name}/{image.key}" for image in images}
    notes = {name: note for name, note in notes.items() if name in measured}
    return Report(settings=settings, images=images, failed=failed, notes=notes)


def pair_name(pair: Pair) -> str:
    """Return the name of a pair in a report: `<set>/<key>`."""
    return f"{pair.set_name}/{pair.key}"


def load(path: Path) -> Pixels:
    """Return a picture as a restore decodes it, uint8 (H, W, 3) RGB; raises `ImageError`."""
    return decode(path.read_bytes()).pixels


def save_png(path: Path, pixels: Pixels, compress_level: int = 1) -> None:
    """Write uint8 (H, W, 3) RGB as PNG by an atomic rename, making the folder where it is missing."""
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG", compress_level=compress_level)


def _stage(pairs: Sequence[Pair], folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Write the degraded side of each pair as `folder/<set>/<key>.png`; returns failures and notes by pair
    name."""
    failed: dict[str, str] = {}
    notes: dict[str, str] = {}
    readable: dict[str, list[tuple[Pair, Signature, Signature]]] = {}
    for pair in pairs:
        name = pair_name(pair)
        try:
            degraded, truth = load(pair.degraded), decode(pair.clean.read_bytes())
            check_pair(degraded, truth.pixels)
        except (ImageError, MetricError, OSError) as error:
            failed[name] = str(error)
            continue
        if note := truth_note(truth.format):
            notes[name] = note
        sides = signature(degraded), signature(truth.pixels)
        readable.setdefault(pair.set_name, []).append((pair, *sides))
        save_png(folder / f"{name}.png", degraded)
    for members in readable.values():
        fitting, degraded_side, clean_side = zip(*members, strict=True)
        for one, other in better_truths(degraded_side, clean_side).items():
            name = pair_name(fitting[one])
            failed[name] = (
                f"the truth of {pair_name(fitting[other])} fits it better: look whether names are swapped"
            )
            (folder / f"{name}.png").unlink()
    return failed, notes


def _measure(pair: Pair, restored: Path, failed: dict[str, str], protocol: ProtocolName) -> PairScores | None:
    """Return the pair's scores; None where it failed, with failures found here added to `failed`."""
    name = pair_name(pair)
    if name in failed:
        return None
    degraded, clean = load(pair.degraded), load(pair.clean)
    after = load(restored / f"{name}.png")
    try:
        return PairScores(
            set_name=pair.set_name,
            key=pair.key,
            protocol=protocol,
            psnr_before=psnr(degraded, clean, protocol),
            psnr_after=psnr(after, clean, protocol),
            ssim_before=ssim(degraded, clean, protocol),
            ssim_after=ssim(after, clean, protocol),
        )
    except MetricError as error:
        failed[name] = str(error)
        return None
