"""A contact sheet: rows of photos with captions on one picture, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER = (250, 250, 248)
INK = (28, 28, 30)
FAINT_INK = (96, 96, 100)
MARGIN = 20
GAP = 10
SECTION_GAP = 22
TITLE_SIZE, HEADING_SIZE, CAPTION_SIZE = 24, 18, 15
LINE = 1.4


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """One row: `images` uint8 (H, W, 3) RGB of any sizes, one caption under each ("" for none).

    A `heading` opens a section above the row; rows that belong to the section above leave it empty.
    """

    images: Sequence[NDArray[np.uint8]]
    captions: Sequence[str] = ()
    heading: str = ""


def contact_sheet(rows: Sequence[SheetRow], title: str = "", max_width: int = 1600) -> Image.Image:
    """Lays the rows out, each column as wide as its widest photo, and returns an RGB picture.

    Photos keep their own pixels; only where the sheet would be wider than `max_width` pixels are all of them
    reduced, by one factor. Nothing is enlarged. Texts are drawn in the font that comes with Pillow, which has
    ASCII only. Raises ValueError without rows, for a row without photos, for captions that don't match the
    photos in number, for pixels that are not uint8 RGB, and where the columns don't fit `max_width`.
    """
    _check(rows)
    scale = _scale(rows, max_width)
    tiles = [[_reduced(image, scale) for image in row.images] for row in rows]
    widths = _column_widths(tiles)
    heights = [max(tile.height for tile in row) for row in tiles]
    width = 2 * MARGIN + sum(widths) + GAP * (len(widths) - 1)
    title_font = _fitting_font(title, TITLE_SIZE, width - 2 * MARGIN)
    tops, bottom = _row_tops(rows, heights, title)
    sheet = Image.new("RGB", (width, bottom + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, title_font)
    for row, row_tiles, top, height in zip(rows, tiles, tops, heights, strict=True):
        if row.heading:
            font = ImageFont.load_default(HEADING_SIZE)
            draw.text((MARGIN, top - _line(HEADING_SIZE) - 2), row.heading, INK, font)
        left = MARGIN
        for column, tile in enumerate(row_tiles):
            sheet.paste(tile, (left, top))
            caption = row.captions[column] if row.captions else ""
            font = _fitting_font(caption, CAPTION_SIZE, widths[column])
            draw.text((left, top + height + 4), caption, FAINT_INK, font)
            left += widths[column] + GAP
    return sheet


def _check(rows: Sequence[SheetRow]) -> None:
    if not rows:
        raise ValueError("a contact sheet needs at least one row.")
    for row in rows:
        if not row.images:
            raise ValueError("a row of a contact sheet needs at least one photo.")
        if row.captions and len(row.captions) != len(row.images):
            raise ValueError(f"a row has {len(row.images)} photos but {len(row.captions)} captions.")
        for image in row.images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
                raise ValueError(f"expected uint8 RGB (H, W, 3), got {image.dtype} of shape {image.shape}.")


def _scale(rows: Sequence[SheetRow], max_width: int) -> float:
    """The factor, at most 1, that brings the widest row of photos within `max_width`."""
    columns = max(len(row.images) for row in rows)
    room = max_width - 2 * MARGIN - GAP * (columns - 1)
    if room < columns:
        raise ValueError(f"{columns} columns don't fit into {max_width} pixels.")
    widest = sum(
        max(row.images[column].shape[1] for row in rows if column < len(row.images))
        for column in range(columns)
    )
    return min(1.0, room / int(widest))


def _reduced(pixels: NDArray[np.uint8], scale: float) -> Image.Image:
    image = Image.fromarray(pixels)
    if scale == 1.0:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _column_widths(tiles: Sequence[Sequence[Image.Image]]) -> list[int]:
    columns = max(len(row) for row in tiles)
    return [max(row[c].width for row in tiles if c < len(row)) for c in range(columns)]


def _row_tops(rows: Sequence[SheetRow], heights: Sequence[int], title: str) -> tuple[list[int], int]:
    """The y of each row's photos, and of the last pixel in use."""
    y = MARGIN + (_line(TITLE_SIZE) if title else 0)
    tops = []
    for index, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if row.heading:
            y += (SECTION_GAP if index else GAP) + _line(HEADING_SIZE)
        elif index:
            y += GAP
        tops.append(y)
        y += height + (_line(CAPTION_SIZE) if any(row.captions) else 0)
    return tops, y


def _line(size: int) -> int:
    return round(size * LINE)


def _fitting_font(text: str, size: int, width: int) -> Font:
    """Pillow's bundled font at `size`, or the largest below it (not under 8) in which `text` is not wider."""
    for candidate in range(size, 8, -1):
        font = ImageFont.load_default(candidate)
        if font.getlength(text) <= width:
            return font
    return ImageFont.load_default(8)
