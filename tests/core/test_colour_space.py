"""A colour space is kept however a file tells it, as it is told or as an ICC profile that says the same."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffuir_core.imaging import decode, encode, lost_in
from diffuir_core.imaging.metadata.colour_space import ADOBE_RGB, ColourSpace
from diffuir_core.imaging.metadata.content import Metadata
from support.metadata_files import camera_block, chunks, exif_segment, jpeg, pixels, png, saved

GAMMA = (b"gAMA", struct.pack(">I", 45_470))
ADOBE = (b"cHRM", struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 21_000, 71_000, 15_000, 6_000))
SRGB_POINTS = (b"cHRM", struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000))
PQ, P3, SRGB_CODES = ((b"cICP", bytes(codes)) for codes in ((9, 16, 0, 1), (12, 13, 0, 1), (1, 13, 0, 1)))
SRGB = (b"sRGB", b"\0")
LIGHT = (b"mDCV", bytes(24)), (b"cLLI", bytes(8))
OTHERS = ("JPEG", "WEBP", "TIFF", "BMP")


def profile_of(data: bytes) -> bytes | None:
    """The ICC profile of a file that this project has written."""
    return decode(data).metadata.icc_profile


def as_srgb(profile: bytes, colours: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray:  # type: ignore[type-arg]
    """Colours (N, 3) under a profile, as LittleCMS converts them to sRGB."""
    picture = Image.fromarray(colours[None])
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"))
    assert converted is not None
    return np.asarray(converted)[0]


@pytest.mark.parametrize(
    "told",
    [[GAMMA, ADOBE], [GAMMA], [ADOBE], [SRGB], [PQ], [P3, *LIGHT], [SRGB_CODES], [GAMMA, SRGB_POINTS, SRGB]],
    ids=lambda told: "+".join(kind.decode() for kind, _ in told),
)
@pytest.mark.parametrize("exif", ["without-gps", "none"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_keeps_the_chunks_that_tell_its_colours(
    told: list[tuple[bytes, bytes]], exif: str, bits: int
) -> None:
    picture = Image.fromarray(pixels() if bits == 8 else np.ones((9, 9), np.uint16))
    image = decode(png(*told, data=saved("PNG", picture)), exif=exif)  # type: ignore[arg-type]
    assert chunks(encode(image)) == told
    assert image.notes == lost_in(image) == ()


@pytest.mark.parametrize("target", OTHERS)
def test_chromaticities_become_a_profile_in_other_formats(target: str) -> None:
    image = decode(png(GAMMA, ADOBE))
    data = encode(image, target)
    profile = profile_of(data)
    assert profile is not None
    assert lost_in(image, target) == ()
    assert encode(image, target) == data
    primaries = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
    # Adobe RGB (1998), annex C: the primaries under D50.
    assert primaries.red_colorant[0] == pytest.approx((0.60974, 0.31111, 0.01947), abs=1e-4)
    assert primaries.green_colorant[0] == pytest.approx((0.20528, 0.62567, 0.06087), abs=1e-4)
    assert primaries.blue_colorant[0] == pytest.approx((0.14919, 0.06322, 0.74457), abs=1e-4)


@pytest.mark.parametrize("told", [[GAMMA], [GAMMA, SRGB_POINTS], [SRGB], [SRGB_CODES], [ADOBE, SRGB]])
@pytest.mark.parametrize("target", OTHERS)
def test_what_looks_as_srgb_needs_no_profile(told: list[tuple[bytes, bytes]], target: str) -> None:
    image = decode(png(*told))
    assert profile_of(encode(image, target)) is None
    assert lost_in(image, target) == ()


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.6])
def test_a_profile_has_the_gamma_that_the_file_tells(gamma: float) -> None:
    image = decode(png((b"gAMA", struct.pack(">I", round(100_000 / gamma)))))
    profile = profile_of(encode(image, "TIFF"))
    assert profile is not None
    greys = np.repeat(np.arange(40, 256, 20, dtype=np.uint8)[:, None], 3, axis=1)
    light = (greys / 255) ** gamma
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert np.abs(as_srgb(profile, greys) - expected).max() < 1.5


def test_a_grey_photo_gets_a_grey_profile() -> None:
    grey = saved("PNG", Image.fromarray(pixels()[..., 0]))
    image = decode(png((b"gAMA", struct.pack(">I", 100_000)), data=grey))
    profile = profile_of(encode(image, "JPEG"))
    assert profile is not None
    assert profile[16:20] == b"GRAY"
    profile = profile_of(encode(image, "WEBP"))  # which has no greyscale
    assert profile is not None
    assert profile[16:20] == b"RGB "


def test_codes_of_a_colour_space_become_a_profile_or_a_note() -> None:
    image = decode(png(P3))
    profile = profile_of(encode(image, "JPEG"))
    assert profile is not None
    (red,) = as_srgb(profile, np.array([[255, 0, 0]], np.uint8))
    assert tuple(red) == (255, 0, 0)  # redder than sRGB's red, and clipped
    # P3 (234, 51, 35) is the red of sRGB.
    assert np.abs(as_srgb(profile, np.array([[234, 51, 35]], np.uint8)) - (255, 0, 0)).max() <= 4
    hdr = decode(png(PQ))
    for target in OTHERS:
        assert lost_in(hdr, target) == (f"{target} cannot hold its colour space (PQ)",)
        assert profile_of(encode(hdr, target)) is None


def test_the_light_of_the_display_is_a_note_in_other_formats() -> None:
    image = decode(png(*LIGHT))
    assert lost_in(image, "JPEG") == ("JPEG cannot hold its chunks cLLI, mDCV",)


def test_a_profile_comes_before_chromaticities() -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = decode(png(GAMMA, ADOBE, data=saved("PNG", icc_profile=own)))
    assert image.metadata.icc_profile == own
    assert profile_of(encode(image, "JPEG")) == own
    again = dict(chunks(encode(image)))
    assert (again[b"gAMA"], again[b"cHRM"]) == (GAMMA[1], ADOBE[1])


def test_adobe_rgb_that_exif_tells_stays_in_a_jpegs_exif() -> None:
    block = camera_block(adobe=True)
    image = decode(jpeg(exif_segment(block)))
    assert decode(encode(image)).metadata.exif == block
    assert profile_of(encode(image)) is None


@pytest.mark.parametrize("target", ["PNG", "WEBP", "TIFF", "BMP"])
def test_adobe_rgb_that_exif_tells_becomes_a_profile_elsewhere(target: str) -> None:
    image = decode(jpeg(exif_segment(camera_block(adobe=True))))
    assert profile_of(encode(image, target)) == ADOBE_RGB.profile(grey=False)


@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_adobe_rgb_that_exif_tells_survives_without_the_exif(target: str) -> None:
    image = decode(jpeg(exif_segment(camera_block(adobe=True))), exif="none")
    assert image.metadata.exif is None
    assert profile_of(encode(image, target)) == ADOBE_RGB.profile(grey=False)
    assert lost_in(image, target) == ()


def test_a_bmp_keeps_its_profile() -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode in ("RGB", "RGBA", "L", "P"):
        picture = Image.fromarray(pixels()).convert(mode)
        profile = own if mode != "L" else own[:16] + b"GRAY" + own[20:]
        image = decode(encode(decode(saved("PNG", picture, icc_profile=profile)), "BMP"))
        assert (image.format, image.metadata.icc_profile) == ("BMP", profile)
        assert np.array_equal(image.pixels, decode(saved("PNG", picture)).pixels)
        assert profile_of(encode(image)) == profile


@pytest.mark.parametrize("points", [(0,) * 8, (31_270, 0, *(33_333,) * 6), (2**31 - 1,) * 8])
def test_chromaticities_that_are_no_colour_space_raise_nothing(points: tuple[int, ...]) -> None:
    image = decode(png((b"gAMA", bytes(4)), (b"cHRM", struct.pack(">8I", *points))))
    for target in OTHERS:
        encode(image, target)


def test_codes_without_a_meaning_are_taken_for_srgb() -> None:
    assert ColourSpace.of_cicp(2, 2, 2, 0).is_srgb
    assert ColourSpace.of_cicp(250, 99, 0, 1).is_srgb


def test_a_damaged_profile_is_a_note() -> None:
    for data in (
        png((b"iCCP", b"name\0\0not compressed")),
        jpeg((0xE2, b"ICC_PROFILE\0\x02\x03" + bytes(200))),
    ):
        image = decode(data)
        assert image.metadata.icc_profile is None
        assert image.notes == ("its colour profile is damaged and dropped",)


def test_codes_of_a_heic_become_chunk_and_profile_of_a_png() -> None:
    told = ColourSpace.of_cicp(12, 13, 6, 1)
    image = replace(decode(saved("PNG")), metadata=Metadata(colour_space=told))
    again = decode(encode(image, "PNG"))
    assert again.metadata.chunks == (P3,)
    assert again.metadata.icc_profile == told.profile(grey=False)


def test_chromaticities_in_a_tiff_stay_tags_and_become_a_profile_elsewhere() -> None:
    tags = Image.Exif()
    tags[318] = (0.3127, 0.3290)
    tags[319] = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
    data = saved("TIFF", exif=tags.tobytes())
    image = decode(data)
    again = Image.open(io.BytesIO(encode(image))).tag_v2  # type: ignore[attr-defined]
    assert [float(number) for number in again[319]] == pytest.approx(tags[319])
    assert profile_of(encode(image)) is None
    for other, target in ((image, "PNG"), (decode(data, exif="none"), "TIFF")):
        profile = profile_of(encode(other, target))
        assert profile is not None
        assert ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.red_colorant[0] == pytest.approx(
            (0.60974, 0.31111, 0.01947), abs=1e-3
        )


def test_end_points_in_a_bmp_are_a_note() -> None:
    data = bytearray(encode(decode(saved("PNG", Image.fromarray(pixels()).convert("RGBA"))), "BMP"))
    assert decode(bytes(data)).notes == ()
    data[70:110] = bytes(4) + bytes(range(36))
    assert decode(bytes(data)).notes == ("its colour space, of end points or in another file, is not kept",)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_icc_profile_is_kept(format: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = decode(saved(format, icc_profile=profile))
    assert image.metadata.icc_profile == profile
    assert Image.open(io.BytesIO(encode(image))).info["icc_profile"] == profile


def test_a_grey_profile_is_not_written_to_a_colour_file() -> None:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"GRAY"
    grey = Image.fromarray(pixels()[..., 0])
    image = decode(saved("PNG", grey, icc_profile=bytes(profile)))
    assert Image.open(io.BytesIO(encode(image))).info["icc_profile"] == bytes(profile)
    assert lost_in(image) == ()
    assert lost_in(image, "WEBP") == (
        "WEBP cannot hold its colour profile, which is for another kind of colours",
    )
    assert "icc_profile" not in Image.open(io.BytesIO(encode(image, "WEBP"))).info
