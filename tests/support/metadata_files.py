"""Photos that carry metadata, put together byte by byte, so that tests know where each of them lies."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

Tag = tuple[int, int, int, bytes]
"""A tag: number, type, count, and the bytes of its value in the byte order of its block."""

WIDTH, HEIGHT = 56, 40
UTF8 = "Jörg Müller 写真"
XMP_START = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_XMP_START = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP_START = b"Photoshop 3.0\0"


def pixels() -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """A smooth picture, uint8 (HEIGHT, WIDTH, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 4, y * 6, 255 - x * 2 - y * 2], -1).astype(np.uint8)


def saved(format: str, picture: Image.Image | None = None, **options: object) -> bytes:
    """A file of a picture, by default the smooth one."""
    buffer = io.BytesIO()
    (Image.fromarray(pixels()) if picture is None else picture).save(buffer, format, **options)
    return buffer.getvalue()


def text(tag: int, value: str) -> Tag:
    """A tag of type ASCII, holding UTF-8 as many programs write it."""
    data = value.encode() + b"\0"
    return tag, 2, len(data), data


def short(tag: int, value: int, order: str = "<") -> Tag:
    """A tag of 16 bits."""
    return tag, 3, 1, struct.pack(order + "H", value)


def rationals(tag: int, *pairs: tuple[int, int], order: str = "<") -> Tag:
    """A tag of fractions."""
    return tag, 5, len(pairs), b"".join(struct.pack(order + "II", *pair) for pair in pairs)


class Block:
    """An EXIF block that is written from its start; later parts are at the positions that the methods return."""

    def __init__(self, order: str = "<") -> None:
        self.order = order
        self.data = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 0))

    def put(self, data: bytes) -> int:
        """Append bytes at an even position."""
        self.data += bytes(len(self.data) % 2)
        at = len(self.data)
        self.data += data
        return at

    def directory(self, tags: Sequence[Tag], following: int = 0) -> int:
        """Append a directory behind its long values."""
        fields = b""
        for tag, kind, count, value in sorted(tags):
            field = value if len(value) <= 4 else struct.pack(self.order + "I", self.put(value))
            fields += struct.pack(self.order + "HHI4s", tag, kind, count, field)
        head = struct.pack(self.order + "H", len(tags))
        return self.put(head + fields + struct.pack(self.order + "I", following))

    def pointer(self, tag: int, at: int) -> Tag:
        """A tag that points to a directory."""
        return tag, 4, 1, struct.pack(self.order + "I", at)

    def begin_with(self, at: int) -> bytes:
        """The block, with the directory at a position as its first."""
        self.data[4:8] = struct.pack(self.order + "I", at)
        return bytes(self.data)


THUMBNAIL = b"\xff\xd8the thumbnail of the photo as it was\xff\xd9"
PLACE = (b"N\0\0\0", (47, 1), (22, 1), (11, 1))


def maker_note(at: int, order: str = "<") -> bytes:
    """A camera's own part, with a position in it that counts from the start of the block."""
    return b"MAKER" + struct.pack(order + "I", at + 9) + b"what the position points to"


def camera_block(
    order: str = "<",
    *,
    orientation: int | None = 1,
    gps: bool = False,
    thumbnail: bool = False,
    adobe: bool = False,
) -> bytes:
    """The EXIF of a camera: texts in UTF-8, a MakerNote, interoperability; on request GPS and a thumbnail."""
    block = Block(order)
    index = block.directory([(1, 2, 4, b"R03\0" if adobe else b"R98\0"), (2, 7, 4, b"0100")])
    note_at = len(block.data)
    block.put(maker_note(note_at, order))
    details = [
        (36864, 7, 4, b"0232"),
        text(36867, "2020:01:02 03:04:05"),
        (37510, 7, 8 + len(UTF8.encode()), b"UNICODE\0" + UTF8.encode()),
        short(40961, 65535 if adobe else 1, order),
        short(40962, WIDTH, order),
        short(40963, HEIGHT, order),
        block.pointer(40965, index),
    ]
    # The MakerNote's value lies where its own position counts on.
    at = block.directory([*details, (37500, 7, len(maker_note(0)), bytes(len(maker_note(0))))])
    entry = next(
        place
        for place in range(at + 2, at + 2 + 12 * 8, 12)
        if struct.unpack_from(order + "H", block.data, place)[0] == 37500
    )
    struct.pack_into(order + "I", block.data, entry + 8, note_at)
    first = [
        text(271, "Canon"),
        text(315, UTF8),
        text(33432, "© 2024 Jane"),
        short(18246, 4, order),
        rationals(282, (300, 1), order=order),
        rationals(283, (300, 1), order=order),
        short(296, 2, order),
        block.pointer(34665, at),
    ]
    if orientation is not None:
        first.append(short(274, orientation, order))
    if gps:
        place = block.directory(
            [(1, 2, 2, PLACE[0][:2]), rationals(2, *PLACE[1:], order=order), text(29, "2020:01:02")]  # type: ignore[arg-type]
        )
        first.append(block.pointer(34853, place))
    following = 0
    if thumbnail:
        picture = block.put(THUMBNAIL)
        length = struct.pack(order + "I", len(THUMBNAIL))
        following = block.directory([short(259, 6, order), block.pointer(513, picture), (514, 4, 1, length)])
    return block.begin_with(block.directory(first, following))


