"""TIFFs of every common layout, written by tifffile, give the stored picture with all its bits or one sentence."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from test_imaging import psnr, saved, smooth

from diffuir_core.imaging import ImageError, TooLargeError, decode, inspect

Array = NDArray[Any]
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 65_536, (40, 56), dtype=np.uint16)
RGB = RNG.integers(0, 65_536, (40, 56, 3), dtype=np.uint16)
RGBA = RNG.integers(0, 65_536, (40, 56, 4), dtype=np.uint16)
PREDICTED = ("lzw", "zlib", "zstd", "lzma")
"""Compressions that are used with differences between neighbours."""


def tiff(values: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def check_deep(data: bytes, expected: Array, *notes: str) -> None:
    """`data` is read as the 16-bit samples `expected`, (H, W, C), and as the nearest pixels of 8 bits."""
    image = decode(data)
    assert image.notes == notes
    assert image.deep is not None
    assert np.array_equal(image.deep, expected)
    colours = 1 if expected.shape[-1] < 3 else 3
    assert image.colour == ("L" if colours == 1 else "RGB")
    assert np.array_equal(image.pixels[..., :colours], np.rint(expected[..., :colours] / 257))
    assert (image.alpha is None) == bool(expected.shape[-1] % 2)
    header = inspect(data)
    assert (header.format, header.height, header.width) == ("TIFF", *expected.shape[:2])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("compression", [None, "packbits", *PREDICTED])
@pytest.mark.parametrize("planar", [False, True])
def test_samples_of_16_bits_are_read_as_they_are(
    byteorder: str, tile: tuple[int, int] | None, compression: str | None, planar: bool
) -> None:
    values = np.ascontiguousarray(np.moveaxis(RGB, -1, 0)) if planar else RGB
    options = {"planarconfig": "separate" if planar else "contig", "tile": tile, "byteorder": byteorder}
    for predictor in (False, True) if compression in PREDICTED else (False,):
        data = tiff(values, photometric="rgb", compression=compression, predictor=predictor, **options)
        check_deep(data, RGB)


def test_big_tiffs_and_many_strips_are_read() -> None:
    check_deep(tiff(RGB, photometric="rgb", bigtiff=True), RGB)
    check_deep(tiff(RGB, photometric="rgb", rowsperstrip=3, compression="lzw"), RGB)


def test_white_is_zero_is_no_negative() -> None:
    check_deep(tiff(65_535 - GREY, photometric="miniswhite"), GREY[..., None])
    eight = (GREY >> 8).astype(np.uint8)
    for compression in (None, "lzw", "packbits"):
        image = decode(tiff(255 - eight, photometric="miniswhite", compression=compression))
        assert image.colour == "L"
        assert np.array_equal(image.pixels[..., 0], eight)


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_samples_of_other_bits_are_scaled_to_16(bits: int) -> None:
    full = 2**bits - 1
    values = GREY >> (16 - bits)
    expected = np.rint(values * (65_535 / full)).astype(np.uint16)
    check_deep(tiff(values, bitspersample=bits), expected[..., None])
    check_deep(tiff(full - values, bitspersample=bits, photometric="miniswhite"), expected[..., None])


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_samples_of_few_bits_are_scaled_to_8(bits: int, photometric: str) -> None:
    values = (GREY >> (16 - bits)).astype(np.uint8)
    full = 2**bits - 1
    stored = values if photometric == "minisblack" else full - values
    data = (
        tiff(stored.astype(bool), photometric=photometric)
        if bits == 1
        else tiff(stored, bitspersample=bits, photometric=photometric)
    )
    assert np.array_equal(decode(data).pixels[..., 0], values * (255 // full))


def test_alpha_is_kept_and_unassociated() -> None:
    check_deep(tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"]), RGBA)
    alpha = np.maximum(RGBA[..., 3:], 4096)
    premultiplied = np.rint(RGBA[..., :3].astype(float) * alpha / 65_535).astype(np.uint16)
    image = decode(tiff(np.dstack((premultiplied, alpha)), photometric="rgb", extrasamples=["assocalpha"]))
    assert image.deep is not None
    assert np.array_equal(image.deep[..., 3:], alpha)
    error = np.abs(image.deep[..., :3].astype(int) - RGBA[..., :3])
    assert (error <= np.ceil(65_535 / alpha)).all()
    check_deep(
        tiff(
            RGBA[..., :2].copy(), photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
        ),
        RGBA[..., :2],
    )


def test_a_channel_that_is_no_alpha_is_dropped_with_a_note() -> None:
    note = "a channel that is neither colour nor transparency is dropped"
    check_deep(tiff(RGBA, photometric="rgb", extrasamples=["unspecified"]), RGBA[..., :3], note)


@pytest.mark.parametrize(
    ("dtype", "compression"), [("f2", None), ("f2", "zstd"), ("f4", "lzw"), ("f8", None)]
)
def test_floating_point_samples_become_16_bits_with_a_note(dtype: str, compression: str | None) -> None:
    values = (RGB / 65_535).astype(dtype)
    options = {"predictor": 3} if compression else {}
    expected = np.rint(values.astype(float) * 65_535).astype(np.uint16)
    data = tiff(values, photometric="rgb", compression=compression, **options)
    image = decode(data)
    assert image.notes == ("its floating-point samples are rounded to 16 bits",)
    assert image.deep is not None
    assert np.abs(image.deep.astype(int) - expected).max() <= 1


def test_floating_point_samples_beyond_0_and_1_are_clipped_or_refused() -> None:
    values = np.where(GREY > 50_000, 3.5, np.where(GREY > 49_000, np.nan, GREY / 65_535)).astype(np.float32)
    image = decode(tiff(values))
    assert image.notes == ("its floating-point samples are rounded to 16 bits, those beyond 0 and 1 clipped",)
    assert image.deep is not None
    assert (image.deep[GREY > 50_000] == 65_535).all()
    assert (image.deep[(GREY > 49_000) & (GREY <= 50_000)] == 0).all()
    with pytest.raises(ImageError, match="not between 0 and 1: scale them"):
        decode(tiff((GREY / 257).astype(np.float32)))


def test_32_bits_are_reduced_to_16_with_a_note() -> None:
    values = GREY.astype(np.uint32) << 16 | 0x1234
    check_deep(tiff(values), GREY[..., None], "its 32 bits per channel are reduced to 16")


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk_becomes_rgb(bits: int, planar: bool) -> None:
    picture = Image.fromarray(smooth()).convert("CMYK")
    values = np.asarray(picture) if bits == 8 else np.asarray(picture).astype(np.uint16) * 257
    if planar:
        values = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    image = decode(tiff(values, photometric="separated", planarconfig="separate" if planar else "contig"))
    assert np.array_equal(image.pixels, np.asarray(picture.convert("RGB")))
    assert image.notes[-1] == "converted from CMYK to RGB"
    assert ("its 16 bits per channel are reduced to 8" in image.notes) == (bits == 16)


@pytest.mark.parametrize("compression", [None, "zstd", "lzma", "lzw"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_planes_of_8_bits_are_read(compression: str | None, tile: tuple[int, int] | None) -> None:
    values = (RGB >> 8).astype(np.uint8)
    planes = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    options: dict[str, Any] = {"photometric": "rgb", "compression": compression, "tile": tile}
    assert np.array_equal(decode(tiff(planes, planarconfig="separate", **options)).pixels, values)
    assert np.array_equal(decode(tiff(values, **options)).pixels, values)


@pytest.mark.parametrize("levels", [256, 65_536])
def test_a_palette_of_16_or_mistaken_8_bits_gives_the_nearest_colours(levels: int) -> None:
    colours = RNG.integers(0, levels, (3, 256), dtype=np.uint16)
    index = (GREY >> 8).astype(np.uint8)
    image = decode(tiff(index, photometric="palette", colormap=colours))
    assert image.colour == "P"
    expected = np.rint(colours[:, index] / (257 if levels > 256 else 1))
    assert np.array_equal(image.pixels, np.moveaxis(expected, 0, -1))


def test_luminance_and_chrominance_are_read() -> None:
    rgb = Image.fromarray(smooth())
    for compression in (None, "tiff_lzw"):
        options = {} if compression is None else {"compression": compression}
        assert psnr(decode(saved(rgb.convert("YCbCr"), "TIFF", **options)).pixels, smooth()) > 36
    assert psnr(decode(saved(rgb, "TIFF", compression="jpeg", quality=95)).pixels, smooth()) > 30


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["deep", "palette", "jpeg"])
def test_a_tiff_is_turned_once(orientation: int, kind: str) -> None:
    upright = smooth()
    inverse = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = Image.fromarray(upright)
    if inverse is not None:
        stored = stored.transpose(Image.Transpose(inverse))
    tags = {"extratags": [(274, "H", 1, orientation, True)]}
    if kind == "deep":
        data = tiff(np.asarray(stored).astype(np.uint16) * 257, photometric="rgb", **tags)
    elif kind == "palette":
        grey = stored.convert("L")
        ramp = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
        data = tiff(np.asarray(grey), photometric="palette", colormap=ramp, **tags)
        upright = np.asarray(Image.fromarray(upright).convert("L").convert("RGB"))
    else:
        exif = Image.Exif()
        exif[274] = orientation
        data = saved(stored, "TIFF", compression="jpeg", quality=95, exif=exif)
    image = decode(data)
    assert image.pixels.shape == upright.shape
    assert (inspect(data).height, inspect(data).width) == upright.shape[:2]
    assert psnr(image.pixels, upright) > 30


def test_the_profile_of_a_deep_tiff_is_kept() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = decode(tiff(RGB, photometric="rgb", iccprofile=profile))
    assert image.metadata.icc_profile == profile


REFUSED = {
    "signed": tiff(GREY.view(np.int16)),
    "signed bytes": tiff(GREY.astype(np.int8)),
    "JPEG 2000": tiff(RGB, photometric="rgb", compression="jpeg2000"),
    "JPEG XL": tiff(RGB, photometric="rgb", compression="jpegxl"),
    "LERC": tiff(RGB, photometric="rgb", compression="lerc"),
    "a palette of 16 bits": tiff(GREY, photometric="palette", colormap=np.zeros((3, 65_536), np.uint16)),
    "CIELAB": tiff((RGB >> 8).astype(np.uint8), photometric="cielab"),
    "deep CIELAB": tiff(RGB, photometric="cielab"),
    "deep YCbCr": tiff(RGB, photometric="ycbcr"),
    "complex": tiff((GREY / 65_535).astype(np.complex64)),
    "64 bits": tiff(GREY.astype(np.uint64)),
    "a volume": tiff(np.stack([RGB] * 4), photometric="rgb", volumetric=True),
    "truncated": tiff(RGB, photometric="rgb")[:-100],
    "truncated in a strip": tiff(RGB, photometric="rgb", compression="zlib")[:-100],
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_kinds_are_refused_with_one_sentence(name: str) -> None:
    with pytest.raises(ImageError) as refused:
        decode(REFUSED[name])
    assert len(str(refused.value).splitlines()) == 1
    assert "Error" not in str(refused.value)


def test_hostile_sizes_are_refused_before_memory_is_taken() -> None:
    small = bytearray(tiff(GREY, tile=(16, 16)))
    for tag, value in ((256, 60_000), (257, 60_000), (322, 1_000_000)):
        data = bytearray(small)
        set_tag(data, tag, value)
        if tag == 257:
            set_tag(data, 256, 60_000)
        with pytest.raises(ImageError) as refused:
            decode(bytes(data))
        assert isinstance(refused.value, TooLargeError) or "as many" in str(refused.value), tag
    many = bytearray(tiff(RGB, photometric="rgb"))
    set_tag(many, 277, 60_000)
    with pytest.raises(ImageError):
        decode(bytes(many))


def set_tag(data: bytearray, tag: int, value: int) -> None:
    """Change the first value of a tag in the first directory of a little-endian TIFF."""
    start = int.from_bytes(data[4:8], "little")
    for at in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        if int.from_bytes(data[at : at + 2], "little") == tag:
            data[at + 2 : at + 4] = (4).to_bytes(2, "little")
            data[at + 8 : at + 12] = value.to_bytes(4, "little")
