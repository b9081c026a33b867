"""One restorer and the photos given to it, as the batch job, the endpoint and the evaluation share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from diffuir_core.imaging import Image, Pixels

if TYPE_CHECKING:
    from diffuir_core.restorer import Restoration


class RestoresPixels(Protocol):
    """The part of `diffuir_core.Restorer` that is used here."""

    precision: str

    def restorations(self, images: Sequence[Pixels]) -> list[Restoration]:
        """uint8 (H, W, 3) arrays -> restored ones of the same shapes, and how."""


def restore_each(restorer: RestoresPixels, images: Sequence[Pixels]) -> list[Restoration | str]:
    """The restored images, or for one that the restorer fails on the reason; the others do not suffer for it."""
    if not images:
        return []
    try:
        return list(restorer.restorations(images))
    except Exception as error:  # noqa: BLE001 - whatever the model raises, it is this batch's and no more
        if len(images) == 1:
            text = " ".join(str(error).split())[:200]
            return [f"the restorer failed on it ({type(error).__name__}: {text})"]
    return [result for image in images for result in restore_each(restorer, [image])]


def with_restored(image: Image, pixels: Pixels, tiles: object) -> Image:
    """The photo with its restored pixels, and a note of the tiles that it was restored in, None: whole."""
    restored = image.with_pixels(pixels)
    if tiles is None:
        return restored
    return replace(restored, notes=(*restored.notes, f"restored in {tiles}"))
