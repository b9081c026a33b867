"""Further pictures and films in a file are told by a note, and ordinary previews are not."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from diffuir_core.imaging import decode, encode
from diffuir_core.imaging.metadata.second_pictures import (
    DEPTH_MAP,
    FILM,
    FRAMES,
    GAIN_MAP,
    MATTES,
    notes_of_info,
)
from support.metadata_files import jpeg, multi_picture, pixels, saved, xmp_packet, xmp_segment
from support.photo_files import heic

PREVIEW = saved("JPEG", Image.fromarray(pixels()).resize((28, 20)))
SAME_SIZE = saved("JPEG", Image.fromarray(255 - pixels()))
GREY = saved("JPEG", Image.fromarray(pixels()[..., 0]).resize((28, 20)))
UNDEFINED, LARGE_THUMBNAIL, STEREO = 0, 0x010002, 0x020002
FILM_DATA = b"\0\0\0\x18ftypmp42" + bytes(200)
CLAIM = xmp_packet('hdrgm:Version="1.0"')
CONTAINER = xmp_packet(
    'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    'xmlns:Item="http://ns.google.com/photos/1.0/container/item/"',
    '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap"/>'
    "</rdf:li></rdf:Seq></Container:Directory>",
)


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (multi_picture((LARGE_THUMBNAIL, PREVIEW)), ()),
        (multi_picture((LARGE_THUMBNAIL, PREVIEW), (0x010001, PREVIEW)), ()),
        (multi_picture((UNDEFINED, PREVIEW)), ()),
        (multi_picture((STEREO, SAME_SIZE)), (FRAMES,)),
        (multi_picture((UNDEFINED, SAME_SIZE)), (FRAMES,)),
        (multi_picture((UNDEFINED, GREY)), (FRAMES,)),
        (multi_picture((UNDEFINED, PREVIEW), packet=CLAIM), (GAIN_MAP,)),
        (multi_picture((UNDEFINED, GREY), packet=CONTAINER), (GAIN_MAP,)),
        (multi_picture((UNDEFINED, jpeg(xmp_segment(CLAIM), data=GREY))), (GAIN_MAP,)),
        (multi_picture((LARGE_THUMBNAIL, PREVIEW), (UNDEFINED, GREY), packet=CLAIM), (GAIN_MAP,)),
        (jpeg(xmp_segment(CLAIM)) + GREY, (GAIN_MAP,)),
        (jpeg((0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4))) + GREY, (GAIN_MAP,)),
        (jpeg(xmp_segment(CLAIM)), ()),
        (jpeg(xmp_segment(xmp_packet('GCamera:MotionPhoto="1"'))) + FILM_DATA, (FILM,)),
        (jpeg(xmp_segment(xmp_packet('GCamera:MicroVideo="1"'))) + FILM_DATA, (FILM,)),
        (jpeg() + FILM_DATA, (FILM,)),
        (jpeg() + b"\0\0\x30\x0aMotionPhoto_Data" + FILM_DATA + b"SEFT", (FILM,)),
        (jpeg() + b"\0\0\x01\x0aImage_UTC_Data1234567890123SEFT", ()),
        (jpeg(xmp_segment(xmp_packet('GCamera:MotionPhoto="1"'))), ()),
        (jpeg() + bytes(4096), ()),
        (jpeg() + b"x" * 2000, ("2,000 bytes of unknown kind behind its picture are not kept",)),
        (jpeg() + PREVIEW, ()),
        (jpeg() + SAME_SIZE, (FRAMES,)),
    ],
)
def test_each_kind_of_further_picture_has_its_note(data: bytes, notes: tuple[str, ...]) -> None:
    image = decode(data)
    assert image.notes == notes
    assert image.format == "JPEG"
    assert decode(encode(image)).notes == ()


def test_a_depth_map_is_a_note() -> None:
    packet = xmp_packet(
        'xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/" GDepth:Format="RangeInverse"'
    )
    image = decode(jpeg(xmp_segment(packet)))
    assert image.notes == (DEPTH_MAP,)
    assert b"GDepth:Format" not in encode(image)


def test_the_film_and_the_gain_map_are_not_claimed_in_the_result() -> None:
    image = decode(multi_picture((UNDEFINED, GREY), packet=CONTAINER))
    written = encode(image)
    assert b"GainMap" not in written
    assert b"MPF\0" not in written


def tiff(*subfile_types: int | None) -> bytes:
    """A TIFF of pages with these kinds (TIFF 6.0, tag 254)."""
    pages = [Image.fromarray(np.full((9, 9), number, np.uint8)) for number in range(len(subfile_types))]
    data = bytearray(saved("TIFF", pages[0], save_all=True, append_images=pages[1:]))
    at = struct.unpack_from("<I", data, 4)[0]
    for kind in subfile_types:
        count = struct.unpack_from("<H", data, at)[0]
        if kind is not None:
            # In the place of the first tag, the width, which is one of the last.
            tags = [bytes(data[at + 2 + 12 * i : at + 14 + 12 * i]) for i in range(count)]
            spare = next(i for i, tag in enumerate(tags) if tag[:2] == struct.pack("<H", 284))
            tags.pop(spare)
            tags.insert(0, struct.pack("<HHII", 254, 4, 1, kind))
            data[at + 2 : at + 2 + 12 * count] = b"".join(tags)
        at = struct.unpack_from("<I", data, at + 2 + 12 * count)[0]
    return bytes(data)


@pytest.mark.parametrize(
    ("kinds", "notes"),
    [
        ((None,), ()),
        ((None, None), (FRAMES,)),
        ((0, 1), ()),
        ((0, 1, 1), ()),
        ((0, 1, 0), (FRAMES,)),
        ((0, 4), (FRAMES,)),
    ],
)
def test_pages_of_a_tiff_are_a_note_unless_they_are_previews(
    kinds: tuple[int | None, ...], notes: tuple[str, ...]
) -> None:
    assert decode(tiff(*kinds)).notes == notes


@pytest.mark.parametrize(
    ("info", "notes"),
    [
        ({}, []),
        ({"aux": {"urn:mpeg:hevc:2015:auxid:1": [4]}}, []),
        ({"aux": {"urn:com:apple:photo:2020:aux:hdrgainmap": [4]}}, [GAIN_MAP]),
        ({"aux": {"urn:com:apple:photo:2018:aux:portraiteffectsmatte": [4]}}, [MATTES]),
        ({"depth_images": [object()]}, [DEPTH_MAP]),
        ({"xmp": xmp_packet('GCamera:MotionPhoto="1"')}, [FILM]),
    ],
)
def test_a_heic_tells_its_further_pictures(info: dict[str, object], notes: list[str]) -> None:
    assert notes_of_info(heic(pixels()), info) == notes


def test_a_gain_map_and_a_film_in_a_heic_are_found_in_its_boxes() -> None:
    data = heic(pixels())
    assert notes_of_info(data.replace(b"hvc1", b"tmap", 1), {}) == [GAIN_MAP]
    assert notes_of_info(data + b"\0\0\0\x10mpvd" + bytes(8), {}) == [FILM]
