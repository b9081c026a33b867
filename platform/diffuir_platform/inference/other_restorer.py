"""Somebody else's restorer, as restore, evaluate and serve use one: results checked, strength and equalisation."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from diffuir_core.equalise import equalise_histogram
from diffuir_core.errors import UserError
from diffuir_core.imaging import PHOTO_SUFFIXES, Pixels, decode
from diffuir_core.pixels import is_rgb
from diffuir_core.restorer import Restoration, interpolate

from .. import storage
from .photos import RestoresPixels


def sharpened(image: Pixels) -> Pixels:
    """Apply an unsharp mask to uint8 (H, W, 3): radius 2 pixels, 150%, threshold 3 levels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.UnsharpMask(2, 150, 3)))


BASELINES: dict[str, Callable[[Pixels], Pixels]] = {
    "identity": lambda image: image,
    "equalise": equalise_histogram,
    "sharpen": sharpened,
}
"""Name -> function of one uint8 (H, W, 3) image."""


class Results:
    """The results in a folder, which stand for the photos of the same relative names, whatever their endings."""

    precision = "made before"

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def restorations_of(self, names: Sequence[str]) -> list[Restoration]:
        """The results of photos by their relative names; raises `UserError` for a photo without one."""
        if not names:
            raise UserError(
                f"the results in {self._folder} are found by the names of photos, which these have not"
            )
        return [Restoration(decode(self._read(name)).pixels, None) for name in names]

    def _read(self, name: str) -> bytes:
        stem = os.path.splitext(name)[0]
        for candidate in dict.fromkeys((name, f"{stem}.png", *(f"{stem}{end}" for end in PHOTO_SUFFIXES))):
            uri = storage.join(self._folder, candidate)
            if storage.is_file(uri):
                return storage.read_bytes(uri)
        raise UserError(f"there is no result {stem}.* in {self._folder}: add it, or leave out the photo")


class OtherRestorer:
    """Somebody else's restorer as restore, evaluate and serve use one.

    restore: takes images, uint8 (H, W, 3), and the relative names of their photos. inner: the object that counts
    its passes, if it does. strength, equalise: as of `Restorer`.
    """

    def __init__(
        self,
        restore: Callable[[Sequence[Pixels], Sequence[str]], Sequence[Restoration]],
        title: str,
        precision: str,
        inner: object = None,
    ) -> None:
        self._restore, self.title, self.precision, self._inner = restore, title, precision, inner
        self._strength, self._equalise = 1.0, False

    def restorations(self, images: Sequence[Pixels]) -> list[Restoration]:
        """Restore images; raises `UserError` for a result of another size than its photo's, or of another type."""
        return self.named_restorations(images, ())

    def named_restorations(self, images: Sequence[Pixels], names: Sequence[str]) -> list[Restoration]:
        """Restore images as `restorations` does; names: relative paths of their photos, which `Results` needs."""
        degraded = [equalise_histogram(image) for image in images] if self._equalise else list(images)
        made = list(self._restore(degraded, names))
        if len(made) != len(images):
            raise UserError(
                f"{self.title} returned {len(made)} images for {len(images)}: return one for each"
            )
        return [self._checked(image, one) for image, one in zip(images, made, strict=True)]

    def _checked(self, image: Pixels, made: Restoration) -> Restoration:
        pixels: Any = made.pixels
        if not is_rgb(pixels):
            found = f"{pixels.dtype} {pixels.shape}" if hasattr(pixels, "dtype") else type(pixels).__name__
            raise UserError(f"{self.title} returned {found}: return uint8 (H, W, 3) arrays")
        if pixels.shape != image.shape:
            before, after = (f"{one.shape[1]}x{one.shape[0]}" for one in (image, pixels))
            raise UserError(
                f"{self.title} made {after} of a photo of {before}, and a result has the size of its photo: use a "
                "restorer that keeps it"
            )
        return replace(made, pixels=interpolate(image, pixels, self._strength))

    @property
    def on_pass(self) -> Callable[[int, int], None] | None:
        """Called with passes done and of all, where the restorer counts them."""
        return getattr(self._inner, "on_pass", None)

    @on_pass.setter
    def on_pass(self, report: Callable[[int, int], None] | None) -> None:
        if hasattr(self._inner, "on_pass"):
            self._inner.on_pass = report

    def batch_size(self, height: int, width: int) -> int:
        """Number of images that an endpoint gives it at once."""
        return 1

    def with_settings(
        self, *, strength: float, equalise: bool, seed: int = 0, guard: bool = False
    ) -> OtherRestorer:
        """The same restorer with other settings of one photo; seed and guard have no effect."""
        other = copy.copy(self)
        other._strength, other._equalise = strength, equalise
        return other


def adapted(made: object, title: str = "the restorer") -> OtherRestorer:
    """What a factory returned as a restorer: `Results`, an object with `restorations`, or a function of images."""
    if isinstance(made, OtherRestorer):
        return made
    if isinstance(made, Results):
        results = made
        return OtherRestorer(lambda _, names: results.restorations_of(names), title, made.precision)
    if hasattr(made, "restorations"):
        restores: RestoresPixels = made  # type: ignore[assignment]
        precision = getattr(made, "precision", "custom")
        return OtherRestorer(lambda images, _: restores.restorations(images), title, precision, made)
    if not callable(made):
        raise UserError(
            f"{title} made {type(made).__name__}, which is no restorer: return a function of images, or an object "
            "with restorations"
        )
    function = made

    def restore(images: Sequence[Pixels], names: Sequence[str]) -> list[Restoration]:
        return [Restoration(pixels, None) for pixels in function(images)]

    return OtherRestorer(restore, title, "custom")
