"""Limits are the caller's, and told in our words; Pillow's own, one for the whole process, stays as it is."""

from __future__ import annotations

import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from test_imaging import png, saved, smooth
from test_tiff import tiff

from diffuir_core.imaging import DEFAULT_LIMITS, ImageError, Limits, TooLargeError, decode, inspect
from support.photo_files import dng, heic, jxl

RGB = Image.fromarray(smooth())


@pytest.mark.parametrize(
    "data",
    [
        *(saved(RGB, format) for format in ("JPEG", "PNG", "TIFF", "BMP", "AVIF")),
        saved(RGB, "TIFF", compression="jpeg"),
        saved(RGB.quantize(16), "TIFF"),
        saved(RGB.convert("1"), "TIFF", compression="group4"),
        tiff(smooth().astype(np.uint16), photometric="rgb"),
        saved(RGB, "MPO", save_all=True, append_images=[RGB]),
        heic(smooth()),
        jxl(smooth()),
        dng(np.full((64, 96), 9000, np.uint16)),
    ],
)
def test_a_photo_beyond_the_limit_of_pillow_is_read(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        header = inspect(data)
        assert decode(data).pixels.shape == (header.height, header.width, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_webp_beyond_twice_the_limit_of_pillow_is_refused_in_our_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = saved(RGB, "WEBP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(TooLargeError, match="WebP of more than 2,000 pixels: save it in"):
        decode(data)


def test_a_picture_of_100_megapixels_is_within_the_limits() -> None:
    rows = zlib.compress(bytes(10_000 * (1 + 10_000 // 8)))
    data = png(10_000, 10_000, b"", 1, 0, (b"IDAT", rows))
    assert decode(data).pixels.shape == (10_000, 10_000, 3)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (12_650, 12_650), (13_000, 12_400)])
def test_a_larger_one_is_refused_with_the_limit(width: int, height: int) -> None:
    limit = f"{DEFAULT_LIMITS.max_pixels:,}"
    for read in (inspect, decode):
        with pytest.raises(
            TooLargeError, match=f"it is {width}x{height} pixels, more than the limit of {limit}"
        ):
            read(png(width, height, b""))


def test_the_largest_file_follows_from_the_pixels() -> None:
    assert Limits.for_pixels(10**9) == Limits(max_pixels=10**9, max_bytes=8 * 10**9)
    assert Limits.for_pixels(1000) == Limits(max_pixels=1000)
    with pytest.raises(ImageError, match="more than the limit of 2,239"):
        decode(saved(RGB, "PNG"), Limits.for_pixels(40 * 56 - 1))


def test_whole_images_are_not_copied_more_than_it_takes() -> None:
    """Peak of memory traced by numpy, in bytes a pixel, for decoding 16-bit RGB and changing it."""
    height, width = 1024, 2048
    data = tiff(np.zeros((height, width, 3), np.uint16), photometric="rgb", compression="zlib")
    tracemalloc.start()
    image = decode(data)
    # 6 bytes a pixel of samples as they are decoded and as they are kept, 3 of pixels.
    assert tracemalloc.get_traced_memory()[1] / (height * width) < 16
    tracemalloc.reset_peak()
    image.with_pixels(image.pixels)
    assert tracemalloc.get_traced_memory()[1] / (height * width) < 9 + 6 + 4
    tracemalloc.stop()
