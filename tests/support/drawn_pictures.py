"""Good pictures that are no ordinary photos, drawn from a seed: skies, flat frames, text, charts, fences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from diffuir_core.pixels import Pixels

Colour = tuple[int, int, int]
Field = NDArray[np.float32]

TEXT = (
    "the quick light of a lamp fell over seven old books while rain ran down each window and nobody spoke for an "
    "hour Contents Chapter 1920 Price 14.50 Open Save Print Settings Language Search View Help Total Kaffee Brot"
)
WORDS = TEXT.split(" ")


def _rng(kind: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *kind.encode()])


def _smooth(rng: np.random.Generator, height: int, width: int, cells: int) -> Field:
    """A smooth random field in [0, 1], (H, W), with about `cells` bumps along the longer side."""
    step = max(height, width) / cells
    grid = rng.random((math.ceil(height / step) + 2, math.ceil(width / step) + 2)).astype(np.float32)
    field = np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip((field - field.min()) / max(float(np.ptp(field)), 1e-6), 0, 1)


def _pixels(levels: Field) -> Pixels:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _stars(rng: np.random.Generator, height: int, width: int, density: float) -> Field:
    """Stars of many brightnesses, each a small round blur, (H, W, 3) levels."""
    light = np.zeros((height + 8, width + 8, 3), np.float32)
    for _ in range(int(density * height * width)):
        y, x = rng.integers(4, height + 4), rng.integers(4, width + 4)
        level = 40 + 260 * rng.random() ** 4
        size = 0.5 + 0.6 * rng.random() + level / 500
        span = np.arange(-4, 5)
        spot = np.exp(-(span[:, None] ** 2 + span**2) / (2 * size**2))
        tint = np.array([1, 0.95, 0.9]) if rng.random() < 0.5 else np.array([0.88, 0.94, 1])
        light[y - 4 : y + 5, x - 4 : x + 5] += (level * spot[..., None] * tint).astype(np.float32)
    return light[4:-4, 4:-4]


def night_sky(seed: int, height: int, width: int) -> Pixels:
    """A dark sky with a glow at the horizon, stars, a black ridge in half of the draws, and a little noise."""
    rng = _rng("night_sky", seed)
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    top = rng.uniform(2, 14, 3) * np.array([0.7, 0.8, 1.3])
    glow = rng.uniform(4, 40, 3)
    sky = (top + glow * y**3).astype(np.float32) * np.ones((height, width, 3), np.float32)
    sky += _stars(rng, height, width, rng.uniform(3e-4, 1.5e-3))
    if rng.random() < 0.5:
        ridge = height * (0.75 + 0.2 * _smooth(rng, 1, width, 6)[0])
        sky[np.arange(height)[:, None] > ridge] = rng.uniform(0, 4)
    return _pixels(sky + rng.normal(0, rng.uniform(0, 1.5), sky.shape).astype(np.float32))


def star_field(seed: int, height: int, width: int) -> Pixels:
    """Many stars on black, over a faint nebula in half of the draws."""
    rng = _rng("star_field", seed)
    field = _stars(rng, height, width, rng.uniform(2e-3, 8e-3)) + rng.uniform(0, 4)
    if rng.random() < 0.5:
        tint = rng.uniform(10, 60, 3).astype(np.float32)
        field += tint * _smooth(rng, height, width, 5)[..., None] ** 2
    return _pixels(field)


def moon(seed: int, height: int, width: int) -> Pixels:
    """A moon with its dark plains on a black sky."""
    rng = _rng("moon", seed)
    radius = min(height, width) * rng.uniform(0.08, 0.4)
    centre = rng.uniform(0.3, 0.7, 2) * [height, width]
    y, x = np.mgrid[:height, :width]
    inside = np.clip(radius - np.hypot(y - centre[0], x - centre[1]), 0, 1)[..., None].astype(np.float32)
    face = 120 + 110 * _smooth(rng, height, width, 14)[..., None] + rng.normal(0, 3, (height, width, 1))
    tint = np.array([1, rng.uniform(0.9, 1), rng.uniform(0.75, 1)])
    return _pixels((inside * face * tint + rng.uniform(0, 8)).astype(np.float32))


FLAT = ((255, 255, 255), (0, 0, 0), (128, 128, 128), (20, 60, 160), (200, 30, 40), (240, 235, 220), (34, 139, 34),
        (18, 18, 18), (255, 210, 0), (90, 200, 230), (60, 60, 60), (210, 210, 210))  # fmt: skip


def flat(seed: int, height: int, width: int) -> Pixels:
    """One colour everywhere."""
    return np.full((height, width, 3), FLAT[seed % len(FLAT)], np.uint8)


def gradient(seed: int, height: int, width: int) -> Pixels:
    """A linear or round gradient between two colours."""
    rng = _rng("gradient", seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if rng.random() < 0.6:
        angle = rng.uniform(0, 2 * math.pi)
        t = math.cos(angle) * x / width + math.sin(angle) * y / height
    else:
        t = np.hypot(y / height - rng.random(), x / width - rng.random())
    t = ((t - t.min()) / np.ptp(t))[..., None]
    a, b = rng.integers(0, 256, (2, 3))
    return _pixels((a + t * (b - a)).astype(np.float32))


def _write(draw: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[int, int, int, int], size: int,
           ink: Colour, gaps: float = 0.08) -> None:  # fmt: skip
    """Fill a box with lines of words."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = box
    for y in range(top, bottom - size, round(size * 1.5)):
        x = float(left)
        if rng.random() < gaps:
            continue
        while True:
            word = str(rng.choice(WORDS)) + " "
            length = draw.textlength(word, font=font)
            if x + length > right:
                break
            draw.text((x, y), word, fill=ink, font=font)
            x += length


