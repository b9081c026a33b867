"""A photo's properties survive decode and encode, and other files are refused with one sentence."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from diffuir_core.imaging import (
    Header,
    ImageError,
    Limits,
    Pixels,
    check_fits,
    decode,
    encode,
    inspect,
)

TAG = ExifTags.Base
OLD_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
"""The formats that Pillow reads and writes alone; tests/core/test_formats.py has the others."""


def noise(height: int = 40, width: int = 56, channels: int = 3, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(height: int = 40, width: int = 56) -> Pixels:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, 255 - x * 2 - y * 2], -1).astype(np.uint8)


def saved(picture: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def camera_exif(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[TAG.Orientation] = orientation
    exif[TAG.Artist] = "someone"
    exif[ExifTags.IFD.Exif] = {
        TAG.DateTimeOriginal: "2020:01:02 03:04:05",
        TAG.ExifImageWidth: 56,
        TAG.ExifImageHeight: 40,
    }
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (47.0, 22.0, 11.0)}
    return exif.tobytes()


def psnr(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b.astype(float)) ** 2), 1e-9)))


@pytest.mark.parametrize("format", OLD_FORMATS)
def test_pixels_and_format_survive_a_round_trip(format: str) -> None:
    pixels = smooth()
    image = decode(saved(Image.fromarray(pixels), format, **({"quality": 95} if format == "JPEG" else {})))
    assert (image.format, image.colour, image.alpha) == (format, "RGB", None)
    assert image.pixels.dtype == np.uint8
    again = decode(encode(image))
    assert again.format == format
    if format in ("JPEG", "WEBP"):
        assert psnr(again.pixels, pixels) > 36
    else:
        assert np.array_equal(again.pixels, pixels)


def test_jpeg_is_written_without_chroma_subsampling() -> None:
    data = encode(decode(saved(Image.fromarray(noise()), "PNG")), "JPEG")
    layers = Image.open(io.BytesIO(data)).layer
    assert [layer[1:3] for layer in layers] == [(1, 1)] * 3


def test_lossless_webp_stays_lossless() -> None:
    pixels = noise()
    data = encode(decode(saved(Image.fromarray(pixels), "WEBP", lossless=True)))
    assert np.array_equal(decode(data).pixels, pixels)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(format: str, orientation: int) -> None:
    upright = smooth()
    # The stored picture is the upright one after the inverse of the tag's transposition.
    inverse = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = Image.fromarray(upright)
    if inverse is not None:
        stored = stored.transpose(Image.Transpose(inverse))
    options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    data = saved(stored, format, exif=orientation_only(orientation), **options)
    image = decode(data)
    assert image.pixels.shape == upright.shape
    assert psnr(image.pixels, upright) > 36
    written = Image.open(io.BytesIO(encode(image)))
    assert written.getexif().get(TAG.Orientation, 1) == 1
    assert psnr(decode(encode(image)).pixels, upright) > 35


def orientation_only(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[TAG.Orientation] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_is_kept_and_gps_is_dropped(format: str) -> None:
    source = saved(Image.fromarray(smooth()), "JPEG", exif=camera_exif(6))
    data = encode(decode(source), format)
    exif = Image.open(io.BytesIO(data)).getexif()
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert exif[TAG.Artist] == "someone"
    assert details[TAG.DateTimeOriginal] == "2020:01:02 03:04:05"
    assert (details[TAG.ExifImageWidth], details[TAG.ExifImageHeight]) == (40, 56)
    assert not exif.get_ifd(ExifTags.IFD.GPSInfo)
    assert ExifTags.IFD.GPSInfo not in exif
    # The block of a TIFF is built anew from its tags.
    assert format == "TIFF" or decode(data).metadata.exif == decode(source).metadata.exif


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_gps_is_kept_and_exif_dropped_on_request(format: str) -> None:
    source = saved(Image.fromarray(smooth()), "JPEG", exif=camera_exif(6))
    kept = Image.open(io.BytesIO(encode(decode(source, exif="with-gps"), format))).getexif()
    assert kept.get_ifd(ExifTags.IFD.GPSInfo) == {1: "N", 2: (47.0, 22.0, 11.0)}
    assert kept.get_ifd(ExifTags.IFD.Exif)[TAG.DateTimeOriginal] == "2020:01:02 03:04:05"
    bare = decode(source, exif="none")
    assert bare.metadata.exif is None
    assert bare.pixels.shape == (56, 40, 3)


def test_damaged_exif_costs_the_metadata_not_the_photo() -> None:
    good = saved(Image.fromarray(smooth()), "JPEG", exif=camera_exif())
    at = good.index(b"Exif\0\0") + 6
    image = decode(good[:at] + b"\xff" * 8 + good[at + 8 :])
    assert image.pixels.shape == (40, 56, 3)
    assert image.metadata.exif is None
    assert any("EXIF" in note for note in image.notes)


def test_damage_to_one_tag_costs_nothing_else() -> None:
    exif = bytearray(camera_exif(6))
    exif[exif.index(b"\x01\x3b") + 3] = 5  # the artist as a fraction
    image = decode(saved(Image.fromarray(smooth()), "JPEG", exif=bytes(exif)))
    assert image.pixels.shape == (56, 40, 3)
    assert image.notes == ()
    written = Image.open(io.BytesIO(encode(image))).getexif()
    assert written.get_ifd(ExifTags.IFD.Exif)[TAG.DateTimeOriginal] == "2020:01:02 03:04:05"


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "BMP"])
def test_alpha_is_kept_apart_and_written_back(format: str) -> None:
    values = noise(channels=4)
    image = decode(saved(Image.fromarray(values), "PNG"))
    image = decode(encode(replace(image, format=format, lossless=True)))
    assert image.format == format
    assert image.pixels.shape == (40, 56, 3)
    assert image.alpha is not None
    assert np.array_equal(image.alpha, values[..., 3])
    again = np.asarray(Image.open(io.BytesIO(encode(image))).convert("RGBA"))
    assert np.array_equal(again, values)


def test_jpeg_refuses_transparency() -> None:
    with pytest.raises(ImageError, match="transparency"):
        encode(decode(saved(Image.fromarray(noise(channels=4)), "PNG")), "JPEG")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_jpeg_takes_a_photo_whose_alpha_is_opaque(mode: str) -> None:
    """Other formats keep the alpha."""
    values = noise(channels=4)
    values[..., 3] = 255
    image = decode(saved(Image.fromarray(values).convert(mode), "PNG"))
    assert decode(encode(image, "JPEG")).alpha is None
    alpha = decode(encode(image, "PNG")).alpha
    assert alpha is not None
    assert alpha.min() == 255
    values[7, 8, 3] = 254
    with pytest.raises(ImageError, match="transparency"):
        encode(decode(saved(Image.fromarray(values).convert(mode), "PNG")), "JPEG")


def test_a_photo_that_a_format_cannot_hold_is_refused_before_encoding() -> None:
    long = decode(saved(Image.fromarray(np.zeros((1, 16_384, 3), np.uint8)), "PNG"))
    for image, format in (
        (long, "WEBP"),
        (decode(saved(Image.fromarray(noise(channels=4)), "PNG")), "JPEG"),
        (long, "GIF"),
    ):
        with pytest.raises(ImageError, match=r"choose .*PNG"):
            check_fits(image, format)
        with pytest.raises(ImageError, match=r"choose .*PNG"):
            encode(image, format)
    check_fits(long, "JPEG")
    assert decode(encode(long, "JPEG")).pixels.shape == (1, 16_384, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "BMP"])
def test_grey_comes_back_as_grey(format: str) -> None:
    image = decode(saved(Image.fromarray(smooth()[..., 0]), format))
    assert image.pixels.shape == (40, 56, 3)
    tinted = image.pixels.copy()
    tinted[..., 0] //= 2
    again = Image.open(io.BytesIO(encode(image.with_pixels(tinted))))
    assert again.mode == "L"
    if format != "JPEG":
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode(image)))), smooth()[..., 0])


def test_grey_with_alpha_comes_back_as_it_was() -> None:
    values = noise(channels=2)
    image = decode(saved(Image.fromarray(values, "LA"), "PNG"))
    again = Image.open(io.BytesIO(encode(image)))
    assert again.mode == "LA"
    assert np.array_equal(np.asarray(again), values)


def test_palette_comes_back_as_a_palette() -> None:
    values = np.asarray([[0, 0, 0], [255, 0, 10], [3, 200, 7], [90, 90, 255]], np.uint8)[
        np.random.default_rng(2).integers(0, 4, (40, 56))
    ]
    image = decode(saved(Image.fromarray(values).quantize(4), "PNG"))
    assert image.colour == "P"
    again = Image.open(io.BytesIO(encode(image)))
    assert again.mode == "P"
    assert np.array_equal(np.asarray(again.convert("RGB")), image.pixels)
    many = Image.open(io.BytesIO(encode(image.with_pixels(smooth()))))
    assert many.mode == "P"
    assert psnr(np.asarray(many.convert("RGB")), smooth()) > 25


def test_transparent_palette_keeps_its_alpha() -> None:
    values = noise(channels=4)
    values[...] = values[:1, :1]
    values[:10] = (0, 0, 0, 0)
    image = decode(saved(Image.fromarray(values).quantize(8, method=Image.Quantize.FASTOCTREE), "PNG"))
    again = Image.open(io.BytesIO(encode(image)))
    assert again.mode == "P"
    assert image.alpha is not None
    assert np.array_equal(np.asarray(again.convert("RGBA"))[..., 3], image.alpha)
    assert image.alpha.min() == 0


def test_cmyk_is_converted() -> None:
    image = decode(saved(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95))
    assert image.colour == "RGB"
    assert psnr(image.pixels, smooth()) > 30
    assert image.notes == ("converted from CMYK to RGB",)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_kept_with_a_note(format: str) -> None:
    frames = [Image.fromarray(smooth()), Image.fromarray(255 - smooth())]
    options = {"lossless": True} if format == "WEBP" else {}
    image = decode(saved(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert np.array_equal(image.pixels, smooth())
    assert image.notes == ("only the first of its frames is kept",)


def test_a_jpeg_with_a_second_picture_behind_it_is_a_jpeg() -> None:
    frames = [Image.fromarray(smooth()), Image.fromarray(255 - smooth())]
    image = decode(saved(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95))
    assert image.format == "JPEG"
    assert psnr(image.pixels, smooth()) > 30
    assert image.notes == ("only the first of its frames is kept",)
    assert decode(encode(image)).notes == ()


@pytest.mark.parametrize("format", OLD_FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_truncated_files_are_refused(format: str, kept: float) -> None:
    data = saved(Image.fromarray(noise(120, 160)), format)
    with pytest.raises(ImageError):
        decode(data[: int(len(data) * kept)])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP"])
def test_a_truncated_file_is_decoded_as_far_as_it_goes_on_request(format: str) -> None:
    pixels = np.repeat(np.repeat(smooth(), 4, axis=0), 4, axis=1)
    data = saved(Image.fromarray(pixels), format, **({"quality": 95} if format == "JPEG" else {}))
    image = decode(data[: len(data) * 2 // 3], truncated=True)
    assert image.pixels.shape == pixels.shape
    assert image.notes == ("it ends too early: what is missing is of one colour",)
    decoded = slice(80, 150) if format == "BMP" else slice(0, 60)  # a BMP begins at the bottom
    assert psnr(image.pixels[decoded], pixels[decoded]) > 30


def test_a_truncated_file_without_a_single_row_is_refused() -> None:
    data = saved(Image.fromarray(smooth()), "PNG")
    with pytest.raises(ImageError, match="nothing of it could be decoded"):
        decode(data[: data.index(b"IDAT") + 6], truncated=True)


@pytest.mark.parametrize("format", OLD_FORMATS)
def test_a_header_tells_format_and_upright_size(format: str) -> None:
    data = saved(
        Image.fromarray(smooth()), format, **({} if format == "BMP" else {"exif": orientation_only(6)})
    )
    upright = (40, 56) if format == "BMP" else (56, 40)
    assert inspect(data) == Header(format, *upright)
    assert decode(data).pixels.shape[:2] == upright
    with pytest.raises(ImageError):
        inspect(data[:12])
    with pytest.raises(ImageError, match="limit"):
        inspect(data, Limits(max_side=55))


@pytest.mark.parametrize(
    "data",
    [b"", b"not a picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"],
    ids=["empty", "text", "eps"],
)
def test_anything_but_a_photo_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


@pytest.mark.parametrize("format", ["GIF", "PPM", "ICO", "TGA", "PCX", "JPEG2000"])
def test_other_formats_are_refused(format: str) -> None:
    with pytest.raises(ImageError, match="not a JPEG"):
        decode(saved(Image.fromarray(smooth()), format))


def test_a_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(ImageError, match="pixels"):
        decode(png(50_000, 50_000, b""))
    with pytest.raises(ImageError, match="65,535"):
        decode(png(70_000, 10, b""))


def test_a_bomb_of_one_tile_is_refused() -> None:
    exif = Image.Exif()
    exif.update({256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 273: 0, 277: 1, 279: 100, 322: 40_000, 323: 50_000})
    with pytest.raises(ImageError, match="40000x50000"):
        decode(exif.tobytes()[6:] + zlib.compress(bytes(100)))


def test_limits_are_the_callers_to_set() -> None:
    data = saved(Image.fromarray(smooth()), "PNG")
    for limits in (Limits(max_bytes=100), Limits(max_pixels=40 * 56 - 1), Limits(max_side=55)):
        with pytest.raises(ImageError, match="limit"):
            decode(data, limits)
    exact = Limits(max_bytes=len(data), max_pixels=40 * 56, max_side=56)
    assert decode(data, exact).pixels.shape == (40, 56, 3)


def test_pixels_of_another_shape_are_refused() -> None:
    image = decode(saved(Image.fromarray(smooth()), "PNG"))
    with pytest.raises(ValueError, match="size must stay"):
        image.with_pixels(smooth(41, 56))


def png(
    width: int, height: int, rows: bytes, depth: int = 8, colour_type: int = 2, *chunks: tuple[bytes, bytes]
) -> bytes:
    """A PNG written by hand, so that its header may have values that no encoder writes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(kind, body) for kind, body in chunks)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def png16(values: NDArray[np.uint16], colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of uint16 (H, W, C) samples, without filters."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], rows, 16, colour_type, *chunks)
