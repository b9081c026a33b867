"""HEIC, AVIF, JPEG XL and RAW photos: read with all their bits, turned once, written back in their own format."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from test_imaging import psnr, saved
from test_tiff import tiff

from diffuir_core.imaging import (
    FORMAT_OF_SUFFIX,
    ImageError,
    Limits,
    MissingExtraError,
    TooLargeError,
    check_fits,
    decode,
    encode,
    inspect,
    lost_in,
)
from support.photo_files import LOSSLESS, avif, dng, exif_of, heic, jxl, mosaic, turned_jxl

Array = NDArray[Any]
Y, X = np.mgrid[:64, :96]
PIXELS = np.stack([X * 2, Y * 3, X + Y], -1).astype(np.uint8)
DEEP = PIXELS.astype(np.uint16) * 257 + (X[..., None] % 97).astype(np.uint16)
ALPHA = (X + Y).astype(np.uint8)


def photo(format: str, samples: Array = PIXELS) -> bytes:
    """`samples` of 8 bits in a format, with little loss."""
    if format == "HEIC":
        return heic(samples)
    if format == "JXL":
        return jxl(samples, level=97)
    return saved(Image.fromarray(samples), "AVIF", quality=95, subsampling="4:4:4")


@pytest.mark.parametrize("format", ["HEIC", "AVIF", "JXL"])
def test_a_photo_is_read_and_written_back_in_its_format(format: str) -> None:
    data = photo(format)
    image = decode(data)
    assert (image.format, image.colour, image.alpha, image.deep) == (format, "RGB", None, None)
    assert (image.notes, lost_in(image)) == ((), ())
    assert psnr(image.pixels, PIXELS) > 36
    header = inspect(data)
    assert (header.format, header.height, header.width) == (format, 64, 96)
    again = decode(encode(image))
    assert again.format == format
    assert psnr(again.pixels, image.pixels) > 36
    assert len(encode(image, quality=20)) < len(encode(image, quality=90))


@pytest.mark.parametrize("format", ["HEIC", "AVIF", "JXL"])
@pytest.mark.parametrize("kind", ["grey", "alpha", "grey with alpha"])
def test_grey_and_transparency_survive(format: str, kind: str) -> None:
    colours = PIXELS[..., :1] if "grey" in kind else PIXELS
    samples = np.dstack((colours, ALPHA)) if "alpha" in kind else colours
    source = saved(Image.fromarray(samples.squeeze()), "PNG")
    again = decode(encode(decode(source), format))
    expected = decode(source)
    assert psnr(again.pixels, expected.pixels) > 36
    if expected.alpha is None:
        assert again.alpha is None
        assert again.colour == "L"
    else:
        assert again.alpha is not None
        assert psnr(again.alpha, expected.alpha) > 36


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["HEIC", "AVIF", "JXL", "RAW"])
def test_a_photo_is_turned_once(format: str, orientation: int) -> None:
    if format == "HEIC":
        data = heic(PIXELS, exif=exif_of(orientation))  # which the library turns into the file's own rotation
    elif format == "AVIF":
        data = saved(Image.fromarray(PIXELS), "AVIF", quality=95, exif=exif_of(orientation))
    elif format == "JXL":
        data = turned_jxl(PIXELS, orientation)
    else:
        data = dng(mosaic(DEEP), orientation)
    turn = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]
    upright = Image.fromarray(PIXELS)
    upright = upright if turn is None else upright.transpose(Image.Transpose(turn))
    image = decode(data)
    header = inspect(data)
    assert image.pixels.shape[:2] == (header.height, header.width) == upright.size[::-1]
    if format == "RAW":
        assert image.deep is not None
        reference = decode(dng(mosaic(DEEP))).pixels
        upright = Image.fromarray(reference)
        upright = upright if turn is None else upright.transpose(Image.Transpose(turn))
    assert psnr(image.pixels, np.asarray(upright)) > 30
    written = encode(image)
    assert psnr(decode(written).pixels, image.pixels) > 30
    assert decode(written).pixels.shape == image.pixels.shape


def test_a_rotation_of_exif_alone_does_not_turn_what_has_its_own() -> None:
    for data in (saved_heic_with_foreign_exif(), jxl_with_exif(exif_of(6))):
        image = decode(data)
        assert image.pixels.shape == PIXELS.shape
        exif = image.metadata.exif
        assert exif is not None
        loaded = Image.Exif()
        loaded.load(b"Exif\0\0" + exif)
        assert loaded.get(274, 1) == 1


def saved_heic_with_foreign_exif() -> bytes:
    """A HEIC whose EXIF tells a rotation that its own boxes do not."""
    data = bytearray(heic(PIXELS, exif=exif_of(1)))
    upright, turned = exif_of(1)[6:], exif_of(6)[6:]
    at = bytes(data).index(upright)
    data[at : at + len(upright)] = turned
    return bytes(data)


def jxl_with_exif(exif: bytes) -> bytes:
    codestream = jxl(PIXELS)
    signature = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl "
    boxes = ((b"Exif", bytes(4) + exif[6:]), (b"jxlc", codestream))
    return signature + b"".join((8 + len(body)).to_bytes(4, "big") + kind + body for kind, body in boxes)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("format", ["HEIC", "AVIF"])
def test_10_and_12_bits_are_read_in_full(format: str, bits: int) -> None:
    data = avif(DEEP, bits) if format == "AVIF" else heic(DEEP, bit_depth=bits, **LOSSLESS)
    image = decode(data)
    assert image.bits == bits
    assert image.deep is not None
    stored = DEEP >> (16 - bits)
    expected = np.rint(stored * (65_535 / (2**bits - 1)))
    assert np.array_equal(image.deep, expected)
    assert decode(encode(image, "TIFF")).deep is not None
    if format == "HEIC":
        assert lost_in(image) == ()
        assert np.array_equal(np.asarray(decode(encode(image)).deep), image.deep)
    else:
        reduced = f"AVIF is written with 8 of its {bits} bits per channel"
        assert lost_in(image) == (reduced, "AVIF is written with loss")
        assert psnr(decode(encode(image)).pixels, image.pixels) > 36


def test_lossless_photos_stay_lossless() -> None:
    for data in (heic(PIXELS, **LOSSLESS), jxl(PIXELS), jxl(PIXELS[..., :1])):
        image = decode(data)
        assert image.lossless
        again = decode(encode(image))
        assert again.lossless
        assert np.array_equal(again.pixels, image.pixels)
    assert not decode(heic(PIXELS)).lossless
    assert not decode(jxl(PIXELS, level=90)).lossless


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_of_jpeg_xl_survive_as_srgb(channels: int) -> None:
    samples = np.dstack((DEEP, DEEP[..., ::-1]))[
        ..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    ]
    kind = "minisblack" if channels < 3 else "rgb"
    extra = {"extrasamples": ["unassalpha"], "planarconfig": "contig"} if channels in (2, 4) else {}
    image = decode(tiff(samples.squeeze(), photometric=kind, **extra))
    again = decode(encode(image, "JXL"))
    assert again.deep is not None
    assert np.array_equal(again.deep, samples)
    assert again.metadata.icc_profile is None  # sRGB by its header
    assert lost_in(image, "JXL") == ()
    assert np.array_equal(np.asarray(decode(encode(again)).deep), samples)


def test_jpeg_xl_is_converted_to_srgb_with_a_note() -> None:
    import imagecodecs

    wide = imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.329, 1.0], primaries=P3, gamma=2.2)
    image = decode(saved(Image.fromarray(PIXELS), "PNG", icc_profile=bytes(wide)))
    assert lost_in(image, "JXL") == (
        "JXL cannot hold its colour profile (its colours are converted to sRGB)",
    )
    again = decode(encode(image, "JXL", quality=100))
    srgb = ImageCms.createProfile("sRGB")
    source = ImageCms.ImageCmsProfile(io.BytesIO(bytes(wide)))
    expected = ImageCms.profileToProfile(Image.fromarray(PIXELS), source, srgb)
    assert psnr(again.pixels, np.asarray(expected)) > 36
    plain = ImageCms.ImageCmsProfile(srgb).tobytes()
    assert lost_in(decode(saved(Image.fromarray(PIXELS), "PNG", icc_profile=plain)), "JXL") == ()


P3 = [0.68, 0.32, 1.0, 0.265, 0.69, 1.0, 0.15, 0.06, 1.0]


@pytest.mark.parametrize("format", ["HEIC", "AVIF"])
def test_the_colour_profile_is_kept(format: str) -> None:
    import imagecodecs

    wide = bytes(imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.329, 1.0], primaries=P3, gamma=2.2))
    image = decode(saved(Image.fromarray(PIXELS), "PNG", icc_profile=wide))
    assert decode(encode(image, format)).metadata.icc_profile == wide
    assert lost_in(image, format) == ()


def test_a_jpeg_in_a_jpeg_xl_is_read() -> None:
    import imagecodecs

    jpeg = saved(Image.fromarray(PIXELS), "JPEG", quality=95, subsampling=0)
    data = bytes(imagecodecs.jpegxl_encode_jpeg(jpeg))
    image = decode(data)
    assert image.format == "JXL"
    assert not image.lossless
    assert psnr(image.pixels, decode(jpeg).pixels) > 40


def test_floating_point_jpeg_xl_becomes_16_bits() -> None:
    import imagecodecs

    data = bytes(imagecodecs.jpegxl_encode((DEEP / 65_535).astype(np.float32), lossless=True))
    image = decode(data)
    assert image.deep is not None
    assert np.abs(image.deep.astype(int) - DEEP).max() <= 1
    assert image.notes == ("its floating-point samples are rounded to 16 bits",)


def test_a_raw_photo_is_developed_to_a_tiff_of_16_bits() -> None:
    flat = np.empty((64, 96), np.uint16)
    # The white balance doubles red and blue: this is a neutral grey of a quarter of full light.
    flat[:] = 16_384
    flat[::2, ::2] = flat[1::2, 1::2] = 8192
    data = dng(flat)
    assert inspect(data).format == "RAW"
    image = decode(data)
    assert image.format == "RAW"
    assert image.deep is not None
    grey = image.deep[16:-16, 16:-16].reshape(-1, 3)
    light = 1.055 * 0.25 ** (1 / 2.4) - 0.055
    assert np.abs(grey / 65_535 - light).max() < 0.03
    assert image.notes == ("developed from RAW to sRGB with the camera's white balance",)
    written = encode(image)
    again = decode(written)
    assert (again.format, again.bits) == ("TIFF", 16)
    assert np.array_equal(np.asarray(again.deep), image.deep)
    assert inspect(encode(image, "JPEG")).format == "JPEG"
    exif = Image.open(io.BytesIO(written)).getexif()
    assert exif[271] == "A maker"
    assert 50706 not in exif  # or readers would take the result for a DNG
    assert exif.get(274, 1) == 1


def test_raw_photos_without_exif_and_other_tiffs_are_told_apart() -> None:
    notes = decode(dng(mosaic(DEEP), exif=False)).notes
    assert notes[1:] == ("its EXIF cannot be read and is dropped",)
    buffer = io.BytesIO()
    first, second = Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())
    first.save(buffer, "TIFF", save_all=True, append_images=[second])
    smaller = io.BytesIO()
    with tifffile.TiffWriter(smaller) as writer:
        writer.write(DEEP, photometric="rgb", subifds=1)
        writer.write(DEEP[::2, ::2], photometric="rgb", subfiletype=1)
    for data in (buffer.getvalue(), smaller.getvalue(), tiff(DEEP, photometric="rgb")):
        assert inspect(data).format == "TIFF"


DAMAGED = [*(("HEIC", heic(PIXELS)), ("AVIF", photo("AVIF")), ("AVIF", avif(DEEP, 10)), ("JXL", jxl(PIXELS)))]
DAMAGED += [("JXL", jxl(PIXELS, level=90)), ("RAW", dng(mosaic(DEEP)))]


@pytest.mark.parametrize(("format", "data"), DAMAGED)
def test_a_truncated_photo_is_refused_with_one_sentence_of_ours(format: str, data: bytes) -> None:
    for end in (12, 40, len(data) // 3, len(data) * 2 // 3):
        with pytest.raises(ImageError) as refused:
            decode(data[:end])
        assert len(str(refused.value).splitlines()) == 1
        assert not any(word in str(refused.value) for word in ("Error", "libheif", "libjxl", "LibRaw", "b'"))


@pytest.mark.parametrize(("format", "data"), DAMAGED)
def test_the_size_is_checked_before_decoding(format: str, data: bytes) -> None:
    for read in (inspect, decode):
        with pytest.raises(TooLargeError, match="96x64 pixels, more than the limit of 6,000"):
            read(data, Limits(max_pixels=6000))


def test_without_the_extra_one_sentence_names_it(tmp_path: Path) -> None:
    """A missing library is a module that is None."""
    script = """
