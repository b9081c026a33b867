"""Chunks of PNG files (PNG specification, third edition), and the writer of 16 bits per channel."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from ..image import Samples

Chunk = tuple[bytes, bytes]
"""A chunk's type and data."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT = frozenset((b"tEXt", b"zTXt", b"iTXt"))
LIGHT = frozenset((b"mDCV", b"cLLI", b"mDCv", b"cLLi"))
"""Chunks that tell the light of the display that the photo was made for; drafts had other names."""
COLOUR = LIGHT | {b"cICP", b"gAMA", b"cHRM", b"sRGB"}
"""Chunks that tell how the colours are meant."""
PROFILED = COLOUR - LIGHT
"""Chunks that tell the colour space, which an ICC profile tells too."""
LAYOUT = frozenset((
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"sBIT", b"hIST", b"bKGD", b"acTL", b"fcTL", b"fdAT", b"iDOT",
    b"vpAg",
))  # fmt: skip
"""Chunks that say how the samples of this file are stored, which a new file has its own of."""
XMP_KEYWORD = b"XML:com.adobe.xmp"
TIME = "time of change"
"""Keyword by which `texts` gives the time of a tIME chunk."""
_TIMES_OF_FILE = ("date:create", "date:modify", "date:timestamp")
_RAW_PROFILE = b"Raw profile type "
_MOST_TEXT = 16 * 2**20
"""Bytes of decompressed text beyond which it is not read."""
_PLACE = re.compile(rb"(?i)gps|latitude|longitude|geo:|location")


def read(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a PNG; one with a wrong checksum has the type `damaged`."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind in (b"IDAT", b"fdAT"):
            yield kind, b""
        else:
            body = data[at + 8 : end]
            right = data[end : end + 4] == struct.pack(">I", zlib.crc32(kind + body))
            yield (kind if right else b"damaged"), body
        at = end + 4


def chunk(kind: bytes, body: bytes) -> bytes:
    """The bytes of a chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def insert(png: bytes, chunks: Iterable[Chunk]) -> bytes:
    """`png` with chunks after its header, which is before the palette and the samples (5.6)."""
    start = len(SIGNATURE) + 25
    return b"".join((png[:start], *(chunk(kind, body) for kind, body in chunks), png[start:]))


def keyword(body: bytes) -> bytes:
    """The keyword of a text chunk (11.3.3.2)."""
    return body[:80].split(b"\0", 1)[0]


def text(kind: bytes, body: bytes) -> bytes | None:
    """The text of a text chunk, Latin-1 or, of iTXt, UTF-8 (11.3.3); None if it is damaged or too long."""
    rest = body[len(keyword(body)) + 1 :]
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return inflated(rest[1:])
    is_compressed, parts = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return None
    return inflated(parts[2]) if is_compressed else parts[2]


def inflated(data: bytes) -> bytes | None:
    """Decompressed zlib data; None if it is damaged or too long."""
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(data, _MOST_TEXT)
    except zlib.error:
        return None
    return result if stream.eof else None


def raw_profile_name(body: bytes) -> str | None:
    """The name, such as `exif`, of metadata in ImageMagick's form in a text chunk; None for another text."""
    word = keyword(body)
    return (
        word.removeprefix(_RAW_PROFILE).decode("latin-1").lower() if word.startswith(_RAW_PROFILE) else None
    )


def raw_profile(kind: bytes, body: bytes) -> bytes:
    """Metadata in ImageMagick's form, which is hexadecimal text; empty if it is damaged."""
    lines = (text(kind, body) or b"").strip().split(b"\n", 2)
    try:
        return bytes.fromhex(lines[2].decode("ascii")) if len(lines) == 3 else b""
    except ValueError:
        return b""


def raw_profile_chunk(name: str, data: bytes) -> Chunk:
    """A text chunk with metadata in ImageMagick's form."""
    digits = re.sub("(.{72})", r"\1\n", data.hex())
    body = f"\n{name}\n{len(data):8d}\n{digits}\n".encode()
    return b"zTXt", _RAW_PROFILE + name.encode() + b"\0\0" + zlib.compress(body)


def text_chunk(word: str, value: str) -> Chunk:
    """A text chunk: tEXt where its Latin-1 is plain ASCII, else iTXt."""
    if value.isascii():
        return b"tEXt", f"{word}\0{value}".encode()
    return b"iTXt", f"{word}\0\0\0\0\0{value}".encode()


def xmp_chunk(packet: bytes) -> Chunk:
    """The chunk of an XMP packet (XMP part 3, 1.1.5)."""
    return b"iTXt", XMP_KEYWORD + bytes(5) + packet


def tells_place(body: bytes) -> bool:
    """Whether the keyword of a text chunk says that it tells where the photo was taken."""
    return _PLACE.search(keyword(body)) is not None


def texts(chunks: Iterable[Chunk]) -> list[tuple[str, str]]:
    """The (keyword, text) of text chunks, and the time; empty texts once they are too long together.

    ImageMagick's times of the file that it made are left out.
    """
    found = []
    room = _MOST_TEXT
    for kind, body in chunks:
        if kind in TEXT:
            told = (text(kind, body) or b"") if room > 0 else b""
            room -= len(told)
            encoding = "utf-8" if kind == b"iTXt" else "latin-1"
            found.append((keyword(body).decode("latin-1"), told.decode(encoding, "replace")))
        elif kind == b"tIME" and len(body) == 7:
            date = struct.unpack(">HBBBBB", body)
            found.append((TIME, "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z".format(*date)))
    return [(word, told) for word, told in found if word not in _TIMES_OF_FILE]


def sixteen_bits(samples: Samples) -> bytes:
    """Encode uint16 (H, W, 1 .. 4) as a PNG without metadata."""
    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    stream = zlib.compressobj()
    parts = []
    above = np.zeros(width * channels * 2, np.uint8)
    rows_at_once = max(1, 2**20 // len(above))
    for top in range(0, height, rows_at_once):
        rows = samples[top : top + rows_at_once].astype(">u2").view(np.uint8).reshape(-1, len(above))
        # Filter 2, "up": each byte minus the one above.
        filtered = np.full((len(rows), len(above) + 1), 2, np.uint8)
        filtered[:, 1:] = np.diff(rows, axis=0, prepend=above[None])
        parts.append(stream.compress(filtered.tobytes()))
        above = rows[-1]
    parts.append(stream.flush())
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(parts)) + chunk(b"IEND", b"")
