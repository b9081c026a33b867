"""XMP is kept byte for byte but for orientation, size, the place and claims about pictures that are not kept."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from diffuir_core.imaging import decode, encode, lost_in
from diffuir_core.imaging.metadata.xmp import UnreadableXmpError, edited
from support.metadata_files import (
    extended_guid,
    extended_xmp_segments,
    jpeg,
    png,
    saved,
    segments,
    xmp_packet,
    xmp_segment,
)

TITLE = '<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Zürich 写真</rdf:li></rdf:Alt></dc:title>'
PACKET = xmp_packet('xmp:Rating="5"', TITLE)
SIZE = (56, 40)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_xmp_is_kept_byte_for_byte_in_every_format(format: str) -> None:
    source = decode(jpeg(xmp_segment(PACKET)))
    assert source.metadata.xmp == PACKET
    data = encode(source, format)
    assert PACKET in data
    again = decode(data)
    assert again.metadata.xmp == PACKET
    assert PACKET in encode(again, "JPEG")
    assert source.notes == again.notes == lost_in(source, format) == ()


def test_xmp_behind_a_damaged_name_is_read() -> None:
    image = decode(jpeg((0xE1, b"XMP\0://ns.adobe.com/xap/1.0/\0" + PACKET)))
    assert (image.metadata.xmp, image.notes) == (PACKET, ())
    assert xmp_segment(PACKET) in segments(encode(image))


def test_xmp_is_dropped_with_the_rest_on_request() -> None:
    assert decode(jpeg(xmp_segment(PACKET)), exif="none").metadata.xmp is None


@pytest.mark.parametrize(
    "place",
    [
        'exif:GPSLatitude="47,22N"',
        "exif:GPSLatitude='47,22N'",
        'exif:GPSLatitude = "47,22N"',
        'drone-dji:GpsLatitude="47.22"',
        'Camera:GPSXYAccuracy="47.22"',
        'geo:lat="47.22"',
    ],
)
def test_the_place_is_removed_from_attributes(place: str) -> None:
    packet = xmp_packet(f'xmp:Rating="5" {place} tiff:Make="Canon"')
    assert edited(packet, SIZE, with_gps=False) == xmp_packet('xmp:Rating="5" tiff:Make="Canon"')
    assert edited(packet, SIZE, with_gps=True) == packet


@pytest.mark.parametrize(
    "place",
    [
        "<exif:GPSLatitude>47,22N</exif:GPSLatitude>",
        '<exif:GPSLatitude rdf:datatype="a>b">47,22N</exif:GPSLatitude >',
        "<exif:GPSTimeStamp/>",
        "<geo:long>8</geo:long>",
        "<drone-dji:GpsLongitude>\n<rdf:Seq><rdf:li>8</rdf:li></rdf:Seq></drone-dji:GpsLongitude>",
    ],
)
def test_the_place_is_removed_from_elements(place: str) -> None:
    packet = xmp_packet('xmp:Rating="5"', TITLE + place + TITLE)
    assert edited(packet, SIZE, with_gps=False) == xmp_packet('xmp:Rating="5"', TITLE + TITLE)
    assert edited(packet, SIZE, with_gps=True) == packet


def test_orientation_and_size_follow_the_photo() -> None:
    attributes = (
        'tiff:Orientation="6" tiff:ImageWidth="56" exif:PixelXDimension="56" exif:PixelYDimension="40"'
    )
    image = decode(jpeg(xmp_segment(xmp_packet(attributes, "<tiff:ImageLength>40</tiff:ImageLength>"))))
    assert image.pixels.shape[:2] == (56, 40)
    attributes = (
        'tiff:Orientation="1" tiff:ImageWidth="40" exif:PixelXDimension="40" exif:PixelYDimension="56"'
    )
    assert image.metadata.xmp == xmp_packet(attributes, "<tiff:ImageLength>56</tiff:ImageLength>")


def test_claims_of_pictures_that_are_not_kept_are_removed_under_any_prefix() -> None:
    claims = (
        'hdrgm:Version="1.0" GCamera:MotionPhoto="1" xmlns:g="http://ns.google.com/photos/1.0/container/"'
    )
    directory = "<g:Directory><rdf:Seq><rdf:li/></rdf:Seq></g:Directory>"
    kept = edited(xmp_packet(claims, TITLE + directory), SIZE, with_gps=False)
    assert kept == xmp_packet('xmlns:g="http://ns.google.com/photos/1.0/container/"', TITLE)


def test_the_second_part_of_a_jpegs_xmp_is_kept_in_a_jpeg_and_noted_elsewhere() -> None:
    extended = xmp_packet('xmp:Rating="5"', "<dc:source>" + "long " * 30_000 + "</dc:source>")
    packet = xmp_packet(f'xmpNote:HasExtendedXMP="{extended_guid(extended).decode()}"')
    image = decode(jpeg(xmp_segment(packet), *reversed(extended_xmp_segments(extended))))
    assert (image.metadata.extended_xmp, image.notes) == (extended, ())
    again = decode(encode(image))
    assert (again.metadata.xmp, again.metadata.extended_xmp, again.notes) == (packet, extended, ())
    assert lost_in(image, "PNG") == ("PNG cannot hold its second part of the XMP",)
    assert b"HasExtendedXMP" not in encode(image, "PNG")


def test_the_place_is_removed_from_the_second_part_too() -> None:
    extended = xmp_packet('exif:GPSLatitude="47,22N"', TITLE)
    packet = xmp_packet(f'xmpNote:HasExtendedXMP="{extended_guid(extended).decode()}"')
    data = encode(decode(jpeg(xmp_segment(packet), *extended_xmp_segments(extended))))
    assert b"47,22N" not in data
    assert decode(data).metadata.extended_xmp == edited(extended, SIZE, with_gps=False)


def test_an_incomplete_second_part_is_dropped_with_a_note() -> None:
    extended = xmp_packet("", TITLE * 30)
    packet = xmp_packet(f'xmp:Rating="5" xmpNote:HasExtendedXMP="{extended_guid(extended).decode()}"')
    image = decode(jpeg(xmp_segment(packet), *extended_xmp_segments(extended)[1:]))
    assert image.notes == ("the second part of its XMP is not complete and dropped",)
    assert image.metadata.xmp == xmp_packet('xmp:Rating="5"')


def test_xmp_that_is_too_long_for_a_jpeg_is_a_note() -> None:
    long = xmp_packet("", "<dc:source>" + "long " * 30_000 + "</dc:source>")
    image = decode(png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + long)))
    assert image.metadata.xmp == long
    assert lost_in(image, "JPEG") == ("JPEG cannot hold its XMP, which is too long",)
    assert decode(encode(image, "JPEG")).metadata.xmp is None
    assert decode(encode(image, "TIFF")).metadata.xmp == long


@pytest.mark.parametrize(
    "packet",
    [
        PACKET.decode().encode("utf-16"),
        b"<a:GPSLatitude>without end",
        b"<a:GPSLatitude x='",
        b"no markup",
    ],
)
def test_xmp_that_cannot_be_followed_is_dropped_with_a_note(packet: bytes) -> None:
    image = decode(saved("WEBP", xmp=packet))
    assert image.metadata.xmp is None
    assert len(image.notes) == 1
    assert "XMP is damaged and dropped" in image.notes[0]


@pytest.mark.parametrize(
    "part",
    [
        b"<exif:GPSa ",
        b"<exif:GPSa>",
        b" a:GPS='\"",
        b" " * 50,
        b"a:",
        b" a.",
        b"<a:GPS/>",
        b"<a:GPSx></a:GPSx>",
    ],
)
def test_hostile_xmp_takes_time_in_proportion_to_its_length(part: bytes) -> None:
    packet = b"<" + part * (2**20 // len(part))
    began = time.perf_counter()
    with contextlib.suppress(UnreadableXmpError):  # dropped, which is as good
        edited(packet, SIZE, with_gps=False)
    assert time.perf_counter() - began < 5


def test_random_damage_to_xmp_raises_nothing_else() -> None:
    random = np.random.default_rng(3)
    source = xmp_packet(
        'exif:GPSLatitude="47,22N" tiff:Orientation="6"', "<exif:GPSLongitude>8</exif:GPSLongitude>"
    )
    for _ in range(1000):
        data = bytearray(source)
        for at in random.integers(0, len(data), random.integers(1, 9)):
            data[at] = random.choice((0, 34, 39, 60, 62, int(random.integers(256))))
        with contextlib.suppress(UnreadableXmpError):
            edited(bytes(data), SIZE, with_gps=False)


def test_a_jpeg_has_one_xmp_segment() -> None:
    data = encode(decode(jpeg(xmp_segment(PACKET))))
    assert sum(body.startswith(b"http://ns.adobe.com") for _, body in segments(data)) == 1
