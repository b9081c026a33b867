"""Measures a restore on folders of pairs, through the code that `diffuir restore` runs."""

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
from .report import Measured, Report, Settings

# Restores every picture below the first folder into the second; what failed, as {relative path: reason}.
RestoreFolder = Callable[[Path, Path], dict[str, str]]


def evaluate(folder: Path, restore: RestoreFolder, settings: Settings, out: Path | None = None) -> Report:
    """Restores the degraded side of every pair under `folder` and measures before and after.

    The pictures go through `restore` as PNG, so that no measurement sees a second lossy coding. With `out`
    the restored pictures are kept in `out/restored/<set>/<key>.png`. A pair that can't be decoded, restored
    or measured is in the report's `failed`; the rest goes on. Raises UserError as `find_pairs` does, and for
    pairs of two sizes.
    """
    pairs = find_pairs(folder)
    with tempfile.TemporaryDirectory(prefix="diffuir-evaluate-") as temporary:
        staged = Path(temporary) / "degraded"
        restored = (out or Path(temporary)) / "restored"
        failed = _stage(pairs, staged)
        waiting = [pair for pair in pairs if name_of(pair) not in failed]
        if waiting:
            failed |= {key.removesuffix(".png"): reason for key, reason in restore(staged, restored).items()}
        images = [image for pair in waiting if (image := _measured(pair, restored, failed, settings.channel))]
    return Report(settings=settings, images=images, failed=failed)


def name_of(pair: Pair) -> str:
    """What a pair is called in a report: `<set>/<key>`."""
    return f"{pair.set_name}/{pair.key}"


def load(path: Path) -> Pixels:
    """The pixels of a picture, uint8 (H, W, 3) RGB, as a restore sees them; raises ImageError."""
    return decode(path.read_bytes()).pixels


def save_png(path: Path, pixels: Pixels, compress_level: int = 1) -> None:
    """Writes uint8 (H, W, 3) RGB without loss, by a rename, making the folder where it is missing."""
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG", compress_level=compress_level)


def _stage(pairs: Sequence[Pair], folder: Path) -> dict[str, str]:
    """Writes the degraded side of each pair as `folder/<set>/<key>.png`; returns {pair: why not}."""
    failed: dict[str, str] = {}
    for pair in pairs:
        try:
            degraded, clean = load(pair.degraded), load(pair.clean)
        except (ImageError, OSError) as error:
            failed[name_of(pair)] = str(error)
            continue
        if degraded.shape != clean.shape:
            raise UserError(
                f"{pair.degraded} is {_size(degraded)} but its twin {pair.clean} is {_size(clean)}: "
                "the pictures of a pair must have one size."
            )
        save_png(folder / f"{name_of(pair)}.png", degraded)
    return failed


def _measured(pair: Pair, restored: Path, failed: dict[str, str], channel: Channel) -> Measured | None:
    """The pair's figures, or None where it failed; a failure found here is entered into `failed`."""
    name = name_of(pair)
    if name in failed:
        return None
    degraded, clean = load(pair.degraded), load(pair.clean)
    after = load(restored / f"{name}.png")
    try:
        return Measured(
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
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