def _page(kind: str, seed: int, height: int, width: int, paper: Colour, ink: Colour) -> Image.Image:
    rng = _rng(kind, seed)
    picture = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(picture)
    margin = width // 16
    title = int(rng.integers(20, 34))
    draw.text((margin, margin), " ".join(rng.choice(WORDS, 3)), fill=ink, font=ImageFont.load_default(title))
    size = int(rng.integers(11, 19))
    _write(draw, rng, (margin, margin + 2 * title, width - margin, height - margin), size, ink)
    return picture


def text_on_white(seed: int, height: int, width: int) -> Pixels:
    """A page of black text on white."""
    return np.asarray(_page("text_on_white", seed, height, width, (255, 255, 255), (0, 0, 0)))


def text_on_colour(seed: int, height: int, width: int) -> Pixels:
    """A page of white or yellow text on blue, green or red."""
    papers = ((0, 40, 170), (20, 80, 200), (0, 90, 60), (150, 20, 30), (40, 60, 110))
    ink = (255, 255, 255) if seed % 3 else (255, 230, 90)
    return np.asarray(_page("text_on_colour", seed, height, width, papers[seed % len(papers)], ink))


def dark_mode(seed: int, height: int, width: int) -> Pixels:
    """A page of light grey text on nearly black."""
    level = (0, 18, 30, 40)[seed % 4]
    ink = (212, 212, 212) if seed % 2 else (180, 200, 170)
    return np.asarray(_page("dark_mode", seed, height, width, (level, level, level + 3), ink))


def scan(seed: int, height: int, width: int) -> Pixels:
    """A book's page as a scanner sees it: warm paper, shade at the fold, soft print, noise."""
    rng = _rng("scan", seed)
    paper = tuple(int(v) for v in rng.integers((232, 222, 196), (252, 246, 230)))
    ink = (40, 36, 34)
    page = _page("scan", seed, height, width, (paper[0], paper[1], paper[2]), ink)
    levels = np.asarray(page.filter(ImageFilter.GaussianBlur(0.7))).astype(np.float32)
    shade = 1 - rng.uniform(0.05, 0.35) * np.exp(-np.linspace(0, 6, width, dtype=np.float32))[None, :, None]
    grain = rng.normal(0, rng.uniform(1, 3), (height, width, 1)).astype(np.float32)
    return _pixels(levels * shade - 6 * _smooth(rng, height, width, 7)[..., None] + grain)


