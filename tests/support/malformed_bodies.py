"""Requests with malformed bodies: no photo, a damaged one, one that is too large, a broken form."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from PIL import Image

SEED = 1
KEY = "a key that nobody guesses"
MIB = 2**20
MAX_BYTES, MAX_OPEN, UPLOAD_TIMEOUT = 2**18, 64, 5.0
DOCUMENTED = frozenset((200, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 431, 503, 504))
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
PHOTO_PATH = "/v1/restore"


@dataclass(frozen=True)
class Attempt:
    """A request as its parts. expected: allowed statuses, None for no response. pause: seconds after each part."""

    what: str
    parts: Sequence[bytes]
    expected: frozenset[int | None] = DOCUMENTED
    pause: float = 0.0
    end: str = "read"
    """How the client ends: "read" the response; "half" closes its sending side first if none comes; "close" or
    "reset" the connection without reading."""
    method: str = "POST"


def photo(format: str = "PNG", side: int = 48, seed: int = 0) -> bytes:
    y, x = np.mgrid[:side, :side]
    pixels = np.stack([x * 3 + seed, y * 4, 250 - x - y], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


@functools.cache
def photos() -> dict[str, bytes]:
    return {format: photo(format) for format in FORMATS}


def message(
    body: bytes = b"",
    headers: Sequence[tuple[str, str | bytes]] = (),
    path: str = PHOTO_PATH,
    method: str = "POST",
    length: object = None,
    key: str | bytes | None = f"Bearer {KEY}",
) -> list[bytes]:
    """A request as its head and its body."""
    lines: list[tuple[str, str | bytes]] = [("Host", "localhost"), *headers]
    if length is None and all(name.lower() != "transfer-encoding" for name, _ in headers):
        length = len(body)
    if length is not None:
        lines.append(("Content-Length", str(length)))
    if key is not None:
        lines.append(("Authorization", key))
    head = f"{method} {path} HTTP/1.1\r\n".encode("latin-1", "replace")
    for name, value in lines:
        head += name.encode("latin-1") + b": " + (value if isinstance(value, bytes) else value.encode())
        head += b"\r\n"
    return [head + b"\r\n", body]


def chunked(*parts: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part) + last


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (head, *chunks, (b"IEND", b""))
    )


@functools.cache
def bombs() -> tuple[bytes, ...]:
    """Small files that declare or unpack to much: sides, pixels, profiles and texts."""
    zeros = zlib.compress(bytes(24 * MIB), 9)
    row = (b"IDAT", zlib.compress((b"\0" + bytes(3 * 48)) * 48))
    bmp, tiff, webp, jpeg = (bytearray(photos()[format]) for format in ("BMP", "TIFF", "WEBP", "JPEG"))
    bmp[18:26] = struct.pack("<ii", 2**30, 2**30)
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    webp[26:30] = b"\xff\x3f\xff\x3f"
    tags = Image.Exif()
    tags.update({256: 2**31, 257: 2**31, 258: (8, 8, 8), 259: 8, 262: 2, 273: 8, 277: 3, 278: 2**31, 279: 10})
    tiles = Image.Exif()
    tiles.update({256: 48, 257: 48, 258: (8, 8, 8), 259: 8, 262: 2, 277: 3, 322: 2**16, 323: 2**16})
    tiles.update({324: 8, 325: 10})
    return (
        png(2**31 - 1, 2**31 - 1, row),
        png(2000, 2000, (b"IDAT", zeros)),
        png(2048, 2048, row),
        png(4, 30_000, row),
        png(48, 48, (b"IDAT", zeros)),
        png(48, 48, (b"iCCP", b"p\0\0" + zeros), row),
        png(48, 48, *[(b"zTXt", b"k\0\0" + zeros)] * 5, row),
        png(48, 48, (b"iTXt", b"k\0\1\0\0\0" + zeros), row),
        bytes(bmp),
        bytes(jpeg),
        bytes(webp),
        bytes(tiff[:8]) + tags.tobytes()[14:],
        tags.tobytes()[6:],
        tiles.tobytes()[6:],
    )


def damaged_photo(rng: random.Random) -> Attempt:
    format = rng.choice(FORMATS)
    data = bytearray(photos()[format])
    how = rng.choice(("truncated", "flipped", "cut out", "joined", "followed"))
    at = rng.randrange(len(data))
    if how == "truncated":
        del data[at:]
    elif how == "flipped":
        for _ in range(rng.randint(1, 16)):
            data[rng.randrange(rng.choice((64, len(data))))] ^= 1 << rng.randrange(8)
    elif how == "cut out":
        del data[at : at + rng.randint(1, 64)]
    elif how == "joined":
        data[at:] = photos()[rng.choice(FORMATS)][at:]
    else:
        data += rng.randbytes(rng.randint(1, 5000))
    kind = rng.choice(("image/jpeg", "image/png", "text/html", "application/octet-stream", "\x09", "a/b;c"))
    path = PHOTO_PATH + rng.choice(("", "", "?truncated=true", "?format=jpeg", "?exif=with-gps&format=tiff"))
    expected = frozenset((200, 413, 415, 422))
    return Attempt(f"{how} {format}", message(bytes(data), [("Content-Type", kind)], path), expected)


def bomb(rng: random.Random) -> Attempt:
    data = rng.choice(bombs())
    return Attempt("bomb", message(data), frozenset((200, 413, 415, 422)))


def no_photo(rng: random.Random) -> Attempt:
    bodies = (
        b"",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"GIF89a" + rng.randbytes(99),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x80\x04\x95" + rng.randbytes(50),
        b"PK\x03\x04" + rng.randbytes(50),
        rng.randbytes(rng.randint(1, 4000)),
        rng.choice((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"II*\0", b"MM\0*", b"BM")),
    )
    return Attempt("no photo", message(rng.choice(bodies)), frozenset((413, 415, 422)))


def too_long(rng: random.Random) -> Attempt:
    """A body over the limit, declared at once or noticed while it arrives."""
    data = photos()["PNG"] + bytes(MAX_BYTES + rng.randint(0, MIB))
    way = rng.randrange(4)
    if way == 0:
        length = rng.choice((MAX_BYTES + 1, 2**40, 2**63, 10**19))
        head, _ = message(length=length)
        return Attempt("long by its length", [head], frozenset((413, 400)))
    if way == 1:
        return Attempt("long", message(data), frozenset((413,)))
    if way == 2:
        pieces = [data[i : i + 30_000] for i in range(0, len(data), 30_000)]
        head, _ = message(headers=[("Transfer-Encoding", "chunked")])
        # The last chunk is missing: the response must not wait for it.
        return Attempt("long in chunks", [head, chunked(*pieces, last=b"")], frozenset((413,)))
    body = form(("photo", "a.png", data))
    return Attempt("long form", message(body, [FORM]), frozenset((413,)))


FORM = ("Content-Type", "multipart/form-data; boundary=edge")


def form(*files: tuple[str, str, bytes], edge: bytes = b"edge", end: bytes = b"--\r\n") -> bytes:
    body = b""
    for name, filename, data in files:
        body += b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n\r\n%b\r\n' % (
            edge,
            name.encode(),
            filename.encode(),
            data,
        )
    return body + b"--" + edge + end


def broken_form(rng: random.Random) -> Attempt:
    data = photos()[rng.choice(FORMATS)]
    good = form(("photo", "a.png", data))
    disposition = b'Content-Disposition: form-data; name="photo"; filename="a"\r\n'
    start = b"--edge\r\n"
    names = ("../../etc/passwd", "file:///etc/passwd", "s3://bucket/key", "\u202e\U0001f4a9", "a" * 5000, "")
    charset = rng.choice(("undefined", "idna", "punycode", "hex", "rot13", "utf-16", "nothing", "a" * 300))
    bodies: dict[str, tuple[str | bytes, bytes]] = {
        "no boundary": ("multipart/form-data", good),
        "empty boundary": ("multipart/form-data; boundary=", good),
        "long boundary": (f"multipart/form-data; boundary={'e' * 9000}", good),
        "other boundary": ("multipart/form-data; boundary=other", good),
        "boundary of bytes": (b"multipart/form-data; boundary=\xff\xfe\x80", good),
        "boundary twice": ("multipart/form-data; boundary=a; boundary=edge", good),
        "broken options": ('multipart/form-data; boundary="edge; x', good),
        "charset": (f"{FORM[1]}; charset={charset}", good.replace(b"a.png", rng.randbytes(9).hex().encode())),
        "charset of bytes": (f"{FORM[1]}; charset={charset}", good.replace(b"a.png", b"\xff\x80\xfe")),
        "two files": (FORM[1], form(("a", "a", data), ("b", "b", data))),
        "many files": (FORM[1], form(*[("a", "a", b"")] * 500)),
        "no file": (FORM[1], form()),
        "a field": (
            FORM[1],
            start + b'Content-Disposition: form-data; name="a"\r\n\r\nvalue\r\n--edge--\r\n',
        ),
        "a name": (FORM[1], form(("photo", rng.choice(names), data))),
        "names of bytes": (FORM[1], good.replace(b"photo", b"\xff\0\xfe")),
        "nested": (
            FORM[1],
            start + disposition + b"Content-Type: multipart/mixed; boundary=in\r\n\r\n" + form(edge=b"in"),
        ),
        "huge header": (FORM[1], start + b"X: " + b"y" * rng.choice((3000, 70_000)) + b"\r\n" + good),
        "many headers": (FORM[1], start + b"X: y\r\n" * rng.choice((50, 9000)) + disposition + b"\r\n"),
        "no disposition": (FORM[1], start + b"\r\n" + data + b"\r\n--edge--\r\n"),
        "odd disposition": (
            FORM[1],
            good.replace(b"form-data; ", rng.choice((b"", b";;;=", b"\xff;", b'"'))),
        ),
        "filename*": (FORM[1], good.replace(b'filename="a.png"', b"filename*=utf-9''%ff%00")),
        "no end": (FORM[1], form(("photo", "a", data), end=b"")),
        "cut": (FORM[1], good[: rng.randrange(len(good))]),
        "flipped": (FORM[1], bytes(b ^ (rng.random() < 0.01) for b in good)),
        "after the end": (FORM[1], good + rng.randbytes(500)),
        "line ends": (FORM[1], good.replace(b"\r\n", b"\n")),
        "empty": (FORM[1], b""),
        "other form": ("application/x-www-form-urlencoded", b"photo=" + quote(data).encode()),
        "mixed": ("multipart/mixed; boundary=edge", good),
    }
    what = rng.choice(list(bodies))
    kind, body = bodies[what]
    expected = frozenset((200, 400, 413, 415, 422))
    return Attempt(f"form: {what}", message(body, [("Content-Type", kind)]), expected)
