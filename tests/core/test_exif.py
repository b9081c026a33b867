"""EXIF is kept byte for byte but for what must change, and hostile EXIF is dropped."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest

from diffuir_core.imaging import decode, encode, lost_in
from diffuir_core.imaging.metadata.exif import ORIENTATION, DamagedExifError, Tiff, first_integer, tags
from diffuir_core.imaging.metadata.exif_editing import edited
from support.metadata_files import (
    HEIGHT,
    PLACE,
    THUMBNAIL,
    UTF8,
    WIDTH,
    Block,
    camera_block,
    exif_segment,
    jpeg,
    maker_note,
    png,
    saved,
    segments,
    short,
)

SIZE = (WIDTH, HEIGHT)
ORDERS = pytest.mark.parametrize("order", ["<", ">"])


def latitude(order: str) -> bytes:
    """The bytes of the latitude in a block with GPS."""
    return b"".join(struct.pack(order + "II", *pair) for pair in PLACE[1:])  # type: ignore[misc]


def written_block(data: bytes) -> bytes:
    """The EXIF block of a JPEG."""
    return next(
        body[6:] for marker, body in segments(data) if marker == 0xE1 and body.startswith(b"Exif\0\0")
    )


@ORDERS
def test_exif_in_which_nothing_must_change_stays_the_same_bytes(order: str) -> None:
    block = camera_block(order)
    image = decode(jpeg(exif_segment(block)))
    assert image.notes == ()
    assert image.metadata.exif == block
    assert written_block(encode(image)) == block
    assert UTF8.encode() in block


@ORDERS
@pytest.mark.parametrize("orientation", range(2, 9))
def test_only_orientation_and_size_change_in_the_exif_of_a_turned_photo(order: str, orientation: int) -> None:
    block = camera_block(order, orientation=orientation)
    image = decode(jpeg(exif_segment(block)))
    turned_sides = orientation > 4
    assert image.pixels.shape[:2] == ((WIDTH, HEIGHT) if turned_sides else (HEIGHT, WIDTH))
    kept = written_block(encode(image))
    assert len(kept) == len(block)
    assert first_integer(kept, ORIENTATION) == 1
    assert first_integer(kept, 40962, in_exif=True) == image.pixels.shape[1]
    assert first_integer(kept, 40963, in_exif=True) == image.pixels.shape[0]
    changed = sum(one != other for one, other in zip(kept, block, strict=True))
    assert changed == (3 if turned_sides else 1)


@ORDERS
def test_gps_is_removed_and_its_bytes_are_zeroed(order: str) -> None:
    block = camera_block(order, gps=True)
    image = decode(jpeg(exif_segment(block)))
    kept = written_block(encode(image))
    assert 34853 in tags(block)
    assert 34853 not in tags(kept)
    assert latitude(order) in block
    assert latitude(order) not in kept
    assert b"2020:01:02\0" in block[block.index(latitude(order)) :]
    assert b"2020:01:02\0" not in kept
    assert tags(kept) == tags(block) - {34853}
    assert UTF8.encode() in kept


@ORDERS
def test_gps_is_kept_byte_for_byte_on_request(order: str) -> None:
    block = camera_block(order, gps=True)
    image = decode(jpeg(exif_segment(block)), exif="with-gps")
    assert written_block(encode(image)) == block


@ORDERS
def test_the_thumbnail_is_removed_because_it_shows_the_photo_as_it_was(order: str) -> None:
    block = camera_block(order, thumbnail=True)
    kept = written_block(encode(decode(jpeg(exif_segment(block)))))
    tiff = Tiff(kept)
    _, following = tiff.directory(tiff.first)
    assert following == 0
    assert THUMBNAIL in block
    assert b"thumbnail" not in kept


def test_a_thumbnail_at_the_end_is_cut_off() -> None:
    block = Block()
    first = block.directory([short(274, 1), short(18246, 4)])
    picture = len(block.data) + 2 + 2 * 12 + 4
    length = struct.pack("<I", len(THUMBNAIL))
    following = block.directory([block.pointer(513, picture), (514, 4, 1, length)])
    block.put(THUMBNAIL)
    struct.pack_into("<I", block.data, first + 2 + 24, following)
    kept = edited(block.begin_with(first), SIZE, with_gps=False)
    assert kept is not None
    assert kept == bytes(block.data[: first + 2 + 24]) + bytes(4)


@ORDERS
def test_offsets_in_the_cameras_own_part_stay_valid(order: str) -> None:
    block = camera_block(order, orientation=6, gps=True, thumbnail=True)
    at = block.index(b"MAKER")
    assert block[at : at + len(maker_note(at))] == maker_note(at, order)
    image = decode(jpeg(exif_segment(block)))
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        assert maker_note(at, order) in encode(image, format)
    # A TIFF's block is built anew, around the MakerNote.
    again = decode(encode(image, "TIFF"))
    assert again.metadata.exif is not None
    assert again.metadata.exif.index(maker_note(at, order)) == at
    assert encode(again, "TIFF").index(maker_note(at, order)) == at


def test_an_exif_of_gps_alone_is_no_exif_without_it() -> None:
    block = Block()
    place = block.directory([(1, 2, 2, b"N\0")])
    data = jpeg(exif_segment(block.begin_with(block.directory([block.pointer(34853, place)]))))
    assert decode(data).metadata.exif is None
    assert decode(data, exif="with-gps").metadata.exif is not None


def test_exif_that_a_jpeg_splits_into_segments_is_joined() -> None:
    block = camera_block()
    data = jpeg(exif_segment(block[:100]), exif_segment(block[100:]))
    assert decode(data).metadata.exif == block


def test_too_long_exif_loses_the_cameras_own_part_in_a_jpeg_with_a_note() -> None:
    block = Block()
    details = block.directory([(37500, 7, 70_000, b"m" * 70_000), short(40961, 1)])
    author = (315, 2, len(UTF8.encode()), UTF8.encode())
    long = block.begin_with(block.directory([author, block.pointer(34665, details)]))
    image = decode(png((b"eXIf", long)))
    assert image.metadata.exif == long
    kept = written_block(encode(image, "JPEG"))
    assert UTF8.encode() in kept
    assert first_integer(kept, 40961, in_exif=True) == 1
    (note,) = lost_in(image, "JPEG")
    assert "MakerNote" in note
    assert lost_in(image, "PNG") == ()

    block = Block()
    author = (315, 2, 70_000, b"a" * 70_000)
    image = decode(png((b"eXIf", block.begin_with(block.directory([author])))))
    (note,) = lost_in(image, "JPEG")
    assert "EXIF, which is too long" in note
    assert decode(encode(image, "JPEG")).metadata.exif is None


def hostile_blocks() -> dict[str, bytes]:
    """EXIF that can't be followed."""
    looped = Block()
    at = looped.put(b"")
    own = struct.pack("<HHHII", 1, 34853, 4, 1, at) + bytes(4)
    looped.put(own)
    far = Block()
    far_at = far.directory([far.pointer(34665, 2**31)])
    huge = Block()
    huge_at = huge.put(b"\xff\xff" + bytes(100))
    header_as_gps = Block()
    place = header_as_gps.directory([(2, 5, 3, b"")])
    struct.pack_into("<I", header_as_gps.data, place + 10, 0)
    header_at = header_as_gps.directory([short(274, 1), header_as_gps.pointer(34853, place)])
    return {
        "no header": b"\xff" * 40,
        "cut off": camera_block()[:60],
        "its own GPS": looped.begin_with(at),
        "a directory far away": far.begin_with(far_at),
        "a directory of 65,535 tags": huge.begin_with(huge_at),
        "GPS in the header": header_as_gps.begin_with(header_at),
    }


