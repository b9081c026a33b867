"""Photos through a restorer, in the one way that the batch job, the endpoint and the evaluation share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from diffuir_core.errors import UserError
from diffuir_core.imaging import Image, Pixels

if TYPE_CHECKING:
    from diffuir_core.restorer import Restoration


class RestoresPixels(Protocol):
    """The part of `diffuir_core.Restorer` that rooms depend on, so that another class can take its place."""

    precision: str
    """Arithmetic of the model, "float32" or "bfloat16"."""

    def restorations(self, images: Sequence[Pixels]) -> list[Restoration]:
        """Restore uint8 (H, W, 3) RGB arrays; returns the same shapes in the same order, each with its tiling."""


@runtime_checkable
class RestoresNamed(Protocol):
    """A restorer that takes the relative names of the photos too (`OtherRestorer`)."""

    def named_restorations(self, images: Sequence[Pixels], names: Sequence[str]) -> list[Restoration]:
        """Restore images as `restorations` does; names: a relative path for each."""


def restore_each(
    restorer: RestoresPixels, images: Sequence[Pixels], names: Sequence[str] = ()
) -> list[Restoration | str]:
    """Restore images together; an image that the restorer fails on gives the reason and does not affect the
    others.

    images: uint8 (H, W, 3) RGB. names: relative paths of their photos, for a restorer that takes them. Where the
    restorer fails on a batch, each image of it is restored alone.
    """
    if not images:
        return []
    try:
        return list(_restorations(restorer, images, names))
    except UserError as error:
        if len(images) == 1:
            return [str(error)]
    except Exception as error:  # noqa: BLE001 - whatever a model raises, only this batch fails
        if len(images) == 1:
            text = " ".join(str(error).split())[:200]
            return [f"the restorer failed on it ({type(error).__name__}: {text})"]
    each = zip_longest(images, names)
    return [
        r for image, name in each for r in restore_each(restorer, [image], () if name is None else (name,))
    ]


def _restorations(
    restorer: RestoresPixels, images: Sequence[Pixels], names: Sequence[str]
) -> Sequence[Restoration]:
    if isinstance(restorer, RestoresNamed):
        return restorer.named_restorations(images, names)
    return restorer.restorations(images)


def with_restored(image: Image, pixels: Pixels, tiles: object, note: str | None) -> Image:
    """Return the photo with its restored pixels, and a note where it was restored in tiles or the guard has one.

    tiles: description of the tiling; None where the photo was restored whole. note: that of the restoration.
    """
    restored = image.with_pixels(pixels)
    notes = [] if tiles is None else [f"restored in {tiles}"]
    notes += [] if note is None else [note]
    return replace(restored, notes=(*restored.notes, *notes))
