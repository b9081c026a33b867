"""Pages that need no other file: tables, and a gallery in which photos of one scene are compared with a slider."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter

from diffuir_core.errors import UserError
from diffuir_core.imaging import Pixels, decode

from .rows import MeasuredImage
from .staging import load
from .tables import Table

TEMPLATE = Path(__file__).parent / "gallery.html.jinja"
SIDE = 720
"""Largest side of a photo on a page, pixels."""
DETAIL = 144
"""Side of the details on a page, pixels of the photo."""
QUALITY, DETAIL_QUALITY = 82, 92
"""Quality of the JPEGs of photos and of details."""


@dataclass(frozen=True)
class Shown:
    """A photo on a page: its label, and its picture as a data: URI."""

    label: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """One scene on a page, in several photos of one size."""

    name: str
    facts: Sequence[str]
    """Sentences about it."""
    photos: Sequence[Shown] = ()
    """Empty where they can't be read."""
    details: Sequence[Shown] = ()
    """One place of each photo, where two of them differ most."""
    left: int = 0
    """Number of the photo that the slider shows at the left at first."""
    right: int = 0
    width: int = 0
    height: int = 0


def card(name: str, facts: Sequence[str], photos: Mapping[str, Pixels], compared: tuple[str, str]) -> Card:
    """Return the card of photos by label, uint8 (H, W, 3) of one size. compared: labels of those that the slider
    shows at first, and whose greatest difference chooses the details."""
    labels = list(photos)
    height, width = photos[labels[0]].shape[:2]
    top, left = _place_of_difference(photos[compared[0]], photos[compared[1]])
    detail = np.s_[top : top + DETAIL, left : left + DETAIL]
    return Card(
        name=name,
        facts=facts,
        photos=[Shown(label, _data_uri(pixels, SIDE, QUALITY)) for label, pixels in photos.items()],
        details=[Shown(label, _data_uri(p[detail], DETAIL, DETAIL_QUALITY)) for label, p in photos.items()],
        left=labels.index(compared[0]),
        right=labels.index(compared[1]),
        width=width,
        height=height,
    )


def page(
    title: str, facts: Sequence[str], tables: Iterable[Table], cards: Iterable[Card], heading: str
) -> str:
    """Return a page as HTML, with every name escaped. heading: that of the gallery."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, facts=facts, tables=list(tables), cards=list(cards), heading=heading)


def photos_of(image: MeasuredImage, folder: Path) -> tuple[Pixels, Pixels, Pixels | None]:
    """Return the degraded, the restored and the true photo of an image that was measured in `folder`.

    Raises `UserError` where one of them is not there any more.
    """
    try:
        restored = np.concatenate([load(folder / piece) for piece in image.restored], axis=1)
        clean = None if image.clean is None else decode(image.clean.read()).pixels
        return decode(image.degraded.read()).pixels, restored, clean
    except OSError as error:
        raise UserError(
            f"{error.filename} can't be read ({error.strerror}): look whether it was moved"
        ) from error


def _place_of_difference(one: Pixels, other: Pixels) -> tuple[int, int]:
    """Return (top, left) of the detail in which two photos differ most."""
    difference = np.abs(one.astype(np.float32) - other).mean(axis=2)
    height, width = difference.shape
    # The mean of the detail around each pixel; those whose detail would reach over the border are moved in.
    means = uniform_filter(difference, (min(DETAIL, height), min(DETAIL, width)), mode="reflect")
    row, column = divmod(int(means.argmax()), width)
    return (
        min(max(row - DETAIL // 2, 0), max(height - DETAIL, 0)),
        min(max(column - DETAIL // 2, 0), max(width - DETAIL, 0)),
    )


def _data_uri(pixels: Pixels, side: int, quality: int) -> str:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