def screenshot(seed: int, height: int, width: int) -> Pixels:
    """A window with a menu bar, a side list, buttons, icons and text, light or dark."""
    rng = _rng("screenshot", seed)
    dark = seed % 2 == 1
    ground, panel, ink = ((30, 30, 34), (45, 45, 50), (220, 220, 220)) if dark else (
        (246, 246, 248), (225, 228, 233), (30, 30, 30))  # fmt: skip
    picture = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(picture)
    accent = tuple(int(v) for v in rng.integers(20, 230, 3))
    draw.rectangle((0, 0, width, 22), fill=accent)
    draw.text((8, 4), "File  Edit  View  Help", fill=(255, 255, 255), font=ImageFont.load_default(13))
    side = width // 4
    draw.rectangle((0, 23, side, height), fill=panel)
    for row in range(34, height - 24, 26):
        colour = tuple(int(v) for v in rng.integers(40, 255, 3))
        draw.rounded_rectangle((8, row, 24, row + 16), 3, fill=colour)
        draw.text((30, row + 1), str(rng.choice(WORDS)), fill=ink, font=ImageFont.load_default(12))
    _write(draw, rng, (side + 14, 36, width - 14, height - 60), 13, ink)
    for n in range(3):
        left = side + 14 + n * 90
        draw.rounded_rectangle((left, height - 42, left + 76, height - 16), 5, fill=panel, outline=accent)
        label = ("OK", "Cancel", "Apply")[n]
        draw.text((left + 14, height - 37), label, fill=ink, font=ImageFont.load_default(13))
    return np.asarray(picture)


def line_drawing(seed: int, height: int, width: int) -> Pixels:
    """Black pen strokes on white, thin and thick, with a few filled shapes."""
    rng = _rng("line_drawing", seed)
    big = Image.new("L", (2 * width, 2 * height), 255)
    draw = ImageDraw.Draw(big)
    for _ in range(int(rng.integers(12, 40))):
        start, turn = rng.random(2) * [2 * width, 2 * height], rng.uniform(0, 2 * math.pi)
        points = []
        for _ in range(60):
            points.append((float(start[0]), float(start[1])))
            turn += rng.normal(0, 0.25)
            start = start + 9 * np.array([math.cos(turn), math.sin(turn)])
        draw.line(points, fill=0, width=int(rng.integers(2, 7)))
    for _ in range(int(rng.integers(0, 5))):
        x, y = (float(v) for v in rng.random(2) * [2 * width, 2 * height])
        draw.ellipse((x, y, x + 60, y + 60), outline=0, width=4, fill=0 if rng.random() < 0.3 else None)
    return np.asarray(big.resize((width, height), Image.Resampling.LANCZOS).convert("RGB"))


def chart(seed: int, height: int, width: int) -> Pixels:
    """Bars or lines with axes, a grid and labels on white."""
    rng = _rng("chart", seed)
    picture = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = 46, 30, width - 20, height - 36
    font = ImageFont.load_default(11)
    for n in range(6):
        y = bottom - n * (bottom - top) // 5
        draw.line((left, y, right, y), fill=(214, 214, 214))
        draw.text((12, y - 6), f"{n * 20}", fill=(60, 60, 60), font=font)
    draw.line((left, top, left, bottom, right, bottom), fill=(0, 0, 0), width=2)
    draw.text(
        (width // 3, 6), " ".join(rng.choice(WORDS, 3)), fill=(0, 0, 0), font=ImageFont.load_default(15)
    )
    colours = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40))
    count = 9
    xs = [left + 14 + n * (right - left - 24) / count for n in range(count)]
    if seed % 2:
        for n, x in enumerate(xs):
            draw.rectangle((x, bottom - rng.random() * (bottom - top), x + 22, bottom), fill=colours[n % 4])
    else:
        for colour in colours[: 2 + seed % 3]:
            points = [(x, bottom - rng.random() * (bottom - top)) for x in xs]
            draw.line(points, fill=colour, width=2)
    return np.asarray(picture)