import sys
for name in ("pillow_heif", "pillow_jxl", "rawpy"):
    sys.modules[name] = None
from diffuir_core.imaging import ImageError, decode, inspect, check_fits
from diffuir_core.imaging import Image
for path in sys.argv[1:]:
    for read in (inspect, decode):
        try:
            read(open(path, "rb").read())
        except ImageError as error:
            print(type(error).__name__, error)
"""
    files = []
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("a.heic", heic(PIXELS)), ("a.jxl", jxl(PIXELS)), ("a.dng", dng(mosaic(DEEP)))):
            path = Path(folder) / name
            path.write_bytes(data)
            files.append(str(path))
        run = subprocess.run(
            [sys.executable, "-c", script, *files], capture_output=True, text=True, check=True
        )
    expected = [
        "MissingExtraError it is a HEIC photo: install diffuir[formats] to read it",
        "MissingExtraError it is a JPEG XL photo: install diffuir[formats] to read it",
        "MissingExtraError it is a RAW photo: install diffuir[formats] to read it",
    ]
    assert run.stdout.splitlines() == [line for line in expected for _ in range(2)]


def test_libraries_are_imported_for_their_photos_only() -> None:
    script = """
import sys
from diffuir_core.imaging import decode, encode
from PIL import Image
import io
buffer = io.BytesIO()
Image.new("RGB", (8, 8)).save(buffer, "JPEG")
encode(decode(buffer.getvalue()))
print(sorted({"pillow_heif", "pillow_jxl", "rawpy", "imagecodecs", "tifffile"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_endings_of_all_formats_are_known() -> None:
    for ending in (".jfif", ".jpe", ".jif", ".heic", ".heif", ".hif", ".avif", ".jxl"):
        assert FORMAT_OF_SUFFIX[ending] in ("JPEG", "HEIC", "AVIF", "JXL")


def test_a_side_that_a_format_cannot_have_is_refused_before_the_restore() -> None:
    image = decode(saved(Image.new("L", (20_000, 2)), "PNG"))
    for format in ("HEIC", "WEBP"):
        with pytest.raises(ImageError, match="cannot hold a side longer"):
            check_fits(image, format)


def test_a_missing_extra_survives_pickling() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(MissingExtraError("it is", "HEIC")))
    assert (str(error), error.format) == ("it is", "HEIC")
