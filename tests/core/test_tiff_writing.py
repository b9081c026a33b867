"""TIFFs that this project writes are read by other readers, with or without metadata."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from diffuir_core.imaging.formats.tiff_writing import tiff
from diffuir_core.imaging.metadata.content import Metadata
from support.metadata_files import camera_block

RNG = np.random.default_rng(0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RICH = [
    Metadata(
        exif=camera_block(order, gps=True),
        xmp=b"<x/>",
        icc_profile=SRGB,
        photoshop=b"8BIM\4\x0b\0\0\0\0\0\1u\0",
    )
    for order in "<>"
]


@pytest.mark.parametrize("metadata", [Metadata(), *RICH], ids=["plain", "low order", "high order"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (40, 57), (700, 900)])
def test_samples_are_read_by_tifffile_as_they_were(
    metadata: Metadata, dtype: type, channels: int, size: tuple[int, int]
) -> None:
    samples: NDArray[Any] = RNG.integers(0, np.iinfo(dtype).max, (*size, channels), dtype, endpoint=True)
    data = tiff(samples, metadata)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        (page,) = file.pages
        assert np.array_equal(page.asarray().reshape(samples.shape), samples)
        assert isinstance(page, tifffile.TiffPage)
        assert page.extrasamples == ((2,) if channels % 2 == 0 else ())
        assert len(page.dataoffsets) == -(-size[0] // (page.rowsperstrip or 1))


@pytest.mark.parametrize("metadata", [Metadata(), *RICH], ids=["plain", "low order", "high order"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_pictures_are_read_by_pillow_as_they_were(metadata: Metadata, mode: str) -> None:
    picture = Image.fromarray(RNG.integers(0, 256, (40, 57, 4), np.uint8))
    picture = picture.convert("RGB").quantize(200) if mode == "P" else picture.convert(mode)
    samples = np.asarray(picture).reshape(40, 57, -1)
    palette = bytes(picture.getpalette("RGB") or ()) if mode == "P" else None
    again = Image.open(io.BytesIO(tiff(samples, metadata, palette)))
    assert again.mode == mode
    assert np.array_equal(np.asarray(again.convert("RGBA")), np.asarray(picture.convert("RGBA")))
    if metadata.exif:
        assert again.info["icc_profile"] == SRGB
        exif = again.getexif()
        assert exif[271] == "Canon"
        assert exif.get_ifd(34853)[1] == "N"
        assert exif.get_ifd(34665)[36867] == "2020:01:02 03:04:05"


def test_the_file_begins_with_the_exif_block_but_for_the_position_of_its_directory() -> None:
    for metadata in RICH:
        block = metadata.exif
        assert block is not None
        data = tiff(np.zeros((4, 4, 3), np.uint8), metadata)
        assert data[:4] == block[:4]
        assert data[8 : len(block)] == block[8:]


def test_a_strip_is_about_a_mebibyte() -> None:
    data = tiff(np.zeros((3000, 1000, 3), np.uint16), Metadata())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.pages[0].rowsperstrip == 2**20 // 6000
