"""Resolution, texts, comments and IPTC survive in every format that can hold them; what is lost is a note."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffuir_core.imaging import decode, encode, lost_in
from diffuir_core.imaging.metadata.content import Resolution
from diffuir_core.imaging.metadata.photoshop import iptc as iptc_in
from support.metadata_files import (
    HEIGHT,
    UTF8,
    WIDTH,
    camera_block,
    chunks,
    exif_segment,
    iptc,
    jpeg,
    photoshop_block,
    pixels,
    png,
    saved,
    segments,
    xmp_packet,
    xmp_segment,
)

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
INCH = Resolution(Fraction(300), Fraction(300), "inch")


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("target", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("policy", ["without-gps", "none"])
def test_resolution_survives_from_every_format_to_every_other(source: str, target: str, policy: str) -> None:
    image = decode(saved(source, dpi=(300, 300)), exif=policy)  # type: ignore[arg-type]
    assert image.metadata.resolution is not None
    again = opened(encode(image, target))
    assert tuple(round(float(number), 1) for number in again.info["dpi"]) == (300, 300)
    assert lost_in(image, target) == ()


@pytest.mark.parametrize("target", ["WEBP"])
def test_a_format_without_resolution_holds_it_in_exif(target: str) -> None:
    image = decode(saved("JPEG", dpi=(300, 300)))
    exif = opened(encode(image, target)).getexif()
    assert (exif[282], exif[283], exif[296]) == (300, 300, 2)
    assert lost_in(image, target) == ()
    # EXIF of a camera says the same already; another resolution has no place beside it.
    block = camera_block()
    assert lost_in(decode(jpeg(exif_segment(block), dpi=(300, 300))), target) == ()
    image = decode(jpeg(exif_segment(block), dpi=(200, 200)))
    assert lost_in(image, target) == (f"{target} cannot hold its resolution",)


@pytest.mark.parametrize(
    ("unit", "x", "y", "expected"),
    [
        (0, 1, 1, None),
        (0, 2, 1, Resolution(Fraction(2), Fraction(1), "ratio")),
        (1, 72, 96, Resolution(Fraction(72), Fraction(96), "inch")),
        (2, 118, 118, Resolution(Fraction(118), Fraction(118), "centimetre")),
    ],
)
def test_a_jpegs_resolution_keeps_its_unit(unit: int, x: int, y: int, expected: Resolution | None) -> None:
    data = bytearray(saved("JPEG"))
    data[13:18] = struct.pack(">BHH", unit, x, y)
    image = decode(bytes(data))
    assert image.metadata.resolution == expected
    if expected is not None:
        assert encode(image)[13:18] == bytes(data[13:18])
    for target in ("PNG", "TIFF"):
        again = decode(encode(image, target)).metadata.resolution
        if expected is None:
            assert again is None
        else:
            assert again is not None
            inches, told = expected.per("inch"), again.per("inch")
            if inches is None or told is None:
                assert (again.x, again.y, again.unit) == (expected.x, expected.y, "ratio")
            else:
                assert [float(n) for n in told] == pytest.approx([float(n) for n in inches], rel=1e-4)


@pytest.mark.parametrize("unit", [0, 1])
def test_a_pngs_resolution_is_the_same_bytes(unit: int) -> None:
    chunk = (b"pHYs", struct.pack(">IIB", 2835, 3000, unit))
    assert chunk in chunks(encode(decode(png(chunk))))


def test_resolution_turns_with_the_photo() -> None:
    data = bytearray(jpeg(data=saved("JPEG", exif=b"Exif\0\0" + camera_block(orientation=6))))
    data[13:18] = struct.pack(">BHH", 1, 100, 200)
    assert decode(bytes(data)).metadata.resolution == Resolution(Fraction(200), Fraction(100), "inch")


def test_png_texts_time_and_unknown_colours_stay_the_same_chunks() -> None:
    kept = [
        (b"tEXt", b"Title\0Hello"),
        (b"zTXt", b"Description\0\0" + zlib.compress(b"long " * 100)),
        (b"iTXt", b"Author\0\0\0de\0\0" + UTF8.encode()),
        (b"tEXt", b"My own keyword\0value"),
        (b"tIME", bytes((7, 232, 1, 2, 3, 4, 5))),
    ]
    for data in (png(*kept), png(*kept, data=saved("PNG", Image.fromarray(np.ones((9, 9), np.uint16))))):
        image = decode(data)
        assert image.notes == ()
        assert chunks(encode(image)) == kept
        assert chunks(encode(decode(data, exif="none"))) == []


def test_texts_behind_the_pixels_are_kept() -> None:
    plain, end = saved("PNG")[:-12], saved("PNG")[-12:]
    data = plain + png((b"tEXt", b"Title\0Hello"))[33:56] + end
    assert opened(data).format == "PNG"
    assert chunks(encode(decode(data))) == [(b"tEXt", b"Title\0Hello")]


def test_a_text_that_tells_the_place_is_dropped_unless_asked_for() -> None:
    place = (b"tEXt", b"exif:GPSLatitude\0" + b"47/1")
    assert chunks(encode(decode(png(place)))) == []
    assert chunks(encode(decode(png(place), exif="with-gps"))) == [place]


def test_chunks_that_are_not_kept_are_a_note() -> None:
    image = decode(png((b"caBX", b"signed"), (b"iDOT", bytes(28))))
    assert image.notes == ("of its chunks caBX are not kept",)


def test_png_texts_become_xmp_in_other_formats() -> None:
    texts = (
        (b"tEXt", b"Title\0Caf\xe9 <&>"),
        (b"iTXt", b"Author\0\0\0\0\0" + UTF8.encode()),
        (b"tEXt", b"Odd\0x"),
    )
    image = decode(png(*texts))
    for target in ("JPEG", "WEBP", "TIFF"):
        packet = decode(encode(image, target)).metadata.xmp
        assert packet is not None
        assert (
            '<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Café &lt;&amp;&gt;</rdf:li>'.encode() in packet
        )
        assert f"<dc:creator><rdf:Seq><rdf:li>{UTF8}</rdf:li>".encode() in packet
        assert lost_in(image, target) == (f"{target} cannot hold its text (Odd)",)
    assert lost_in(image, "BMP") == ("BMP cannot hold its text (Author, Odd, Title)",)


def test_png_texts_are_added_to_xmp_that_does_not_tell_them() -> None:
    packet = xmp_packet('xmp:Rating="5"', "<dc:title>own</dc:title>")
    xmp = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    image = decode(png(xmp, (b"tEXt", b"Title\0other"), (b"tEXt", b"Copyright\0me")))
    assert chunks(encode(image))[0] == xmp
    written = decode(encode(image, "TIFF")).metadata.xmp
    assert written is not None
    assert b"<dc:title>own</dc:title>" in written
    assert b"<dc:rights>" in written
    assert lost_in(image, "TIFF") == ("TIFF cannot hold its text (Title)",)


@pytest.mark.parametrize("comment", [b"plain", UTF8.encode(), "Café".encode("latin-1"), b"two\nlines\0"])
def test_jpeg_comments_stay_the_same_bytes(comment: bytes) -> None:
    image = decode(jpeg((0xFE, comment), (0xFE, b"second")))
    written = encode(image)
    assert [body for marker, body in segments(written) if marker == 0xFE] == [comment, b"second"]
    assert decode(jpeg((0xFE, comment)), exif="none").metadata.comments == ()


def test_a_jpeg_comment_is_a_text_of_a_png_and_back() -> None:
    image = decode(jpeg((0xFE, UTF8.encode())))
    data = encode(image, "PNG")
    assert opened(data).text["Comment"] == UTF8  # type: ignore[attr-defined]
    assert decode(encode(decode(data), "JPEG")).metadata.comments == (UTF8.encode(),)
    assert UTF8.encode() in encode(image, "TIFF")


@pytest.mark.parametrize("target", ["JPEG", "PNG", "TIFF"])
def test_iptc_is_kept_byte_for_byte(target: str) -> None:
    blocks = photoshop_block(0x0404, iptc())
    image = decode(jpeg((0xED, b"Photoshop 3.0\0" + blocks)))
    assert image.notes == ()
    data = encode(image, target)
    again = decode(data)
    assert iptc_in(again.metadata.photoshop) == iptc()
    assert iptc_in(decode(encode(again, "JPEG")).metadata.photoshop) == iptc()
    if target == "JPEG":
        assert (0xED, b"Photoshop 3.0\0" + blocks) in segments(data)
    if target == "TIFF":
        assert opened(data).tag_v2[33723] == iptc()  # type: ignore[attr-defined]
    assert lost_in(image, target) == ()
    assert lost_in(image, "WEBP") == ("WEBP cannot hold its IPTC",)


def test_other_blocks_of_photoshop_are_kept_but_for_previews() -> None:
    url, preview, odd = (
        photoshop_block(0x040B, b"https://example"),
        photoshop_block(0x040C, b"\xff\xd8"),
        photoshop_block(0x0411, b"x"),
    )
    image = decode(jpeg((0xED, b"Photoshop 3.0\0" + url + preview + odd)))
    assert (0xED, b"Photoshop 3.0\0" + url + odd) in segments(encode(image))
    assert decode(encode(image, "TIFF")).metadata.photoshop == url + odd


def test_metadata_in_imagemagicks_form_is_read_from_a_png() -> None:
    def raw(name: str, data: bytes) -> tuple[bytes, bytes]:
        body = f"\n{name}\n{len(data):8d}\n{data.hex()}\n".encode()
        return b"zTXt", b"Raw profile type " + name.encode() + b"\0\0" + zlib.compress(body)

    block, packet = camera_block(gps=True), xmp_packet('xmp:Rating="5"')
    image = decode(
        png(
            raw("exif", b"Exif\0\0" + block), raw("iptc", photoshop_block(0x0404, iptc())), raw("xmp", packet)
        )
    )
    assert image.notes == ()
    assert image.metadata.exif is not None
    assert b"Raw profile type exif" not in encode(image)
    assert iptc_in(image.metadata.photoshop) == iptc()
    assert image.metadata.xmp == packet


def test_segments_that_are_not_kept_are_a_note() -> None:
    image = decode(
        jpeg((0xE4, b"maker"), (0xEB, b"JP signed"), (0xEC, b"Ducky\0"), (0xEE, b"Adobe\0d" + bytes(5)))
    )
    assert image.notes == ("its segments APP11, APP4 are not kept",)


@pytest.mark.parametrize("exif", ["without-gps", "with-gps", "none"])
def test_the_policy_none_keeps_colours_and_resolution_only(exif: str) -> None:
    block, packet = camera_block(gps=True), xmp_packet('exif:GPSLatitude="1,2N"')
    data = jpeg(exif_segment(block), xmp_segment(packet), (0xFE, b"comment"), dpi=(300, 300))
    metadata = decode(data, exif=exif).metadata  # type: ignore[arg-type]
    assert metadata.resolution == INCH
    carried = (metadata.exif, metadata.xmp, metadata.comments)
    assert (carried == (None, None, ())) == (exif == "none")
    assert (b"GPSLatitude" in (metadata.xmp or b"")) == (exif == "with-gps")


@pytest.mark.parametrize("target", FORMATS)
def test_pixels_are_the_same_with_metadata_and_without(target: str) -> None:
    rich = decode(
        jpeg(exif_segment(camera_block()), xmp_segment(xmp_packet("")), (0xFE, b"c"), dpi=(300, 300))
    )
    rich = replace(rich, pixels=pixels())
    plain = replace(decode(saved("PNG")), pixels=pixels())
    one, other = (np.asarray(opened(encode(image, target)).convert("RGB")) for image in (rich, plain))
    assert one.shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(one, other)


def test_geotiff_tags_go_the_way_of_gps() -> None:
    tags = Image.Exif()
    tags[33922] = (0.0, 0.0, 0.0, 8.5, 47.25, 0.0)
    tags[315] = "someone"
    data = saved("TIFF", exif=tags.tobytes())
    for policy, kept in (("without-gps", False), ("with-gps", True)):
        again = opened(encode(decode(data, exif=policy)))  # type: ignore[arg-type]
        assert (33922 in again.tag_v2) == kept  # type: ignore[attr-defined]
        assert again.tag_v2[315] == "someone"  # type: ignore[attr-defined]
        assert (struct.pack("<d", 47.25) in encode(decode(data, exif=policy))) == kept  # type: ignore[arg-type]


def test_tiff_tags_that_are_not_kept_are_a_note() -> None:
    tags = Image.Exif()
    tags[37724] = b"layers of a picture"
    assert decode(saved("TIFF", exif=tags.tobytes())).notes == ("its tags 37724 are not kept",)


def test_names_from_a_file_are_safe_in_a_note() -> None:
    hostile = [
        (b"tEXt", b"a\r\nSet-Cookie: x\xff\0value"),
        *((b"tEXt", b"Key %d\0value" % i) for i in range(9)),
    ]
    (note,) = lost_in(decode(png(*hostile)), "BMP")
    assert note == "BMP cannot hold its text (Key 0, Key 1, Key 2, Key 3, Key 4 and 5 more)"
    (note,) = lost_in(decode(png(hostile[0])), "BMP")
    assert note == "BMP cannot hold its text (a??Set-Cookie: x?)"


@pytest.mark.parametrize("big", [False, True])
def test_descriptions_of_a_tiff_of_either_kind_are_kept(big: bool) -> None:
    buffer = io.BytesIO()
    artist = (315, 2, None, UTF8.encode(), True)
    tifffile.imwrite(
        buffer,
        pixels(),
        bigtiff=big,
        photometric="rgb",
        metadata=None,
        extratags=[artist],
        resolution=(240, 240),
    )
    image = decode(buffer.getvalue())
    assert image.notes == ()
    for target in ("JPEG", "TIFF"):
        data = encode(image, target)
        assert UTF8.encode() in data
        assert tuple(map(float, opened(data).info["dpi"])) == (240, 240)


def test_the_time_of_a_png_becomes_xmp() -> None:
    time = (b"tIME", struct.pack(">HBBBBB", 2024, 1, 2, 3, 4, 5))
    image = decode(png(time, (b"tEXt", b"date:create\x002020")))
    assert lost_in(image, "JPEG") == ()
    written = decode(encode(image, "JPEG")).metadata.xmp
    assert written is not None
    assert b"<xmp:ModifyDate>2024-01-02T03:04:05Z</xmp:ModifyDate>" in written