def _landscape(rng: np.random.Generator, height: int, width: int) -> Field:
    """Something behind: soft, textured shapes from dark to bright, (H, W, 3) levels."""
    a, b = (np.array([[30], [215]]) + rng.uniform(-25, 25, (2, 3))).astype(np.float32)
    mixture = _smooth(rng, height, width, 5)[..., None]
    ground = a * mixture + b * (1 - mixture)
    ground *= 0.75 + 0.5 * _smooth(rng, height, width, 60)[..., None]
    return ground + rng.normal(0, 4, (height, width, 1)).astype(np.float32)


def _strokes(rng: np.random.Generator, height: int, width: int, lines: list[tuple[float, ...]],
             levels: tuple[int, int], thickness: tuple[int, int]) -> Pixels:  # fmt: skip
    """Thin straight lines (x0, y0, x1, y1) over a landscape, anti-aliased."""
    ground = _pixels(_landscape(rng, height, width))
    picture = Image.fromarray(ground).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for line in lines:
        level = int(rng.integers(*levels))
        tint = (level, int(level * rng.uniform(0.85, 1)), int(level * rng.uniform(0.7, 1)))
        draw.line([2 * v for v in line], fill=tint, width=int(rng.integers(*thickness)))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def fence(seed: int, height: int, width: int) -> Pixels:
    """Light slats or wires before a landscape."""
    rng = _rng("fence", seed)
    step = rng.uniform(9, 26)
    lines: list[tuple[float, ...]] = [(x, 0.15 * height, x, height) for x in np.arange(4, width, step)]
    lines += [(0, height * y, width, height * y) for y in (0.3, 0.8)]
    return _strokes(rng, height, width, lines, (150, 240), (3, 10))


def trunks(seed: int, height: int, width: int) -> Pixels:
    """Thin light and dark trunks of a birch wood."""
    rng = _rng("trunks", seed)
    lines = [(x, 0, x + rng.normal(0, 12), height) for x in rng.uniform(0, width, 45)]
    return _strokes(rng, height, width, lines, (25, 235), (3, 22))


def spokes(seed: int, height: int, width: int) -> Pixels:
    """The thin bright spokes of wheels."""
    rng = _rng("spokes", seed)
    lines: list[tuple[float, ...]] = []
    for _ in range(3):
        x, y, radius = (
            rng.uniform(0.2, 0.8) * width,
            rng.uniform(0.3, 0.7) * height,
            rng.uniform(0.2, 0.4) * height,
        )
        angles = np.linspace(0, 2 * math.pi, int(rng.integers(24, 40)), endpoint=False)
        lines += [(x, y, x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
    return _strokes(rng, height, width, lines, (170, 250), (2, 4))


def grass(seed: int, height: int, width: int) -> Pixels:
    """Blades of grass, light and dark green, all leaning one way."""
    rng = _rng("grass", seed)
    lean = rng.normal(0, 8)
    roots = rng.uniform((0, 0.3 * height), (width, 1.1 * height), (1400, 2))
    lines = [(x, y, x + lean + rng.normal(0, 6), y - rng.uniform(15, 50)) for x, y in roots]
    return _strokes(rng, height, width, lines, (50, 200), (1, 4))


KINDS: Mapping[str, Callable[[int, int, int], Pixels]] = {
    kind.__name__: kind
    for kind in (
        night_sky, star_field, moon, flat, gradient, text_on_white, text_on_colour, dark_mode, scan, screenshot,
        line_drawing, chart, fence, trunks, spokes, grass,
    )
}  # fmt: skip
"""Kind of picture -> its drawing, a function of (seed, height, width) that gives uint8 (H, W, 3) RGB."""