def xmp_packet(properties: str, more: str = "") -> bytes:
    """An XMP packet with attributes and elements."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" '
        'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
        f'{properties}>{more}</rdf:Description></rdf:RDF></x:xmpmeta>{" " * 100}<?xpacket end="w"?>'
    ).encode()


def photoshop_block(number: int, data: bytes) -> bytes:
    """An image resource block of Photoshop."""
    return struct.pack(">4sHHI", b"8BIM", number, 0, len(data)) + data + bytes(len(data) % 2)


def iptc(city: str = "Zürich") -> bytes:
    """IPTC records in UTF-8: a city and a keyword."""
    records = (1, 90, b"\x1b%G"), (2, 90, city.encode()), (2, 25, b"lake")
    return b"".join(struct.pack(">BBBH", 28, one, two, len(data)) + data for one, two, data in records)


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(*segments: tuple[int, bytes], data: bytes | None = None, **options: object) -> bytes:
    """A JPEG with segments before its own; data: the JPEG, by default the smooth picture."""
    data = saved("JPEG", quality=95, **options) if data is None else data
    return data[:2] + b"".join(segment(*each) for each in segments) + data[2:]


def exif_segment(block: bytes) -> tuple[int, bytes]:
    """The segment of an EXIF block."""
    return 0xE1, b"Exif\0\0" + block


def xmp_segment(packet: bytes) -> tuple[int, bytes]:
    """The segment of an XMP packet."""
    return 0xE1, XMP_START + packet


def extended_xmp_segments(extended: bytes, part: int = 1000) -> list[tuple[int, bytes]]:
    """The segments of the second part of an XMP."""
    guid = extended_guid(extended)
    return [
        (0xE1, EXTENDED_XMP_START + guid + struct.pack(">II", len(extended), at) + extended[at : at + part])
        for at in range(0, len(extended), part)
    ]


def extended_guid(extended: bytes) -> bytes:
    """The name of the second part of an XMP."""
    return hashlib.md5(extended, usedforsecurity=False).hexdigest().upper().encode()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: tuple[bytes, bytes], data: bytes | None = None) -> bytes:
    """A PNG with chunks behind its header; data: the PNG, by default the smooth picture."""
    data = saved("PNG") if data is None else data
    return data[:33] + b"".join(chunk(*each) for each in chunks) + data[33:]


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG but for its pixels."""
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return [each for each in found if each[0] not in (b"IHDR", b"IDAT", b"IEND", b"PLTE")]


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """The segments of a JPEG before its pixels, but for its tables."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return [each for each in found if each[0] >= 0xE0]


def multi_picture(*pictures: tuple[int, bytes], packet: bytes | None = None) -> bytes:
    """A JPEG followed by pictures, which an index lists with their types (CIPA DC-007)."""
    count = 1 + len(pictures)
    length = len(b"MPF\0") + 8 + 2 + 12 * 3 + 4 + 16 * count
    extra = [] if packet is None else [xmp_segment(packet)]
    own = jpeg(*extra, (0xE2, bytes(length)))
    start = own.index(bytes(length)) + 4
    entries, at = struct.pack("<IIIHH", 0x030000, len(own), 0, 0, 0), len(own)
    for kind, data in pictures:
        entries += struct.pack("<IIIHH", kind, len(data), at - start, 0, 0)
        at += len(data)
    head = b"MPF\0II*\0\x08\0\0\0" + struct.pack("<H", 3)
    head += struct.pack("<HHI4s", 0xB000, 7, 4, b"0100") + struct.pack("<HHII", 0xB001, 4, 1, count)
    head += struct.pack("<HHII", 0xB002, 7, len(entries), 8 + 2 + 12 * 3 + 4) + bytes(4)
    own = own.replace(bytes(length), head + entries, 1)
    return own + b"".join(data for _, data in pictures)
