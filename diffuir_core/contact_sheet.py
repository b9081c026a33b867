"""Contact sheets: rows of photos with captions on one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from .pixels import Pixels, is_rgb

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
    """One row of a contact sheet."""

    images: Sequence[Pixels]
    """The photos, uint8 (H, W, 3) RGB of any sizes."""
    captions: Sequence[str] = ()
    """One caption for each photo, drawn below it, "" for none; () for no captions at all."""
    heading: str = ""
    """Heading of the section that starts with this row; "" continues the section above."""


def contact_sheet(rows: Sequence[SheetRow], title: str = "", max_width: int = 1600) -> Image.Image:
    """Lay out the rows, each column as wide as its widest photo, and return an RGB picture.

    Photos keep their pixels, unless the sheet would be wider than `max_width` pixels: then all are reduced by one
    factor. Nothing is enlarged. Text is drawn in Pillow's bundled font, which has ASCII only. Raises ValueError
    without rows, for a row without photos, for a number of captions that differs from that of the photos, for
    pixels that are not uint8 RGB, and if the columns don't fit into `max_width`.
    """
    _check(rows)
    scale = _scale(rows, max_width)
    tiles = [[_shrink(image, scale) for image in row.images] for row in rows]
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
            draw.text((MARGIN, top - _line_height(HEADING_SIZE) - 2), row.heading, INK, font)
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
            if not is_rgb(image):
                raise ValueError(f"expected uint8 RGB (H, W, 3), got {image.dtype} of shape {image.shape}.")


def _scale(rows: Sequence[SheetRow], max_width: int) -> float:
    """The factor, at most 1, by which the widest row of photos fits into `max_width` pixels."""
    columns = max(len(row.images) for row in rows)
    room = max_width - 2 * MARGIN - GAP * (columns - 1)
    if room < columns:
        raise ValueError(f"{columns} columns don't fit into {max_width} pixels: raise max_width.")
    widest = sum(
        max(row.images[column].shape[1] for row in rows if column < len(row.images))
        for column in range(columns)
    )
    return min(1.0, room / int(widest))


def _shrink(pixels: Pixels, scale: float) -> Image.Image:
    image = Image.fromarray(pixels)
    if scale == 1.0:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _column_widths(tiles: Sequence[Sequence[Image.Image]]) -> list[int]:
    columns = max(len(row) for row in tiles)
    return [max(row[c].width for row in tiles if c < len(row)) for c in range(columns)]


def _row_tops(rows: Sequence[SheetRow], heights: Sequence[int], title: str) -> tuple[list[int], int]:
    """The y of each row's photos, and the first y below the last row, pixels."""
    y = MARGIN + (_line_height(TITLE_SIZE) if title else 0)
    tops = []
    for index, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if row.heading:
            y += (SECTION_GAP if index else GAP) + _line_height(HEADING_SIZE)
        elif index:
            y += GAP
        tops.append(y)
        y += height + (_line_height(CAPTION_SIZE) if any(row.captions) else 0)
    return tops, y


def _line_height(size: int) -> int:
    return round(size * LINE)


def _fitting_font(text: str, size: int, width: int) -> Font:
    """Pillow's bundled font at the largest size in 8 .. `size` in which `text` is at most `width` pixels wide."""
    for candidate in range(size, 8, -1):
        font = ImageFont.load_default(candidate)
        if font.getlength(text) <= width:
            return font
    return ImageFont.load_default(8)
