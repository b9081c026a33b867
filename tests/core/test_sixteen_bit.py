"""16 bits per channel survive in both formats that have them, PNG and TIFF."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms
from test_imaging import camera_exif, png, png16, saved
from test_imaging_fuzz import with_right_crcs

from diffuir_core.imaging import decode, encode

TAG = ExifTags.Base


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_values_where_nothing_changed(format: str) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (40, 56), dtype=np.uint16)
    image = decode(saved(Image.fromarray(values), format))
    assert np.array_equal(image.pixels[..., 0], np.round(values / 257))
    again = np.asarray(Image.open(io.BytesIO(encode(image))))
    assert again.dtype == np.uint16
    assert np.array_equal(again, values)
    brighter = image.with_pixels(np.minimum(image.pixels, 254) + np.uint8(1))
    changed = np.asarray(Image.open(io.BytesIO(encode(brighter)))).astype(int)
    moved = image.pixels[..., 0] < 255
    assert np.array_equal(changed[moved], np.minimum(values[moved].astype(int) + 257, 65535))


CHANNELS = {0: 1, 4: 2, 2: 3, 6: 4}
"""Colour type of a PNG -> number of channels."""


@pytest.mark.parametrize("colour_type", CHANNELS)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_per_channel_survive(colour_type: int, format: str) -> None:
    channels = CHANNELS[colour_type]
    values = np.random.default_rng(4).integers(0, 65536, (40, 56, channels), dtype=np.uint16)
    exif = camera_exif().removeprefix(b"Exif\0\0")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = png16(values, colour_type, (b"iCCP", b"p\0\0" + zlib.compress(profile)), (b"eXIf", exif))
    image = decode(data)
    colours = 1 if channels < 3 else 3
    assert image.notes == ()
    assert image.colour == ("L" if colours == 1 else "RGB")
    assert np.array_equal(image.pixels[..., :colours], np.round(values[..., :colours] / 257))
    assert (image.alpha is None) == bool(channels % 2)
    again = decode(encode(image, format))
    assert (again.format, again.notes) == (format, ())
    # The block of a TIFF is built anew from its tags.
    assert again.metadata.exif == image.metadata.exif or (
        format == "TIFF" and again.metadata.exif is not None
    )
    written = again.metadata.icc_profile
    assert written == (profile if colours == 3 or (channels, format) == (2, "TIFF") else None)
    assert again.deep is not None
    expected = values[..., [0, 0, 0, 1]] if (channels, format) == (2, "TIFF") else values
    assert np.array_equal(again.deep, expected)


def test_sixteen_bit_samples_change_by_as_much_as_the_pixels() -> None:
    values = np.random.default_rng(5).integers(0, 60_000, (40, 56, 4), dtype=np.uint16)
    image = decode(png16(values, 6))
    changed = image.with_pixels(image.pixels + np.array([0, 3, 9], np.uint8))
    deep = decode(encode(changed)).deep
    assert deep is not None
    assert np.array_equal(deep, values + np.array([0, 3 * 257, 9 * 257, 0], np.uint16))


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
def test_sixteen_bit_tiffs_of_both_byte_orders_are_read_whole(byte_order: str, compression: int) -> None:
    values = np.random.default_rng(6).integers(0, 65536, (40, 56, 3), dtype=np.uint16)
    strip = values.astype(f"{byte_order}u2").tobytes()
    strip = zlib.compress(strip) if compression == 8 else strip
    exif = Image.Exif()
    exif.endian = byte_order
    exif.update({256: 56, 257: 40, 258: (16, 16, 16), 259: compression, 262: 2, 273: 0, 277: 3, 278: 40})
    exif.update({279: len(strip), TAG.Orientation: 6})
    image = decode(exif.tobytes()[6:] + strip)
    assert image.deep is not None
    assert np.array_equal(image.deep, np.rot90(values, -1))
    assert np.array_equal(image.pixels, np.round(image.deep / 257))


def test_sixteen_bits_are_written_as_eight_where_the_format_has_no_more() -> None:
    values = np.random.default_rng(7).integers(0, 65536, (40, 56, 3), dtype=np.uint16)
    image = decode(png16(values, 2))
    assert np.array_equal(decode(encode(image, "BMP")).pixels, image.pixels)


def test_sixteen_bit_cmyk_is_reduced_with_a_note() -> None:
    exif = Image.Exif()
    values = np.random.default_rng(8).integers(0, 65536, (40, 56, 4), dtype=np.uint16)
    exif.update(
        {256: 56, 257: 40, 258: (16,) * 4, 259: 1, 262: 5, 273: 0, 277: 4, 278: 40, 279: values.nbytes}
    )
    image = decode(exif.tobytes()[6:] + values.astype(">u2").tobytes())
    assert image.deep is None
    assert image.notes == ("its 16 bits per channel are reduced to 8", "converted from CMYK to RGB")


def test_an_interlaced_photo_and_one_transparent_colour_keep_sixteen_bits() -> None:
    values = np.random.default_rng(11).integers(0, 65536, (40, 56, 3), dtype=np.uint16)
    data = bytearray(png(56, 40, seven_passes(values), 16, 2))
    data[28] = 1
    deep = decode(with_right_crcs(data)).deep
    assert deep is not None
    assert np.array_equal(deep, values)
    values[0, 0] = (1, 2, 3)
    image = decode(png16(values, 2, (b"tRNS", struct.pack(">3H", 1, 2, 3))))
    assert image.deep is not None
    assert np.array_equal(image.deep[..., :3], values)
    assert image.alpha is not None
    assert (image.alpha == 0).sum() == 1
    assert image.alpha[0, 0] == 0


def seven_passes(values: NDArray[np.uint16]) -> bytes:
    """The rows of an interlaced PNG (PNG specification, 8)."""
    passes = (map(int, each) for each in ("0088", "0488", "4084", "0244", "2042", "0122", "1021"))
    big = values.astype(">u2")
    return b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in big[y::dy, x::dx])


def test_damage_elsewhere_does_not_cost_sixteen_bits() -> None:
    values = np.random.default_rng(9).integers(0, 65536, (40, 56, 3), dtype=np.uint16)
    image = decode(png16(values, 2, (b"eXIf", b"\xff" * 40)))
    assert [note for note in image.notes if "EXIF" in note] == list(image.notes) != []
    assert image.deep is not None
    assert np.array_equal(image.deep, values)


def test_a_truncated_sixteen_bit_photo_is_reduced_to_eight_with_a_note() -> None:
    values = np.random.default_rng(10).integers(0, 65536, (40, 56, 3), dtype=np.uint16)
    data = png16(values, 2)
    image = decode(data[: len(data) // 2], truncated=True)
    assert image.deep is None
    assert image.notes[1:] == ("its 16 bits per channel are reduced to 8",)
