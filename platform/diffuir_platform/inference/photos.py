"""Photos through a restorer, in the one way that the batch job, the endpoint and the evaluation share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from diffuir_core.imaging import Image, Pixels

if TYPE_CHECKING:
    from diffuir_core.restorer import Restoration


class RestoresPixels(Protocol):
    """The part of `diffuir_core.Restorer` that rooms depend on, so that another class can take its place."""

    precision: str
    """Arithmetic of the model, "float32" or "bfloat16"."""

    def restorations(self, images: Sequence[Pixels]) -> list[Restoration]:
        """Restore uint8 (H, W, 3) RGB arrays; returns the same shapes in the same order, each with its tiling."""


def restore_each(restorer: RestoresPixels, images: Sequence[Pixels]) -> list[Restoration | str]:
    """Restore images together; an image that the restorer fails on gives the reason and does not affect the
    others.

    images: uint8 (H, W, 3) RGB. Where the restorer fails on a batch, each image of it is restored alone.
    """
    if not images:
        return []
    try:
        return list(restorer.restorations(images))
    except Exception as error:  # noqa: BLE001 - whatever a model raises, only this batch fails
        if len(images) == 1:
            text = " ".join(str(error).split())[:200]
            return [f"the restorer failed on it ({type(error).__name__}: {text})"]
    return [result for image in images for result in restore_each(restorer, [image])]


def with_restored(image: Image, pixels: Pixels, tiles: object, note: str | None) -> Image:
    """Return the photo with its restored pixels, and a note where it was restored in tiles or the guard has one.

    tiles: description of the tiling; None where the photo was restored whole. note: that of the restoration.
    """
    restored = image.with_pixels(pixels)
    notes = [] if tiles is None else [f"restored in {tiles}"]
    notes += [] if note is None else [note]
    return replace(restored, notes=(*restored.notes, *notes))
