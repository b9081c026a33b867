"""Pictures with nothing wrong, drawn by code: what a network must learn to leave alone besides good photos.

Night skies, star fields, pages and screens of text, drawings, gradients and even surfaces hardly occur among
photos, and a network that has never seen one takes its darkness, its even colour or its thin lines for a fault.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..pixels import Pixels
from ._fields import Field, gaussian_blur, log_uniform, smooth_field, splat, to_photo

Colour = tuple[int, int, int]


def good_picture(seed: int, height: int, width: int) -> Pixels:
    """Draw a picture with nothing wrong, uint8 (height, width, 3) RGB; the same arguments give the same bytes."""
    rng = np.random.default_rng((seed, 2))
    draw = _KINDS[int(rng.integers(len(_KINDS)))]
    picture = draw(rng, height, width)
    if rng.random() < 0.3:
        # A scan, or a screen that was photographed and made smaller: softer, with a little grain.
        soft = np.stack([gaussian_blur(picture[..., i].astype(np.float32), 0.6) for i in range(3)], axis=-1)
        picture = to_photo(
            soft + np.float32(rng.uniform(0, 1.5)) * rng.standard_normal(soft.shape, np.float32)
        )
    return picture


def _colour(rng: np.random.Generator, low: int = 0, high: int = 255) -> Colour:
    if rng.random() < 0.5:
        grey = int(rng.integers(low, high + 1))
        return grey, grey, grey
    r, g, b = (int(value) for value in rng.integers(low, high + 1, 3))
    return r, g, b


def _paper_and_ink(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """A light background with dark letters, or the reverse; black on white in a third of the draws."""
    light, dark = _colour(rng, 200), _colour(rng, 0, 70)
    if rng.random() < 1 / 3:
        light, dark = (255, 255, 255), (0, 0, 0)
    return (light, dark) if rng.random() < 0.65 else (dark, light)


def _flat(rng: np.random.Generator, height: int, width: int) -> Pixels:
    level = rng.random()
    colour = (0, 0, 0) if level < 0.15 else (255, 255, 255) if level < 0.3 else _colour(rng)
    return np.full((height, width, 3), colour, np.uint8)


def _gradient(rng: np.random.Generator, height: int, width: int) -> Pixels:
    first, second = np.array(_colour(rng), np.float32), np.array(_colour(rng), np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.float32(np.sin(angle)) * y / height + np.float32(np.cos(angle)) * x / width
    if rng.random() < 0.3:
        along = np.hypot(y / height - rng.random(), x / width - rng.random()).astype(np.float32)
    share = ((along - along.min()) / max(np.ptp(along), 1e-6))[:, :, None]
    return to_photo(first + share * (second - first))


def _night_sky(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A dark sky with stars, perhaps a moon, a glow at the horizon and a black foreground."""
    sky = np.array((0.6, 0.8, 1.0), np.float32) * np.float32(rng.uniform(0, 28))
    rise = np.linspace(rng.uniform(0.2, 1), 1, height, dtype=np.float32)[:, None, None] ** 2
    levels = np.ones((height, width, 3), np.float32) * sky * rise
    if rng.random() < 0.4:
        cloud = smooth_field(rng, height, width, 4) ** 3
        levels += (
            cloud[:, :, None] * np.float32(rng.uniform(5, 60)) * np.array(rng.uniform(0.4, 1, 3), np.float32)
        )
    levels += _stars(rng, height, width, log_uniform(rng, 2e-4, 8e-3))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if rng.random() < 0.3:
        radius = log_uniform(rng, 0.02, 0.2) * max(height, width)
        distance = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width)) / np.float32(radius)
        face = 150 + 100 * smooth_field(rng, height, width, 12)
        levels = np.maximum(levels, (np.clip(radius * (1 - distance), 0, 1) * face)[:, :, None])
    if rng.random() < 0.5:
        skyline = height * (1 - rng.uniform(0.05, 0.35) * (0.5 + smooth_field(rng, 2, width, 9)[0]))
        levels[y > skyline] *= 0.1
    noise = np.float32(rng.uniform(0, 2)) * rng.standard_normal(levels.shape, np.float32)
    return to_photo(levels + noise)


def _stars(rng: np.random.Generator, height: int, width: int, density: float) -> Field:
    """Stars as a telescope or a lens shows them, (height, width, 3) float32 grey levels."""
    count = rng.poisson(density * height * width)
    brightness = 255 * np.minimum(rng.pareto(1.1, count) * 0.15, 12)
    y, x = rng.uniform(0, height, count), rng.uniform(0, width, count)
    sigma = float(rng.uniform(0.5, 1.4))
    tints = 1 + rng.normal(0, 0.12, (count, 3))
    planes = [splat(height, width, y, x, brightness * tints[:, i] * 2 * np.pi * sigma**2) for i in range(3)]
    return np.stack([gaussian_blur(plane, sigma) for plane in planes], axis=-1)


