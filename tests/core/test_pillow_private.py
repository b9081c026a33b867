"""The private parts of Pillow still are what `imaging/formats/pillow_private.py` takes them for."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import tifffile
from PIL import AvifImagePlugin, TiffImagePlugin
from PIL import Image as Pillow

import diffuir_core.imaging
from diffuir_core.imaging.formats.pillow_private import StoredTiff, avif_exif

EXIF = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x3b\0\x02\0\0\0\x07\0\0\0\x1a\0\0\0\0J\xc3\xb6rg\0\0"


def test_a_tiff_is_read_as_it_is_stored() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="minisblack", extratags=[(274, 3, 1, 6, True)])
    picture = StoredTiff(io.BytesIO(buffer.getvalue()))
    picture.load()
    assert np.array_equal(np.asarray(picture), pixels), "Pillow turns it"
    turned = TiffImagePlugin.TiffImageFile(io.BytesIO(buffer.getvalue()))
    turned.load()
    assert turned.size == (4, 6), "Pillow no longer turns a TIFF: StoredTiff.load_end is not needed"


def test_a_tiff_above_pillows_limit_is_read() -> None:
    before, Pillow.MAX_IMAGE_PIXELS = Pillow.MAX_IMAGE_PIXELS, 10
    try:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.zeros((8, 8), np.uint8), photometric="minisblack")
        StoredTiff(io.BytesIO(buffer.getvalue())).load()
    finally:
        Pillow.MAX_IMAGE_PIXELS = before


def test_the_exif_of_an_avif_is_the_files_own() -> None:
    buffer = io.BytesIO()
    Pillow.new("RGB", (16, 16)).save(buffer, "AVIF", exif=EXIF)
    picture = AvifImagePlugin.AvifImageFile(io.BytesIO(buffer.getvalue()))
    assert avif_exif(picture).removeprefix(b"Exif\0\0") == EXIF


def test_no_other_file_of_the_package_uses_a_private_part_of_pillow() -> None:
    private = re.compile(r"picture\._|\bsuper\(\)\._setup|PIL\._|Pillow\._")
    package = Path(diffuir_core.imaging.__file__).parent
    for file in package.rglob("*.py"):
        if file.name != "pillow_private.py":
            assert not private.search(file.read_text()), file
