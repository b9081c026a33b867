"""PSNR and SSIM of a restore on folders of pairs, through the code that `diffuir restore` runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from diffuir_core.errors import UserError
from diffuir_core.files import replacing
from diffuir_core.imaging import ImageError, Pixels, decode
from diffuir_core.metrics import Channel, psnr, ssim

from ..data.pairs import Pair, find_pairs
from ..text import size_text
from .report import PairScores, Report, Settings

RestoreFolder = Callable[[Path, Path], dict[str, str]]
"""Restores every picture below the first folder into the second; returns {relative path: reason} of failures."""


def evaluate(folder: Path, restore: RestoreFolder, settings: Settings, out: Path | None = None) -> Report:
    """Restore the degraded side of every pair under `folder`, and measure it before and after.

    The pictures go through `restore` as PNG, so that no second lossy encoding is measured. With `out`, the
    restored pictures are kept in `out/restored/<set>/<key>.png`. A pair that can't be decoded, restored or
    measured is in the report's `failed` and does not stop the others. Raises `UserError` as `find_pairs` does, and
    where the two pictures of a pair differ in size.
    """
    pairs = find_pairs(folder)
    with tempfile.TemporaryDirectory(prefix="diffuir-evaluate-") as temporary:
        staged = Path(temporary) / "degraded"
        restored = (out or Path(temporary)) / "restored"
        failed = _write_degraded(pairs, staged)
        waiting = [pair for pair in pairs if pair_name(pair) not in failed]
        if waiting:
            failed |= {key.removesuffix(".png"): reason for key, reason in restore(staged, restored).items()}
        images = [image for pair in waiting if (image := _measure(pair, restored, failed, settings.channel))]
    return Report(settings=settings, images=images, failed=failed)


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


def _write_degraded(pairs: Sequence[Pair], folder: Path) -> dict[str, str]:
    """Write the degraded side of each pair as `folder/<set>/<key>.png`; returns the failures."""
    failed: dict[str, str] = {}
    for pair in pairs:
        try:
            degraded, clean = load(pair.degraded), load(pair.clean)
        except (ImageError, OSError) as error:
            failed[pair_name(pair)] = str(error)
            continue
        if degraded.shape != clean.shape:
            raise UserError(
                f"{pair.degraded} is {_size(degraded)} pixels but its counterpart {pair.clean} is {_size(clean)}: "
                "crop the two to one size"
            )
        save_png(folder / f"{pair_name(pair)}.png", degraded)
    return failed


def _measure(pair: Pair, restored: Path, failed: dict[str, str], channel: Channel) -> PairScores | None:
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
            psnr_before=psnr(degraded, clean, channel),
            psnr_after=psnr(after, clean, channel),
            ssim_before=ssim(degraded, clean, channel),
            ssim_after=ssim(after, clean, channel),
        )
    except ValueError as error:
        failed[name] = str(error)
        return None


def _size(pixels: Pixels) -> str:
    return size_text(pixels.shape[1], pixels.shape[0])