def _star_field(rng: np.random.Generator, height: int, width: int) -> Pixels:
    levels = _stars(rng, height, width, log_uniform(rng, 3e-3, 5e-2))
    nebula = np.stack([smooth_field(rng, height, width, 3) for _ in range(3)], axis=-1) ** 2
    return to_photo(levels + np.float32(rng.uniform(0, 50)) * nebula)


def _words(rng: np.random.Generator, length: int) -> str:
    letters = "eeeeettaaoinnshrrdlucmfwygpbvkxjqzETAONISHR0123456789.,-"
    text = ""
    while len(text) < length:
        text += "".join(rng.choice(list(letters), int(rng.integers(1, 10)))) + " "
    return text[:length]


def _page(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Lines of text of one size, with a heading and margins."""
    paper, ink = _paper_and_ink(rng)
    image = Image.new("RGB", (width, height), paper)
    canvas = ImageDraw.Draw(image)
    size = int(log_uniform(rng, 8, 40))
    y, left = int(rng.integers(-size, 2 * size)), int(rng.integers(-2 * size, 2 * size))
    while y < height:
        scale = 1.6 if rng.random() < 0.1 else 1.0
        font = ImageFont.load_default(round(size * scale))
        length = int(rng.uniform(0.3, 1.3) * width / size / 0.45) + 1
        canvas.text((left, y), _words(rng, length), fill=ink, font=font)
        y += int(size * scale * rng.choice((1.2, 1.4, 2.2), p=(0.6, 0.3, 0.1)))
    return np.asarray(image)


def _screen(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Windows, bars, buttons, icons and labels of a program, with sharp edges."""
    paper, ink = _paper_and_ink(rng)
    image = Image.new("RGB", (width, height), paper)
    canvas = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 18))):
        x, y = rng.uniform(-0.2, 1, 2) * (width, height)
        w, h = log_uniform(rng, 0.05, 0.9) * width, log_uniform(rng, 0.03, 0.6) * height
        box = (float(x), float(y), float(x + w), float(y + h))
        fill = _colour(rng) if rng.random() < 0.6 else paper
        radius = float(rng.choice((0, 4, 10))) if min(w, h) > 24 else 0.0
        canvas.rounded_rectangle(box, radius=radius, fill=fill, outline=ink)
        size = int(log_uniform(rng, 9, 22))
        label = (255, 255, 255) if sum(fill) < 380 else (0, 0, 0)
        text = _words(rng, int(rng.integers(2, 30)))
        canvas.text((box[0] + 6, box[1] + 4), text, fill=label, font=ImageFont.load_default(size))
    return np.asarray(image)


def _drawing(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Lines, outlines and filled shapes: sketches, maps, cartoons, charts, fences."""
    paper, ink = _paper_and_ink(rng)
    image = Image.new("RGB", (width * 2, height * 2), paper)
    canvas = ImageDraw.Draw(image)
    is_filled, slant = rng.random() < 0.5, rng.uniform(-0.2, 0.2)
    for _ in range(int(log_uniform(rng, 5, 80))):
        x, y = (float(value) for value in rng.uniform(0, 2, 2) * (width, height))
        size = log_uniform(rng, 2, 2 * max(height, width, 2))
        kind, thick = rng.random(), int(log_uniform(rng, 1, 12))
        colour = _colour(rng) if is_filled else ink
        box = (x, y, x + size, y + size * rng.uniform(0.3, 1.5))
        if kind < 0.35:
            canvas.line((x, y, x + size * slant, y + size), fill=ink, width=thick)
        elif kind < 0.6:
            steps = rng.normal(0, size / 6, (8, 2)).cumsum(0) + np.array((x, y))
            canvas.line([(float(a), float(b)) for a, b in steps], fill=ink, width=thick, joint="curve")
        elif kind < 0.8:
            canvas.ellipse(box, fill=colour if is_filled else None, outline=ink, width=thick)
        else:
            canvas.rectangle(box, fill=colour if is_filled else None, outline=ink, width=thick)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


_KINDS: tuple[Callable[[np.random.Generator, int, int], Pixels], ...] = (
    _flat, _gradient, _night_sky, _night_sky, _star_field, _page, _page, _screen, _screen, _drawing,
)  # fmt: skip
"""The kinds of pictures; one that stands twice is drawn twice as often."""