@pytest.mark.parametrize("name", hostile_blocks())
def test_hostile_exif_is_dropped_with_a_note(name: str) -> None:
    image = decode(jpeg(exif_segment(hostile_blocks()[name])))
    assert image.pixels.shape == (HEIGHT, WIDTH, 3)
    assert image.metadata.exif is None
    assert len(image.notes) == 1
    assert "EXIF is damaged and dropped" in image.notes[0]


def test_random_damage_to_exif_raises_nothing_else() -> None:
    random = np.random.default_rng(3)
    sources = [camera_block(order, orientation=6, gps=True, thumbnail=True) for order in "<>"]
    for _ in range(3000):
        data = bytearray(sources[random.integers(2)])
        for at in random.integers(0, len(data), random.integers(1, 9)):
            data[at] = random.choice((0, 1, 8, 127, 255, int(random.integers(256))))
        try:
            kept = edited(bytes(data), SIZE, with_gps=False)
        except DamagedExifError:
            continue
        # What was kept once can be kept again.
        if kept is not None:
            edited(kept, SIZE, with_gps=False)


def test_many_directories_of_many_tags_take_no_time() -> None:
    block = Block()
    place = block.directory([(5, 5, 3, bytes(24))] * 1000)
    data = block.begin_with(block.directory([block.pointer(34853, place)] * 1000))
    began = time.perf_counter()
    edited(data, SIZE, with_gps=False)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_photo_without_metadata_comes_back_without_any(format: str) -> None:
    image = decode(encode(decode(saved("PNG")), format))
    assert image.metadata.exif is None
    assert image.metadata.xmp is None
    assert image.notes == ()


@pytest.mark.parametrize("format", ["HEIC", "AVIF", "JXL", "WEBP"])
@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_newer_formats_keep_the_same_bytes(format: str, orientation: int | None) -> None:
    image = decode(jpeg(exif_segment(camera_block(orientation=orientation))))
    again = decode(encode(image, format))
    assert again.notes == lost_in(image, format) == ()
    assert again.pixels.shape == image.pixels.shape
    assert image.metadata.exif is not None
    assert again.metadata.exif is not None
    if format == "AVIF":
        # Its encoder takes no orientation: the tag is removed, and the others move up.
        assert tags(again.metadata.exif) == tags(image.metadata.exif) - {ORIENTATION}
        assert len(again.metadata.exif) == len(image.metadata.exif)
    else:
        assert again.metadata.exif == image.metadata.exif


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_texts_in_the_exif_of_a_turned_avif_survive(orientation: int) -> None:
    data = saved("AVIF", exif=b"Exif\0\0" + camera_block(orientation=orientation), quality=90)
    # Pillow writes a question mark for each byte of a text that is not ASCII.
    garbled = "".join(letter if letter.isascii() else "?" * len(letter.encode()) for letter in UTF8).encode()
    image = decode(data.replace(garbled, UTF8.encode()))
    assert image.pixels.shape[:2] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    assert image.metadata.exif is not None
    assert garbled not in image.metadata.exif
    assert UTF8.encode() + b"\0" in image.metadata.exif
    assert first_integer(image.metadata.exif, 40962, in_exif=True) == image.pixels.shape[1]


def test_an_upright_avif_of_orientation_alone_has_no_exif() -> None:
    block = Block()
    only = block.begin_with(block.directory([short(274, 6)]))
    image = decode(jpeg(exif_segment(only)))
    assert image.pixels.shape[:2] == (WIDTH, HEIGHT)
    assert first_integer(written_block(encode(image)), ORIENTATION) == 1
    again = decode(encode(image, "AVIF"))
    assert (again.metadata.exif, again.pixels.shape) == (None, image.pixels.shape)
