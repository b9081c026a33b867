"""Malformed requests of all kinds: each is answered in the API's shape, no process ends, nothing stays held.

Bodies, headers, parameters, paths, and connections that are slow or cut. DIFFUIR_FUZZ: how many. Each can be had
again: `attempt(1234)` is what was sent.
"""

from __future__ import annotations

import functools
import http.client
import io
import json
import math
import os
import random
import select
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import numpy as np
import psutil
import pytest
import requests
from PIL import Image
from serving import Endpoint, stub_endpoint

SEED = 1
REQUESTS = int(os.environ.get("DIFFUIR_FUZZ", 600))
AT_ONCE = 8
KEY = "a key that nobody guesses"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
MIB = 2**20
MAX_BYTES, MAX_OPEN, UPLOAD_TIMEOUT = 2**18, 64, 5.0
SETTINGS = {
    "max_bytes": MAX_BYTES,
    "max_pixels": 2**17,
    "max_side": 2048,
    "max_open": MAX_OPEN,
    "held_bytes": MAX_OPEN * MAX_BYTES,
    "upload_timeout": UPLOAD_TIMEOUT,
    "max_wait": 30,
    "timeout": 30,
    "device": "cpu",
}
GROWTH = 24 * MIB  # resident, of all processes together, from the first third to the last; 5 to 10 are usual
ANSWERS_WITHIN = 60  # seconds, on a machine that is busy with something else
WAITS_FOR_MORE = 2.0  # seconds without an answer after which a request is thought to be incomplete
DOCUMENTED = frozenset((200, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 431, 503, 504))
NOT_HTTP = b"Invalid HTTP request received."
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
PHOTO_PATH = "/v1/restore"


@dataclass(frozen=True)
class Attempt:
    """What is sent, part after part, and how; expected: statuses, with None for no answer."""

    what: str
    parts: Sequence[bytes]
    expected: frozenset[int | None] = DOCUMENTED
    pause: float = 0.0
    end: str = "read"
    """read the answer; half: where none comes, say that this is all, and read; close or reset: do not."""
    method: str = "POST"


@dataclass(frozen=True)
class Outcome:
    status: int | None
    kind: str = ""
    fault: str = ""


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
    """A request, the head and the body apart."""
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
    """Small files that say or hold much: sides, pixels, profiles and texts."""
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
    """More than is allowed, said at once or found out while it comes."""
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
        # Chunks without an end: the answer must not wait for it.
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


HOSTILE = (
    "",
    "?1",
    "0",
    "-1",
    "nan",
    "inf",
    "1e-9",
    "../../etc/passwd",
    "shipped:3",
    "a" * 9000,
    "a b",
    "%00",
)
HOSTILE_BYTES = (b"\xff\xfe", b"\x80", b"\xc3\x28", "\U0001f4a9".encode())
OF_SERVE = (
    "serve_multiplexed_model_id",
    "serve-multiplexed-model-id",
    "x-request-timeout-seconds",
    "x-request-disconnect-disabled",
    "x-session-id",
    "X_Session-ID",
    "x-request-id",
)


def of_serve(rng: random.Random) -> Attempt:
    """Headers by which Serve would be told something: no client has a say in that."""
    lines = [
        (rng.choice(OF_SERVE), rng.choice((*HOSTILE, *HOSTILE_BYTES, rng.randbytes(8).hex())))
        for _ in range(rng.randint(1, 3))
    ]
    parts = message(photos()["PNG"], lines)
    if rng.random() < 0.2:
        return Attempt("of Serve, and gone", parts, frozenset((None,)), end="close")
    return Attempt("of Serve", parts, frozenset((200,)))


def odd_headers(rng: random.Random) -> Attempt:
    data = photos()["PNG"]
    lengths = (-1, "+5", "5 5", "0x10", "1e3", "\u0665", 10**40, "9" * 5000, "", "NaN", "5, 5")
    ways: dict[str, Callable[[], list[bytes]]] = {
        "length": lambda: message(data, length=rng.choice(lengths)),
        "two lengths": lambda: message(data, [("Content-Length", "5")]),
        "length and chunks": lambda: message(chunked(data), [("Transfer-Encoding", "chunked")], length=5),
        "encoding": lambda: message(
            data, [("Transfer-Encoding", rng.choice(("gzip", "chunked, x", "\x0b")))]
        ),
        "bad chunks": lambda: message(
            rng.choice((b"zz\r\n", b"-5\r\nabcde\r\n", b"f" * 40 + b"\r\n", b"5\r\nabcdefgh\r\n")),
            [("Transfer-Encoding", "chunked")],
        ),
        "content encoding": lambda: message(zlib.compress(data), [("Content-Encoding", "deflate")]),
        "NUL": lambda: message(data, [("X-A", b"a\0b")]),
        "name of bytes": lambda: [b"POST /v1/restore HTTP/1.1\r\n\xff\xfe: 1\r\n\r\n"],
        "no colon": lambda: [b"POST /v1/restore HTTP/1.1\r\nHost\r\n\r\n"],
        "folded": lambda: [b"GET /readyz HTTP/1.1\r\nHost: x\r\n y\r\n\r\n"],
        "bytes": lambda: message(
            data, [(rng.choice(("Accept", "X-A", "Cookie")), rng.choice(HOSTILE_BYTES))]
        ),
        "64 KB": lambda: message(data, [("X-A", "a" * 2**16)]),
        "a thousand": lambda: message(data, [(f"X-{i}", "a") for i in range(1000)]),
        "content type": lambda: message(data, [("Content-Type", rng.choice((*HOSTILE, *HOSTILE_BYTES)))]),
        "expect": lambda: message(data, [("Expect", rng.choice(("100-continue", "200-ok")))]),
        "host": lambda: message(data, [("Host", rng.choice((*HOSTILE, *HOSTILE_BYTES)))]),
        "forwarded": lambda: message(data, [("X-Forwarded-For", "a" * 999), ("X-Forwarded-Proto", "\x01")]),
        "upgrade": lambda: message(
            data, [("Connection", "Upgrade"), ("Upgrade", rng.choice(("h2c", "websocket", "x")))]
        ),
        "range": lambda: message(data, [("Range", "bytes=0-1,5-"), ("If-None-Match", "*")]),
        "version": lambda: [rng.choice((b"GET /readyz HTTP/9.9\r\n\r\n", b"GET /readyz\r\n\r\n"))],
    }
    what = rng.choice(list(ways))
    # What is not HTTP may be answered, or waited on for the rest that does not come.
    return Attempt(f"header: {what}", ways[what](), DOCUMENTED | {None}, end="half")


def odd_key(rng: random.Random) -> Attempt:
    keys = (
        *HOSTILE_BYTES,
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {KEY}",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"{KEY}",
        "Bearer " + "a" * 60_000,
        b"Bearer \xff\xfe",
        f"Bearer {KEY}, {KEY}",
    )
    path = rng.choice((PHOTO_PATH, "/v1/models", "/v1/restore?model=../x"))
    method = "GET" if path == "/v1/models" else "POST"
    parts = message(photos()["PNG"], path=path, method=method, key=rng.choice(keys))
    return Attempt("key", parts, frozenset((401,)))


def odd_origin(rng: random.Random) -> Attempt:
    origin = rng.choice(
        (
            "http://evil.example",
            "null",
            "http://[",
            "http://localhost.evil",
            "//",
            "",
            "http://[::1",
            b"\xff\xfe",
        )
    )
    return Attempt("origin", message(photos()["PNG"], [("Origin", origin)]), frozenset((403,)))


NAMES = (
    "steps",
    "seed",
    "strength",
    "equalise",
    "format",
    "quality",
    "exif",
    "truncated",
    "timeout",
    "model",
)
ODD_VALUES = (
    *("", "-1", "0", "1", "1e999", "nan", "inf", "-inf", "1" * 5000, "9" * 30, "0x10", "1.5", "true", "null"),
    *(
        "[]",
        "{}",
        "\0",
        "\u0665",
        "\U0001f4a9",
        "a" * 9000,
        "../../etc/passwd",
        "/etc/passwd",
        "file:///etc/passwd",
    ),
    *(
        "s3://bucket/key",
        "models:/x@y",
        "shipped/../shipped",
        "shipped:3",
        "shipped\0",
        "http://169.254.169.254/",
    ),
    *("jpeg", "JPEG", "gif", "none", "with-gps", "__class__", "${jndi:ldap://x}", "%s%n", "' or 1=1 --"),
)


def odd_parameters(rng: random.Random) -> Attempt:
    names = (
        *NAMES,
        *NAMES,
        "weights",
        "path",
        "source",
        "__proto__",
        "\udcff",
        "",
        "a" * 5000,
        "seed[]",
        "Steps",
    )
    pairs = [(rng.choice(names), rng.choice(ODD_VALUES)) for _ in range(rng.choice((1, 1, 2, 3, 200)))]
    if rng.random() < 0.2:
        pairs += pairs
    query = "&".join(
        f"{quote(name, errors='surrogateescape')}={quote(value)}" for name, value in pairs
    ) or rng.choice(("&&&", "=", "%", "%zz", ";;", "+"))
    path = f"{PHOTO_PATH}?{query}"
    # A URL of 64 KB is none for the HTTP server.
    expected = frozenset((200, 413, 422)) if len(path) < 2**16 else frozenset((None, 400, 431))
    return Attempt("parameters", message(photos()["PNG"], path=path), expected)


def odd_path(rng: random.Random) -> Attempt:
    paths = (
        *(
            "/v1/restore/",
            "//v1/restore",
            "/v1/../v1/restore",
            "/v1",
            "/v1/restore/../../etc/passwd",
            "/V1/RESTORE",
        ),
        *(
            "/%2e%2e/%2e%2e/etc/passwd",
            "/examples/..%2f..%2fpage.jpg",
            "/examples/%00.jpg",
            "/examples/x.jpg",
        ),
        *(
            "/page.css/../app.py",
            "/docs",
            "/redoc",
            "/metrics",
            "/-/routes",
            "/-/healthz",
            "/-/x",
            "/%ff%fe",
            "/%zz",
        ),
        *(
            "/" + "a" * 60_000,
            "/" + "a/" * 5000,
            "*",
            "http://other/v1/restore",
            "/v1/jobs/../x",
            "/readyz;a=b",
        ),
        *("/v1/restore#x", "/\U0001f4a9", "/%0d%0aX-A:%20b", "/v1/models", "/openapi.json", "/page.js", "/"),
    )
    methods = (
        "GET",
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "HEAD",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "get",
        "X",
    )
    method = rng.choice(methods)
    body = photos()["PNG"] if rng.random() < 0.5 else b""
    parts = message(body, path=rng.choice(paths), method=method)
    return Attempt("path", parts, DOCUMENTED | {None}, end="half", method=method)


def not_http(rng: random.Random) -> Attempt:
    texts = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(30),
        b"\r\n" * 500,
        b"GET " + b"a" * rng.choice((100, 2**17)),
        b"SSH-2.0-x\r\n",
        b"\0" * 1000,
        rng.randbytes(rng.randint(1, 5000)),
    )
    return Attempt("not HTTP", [rng.choice(texts)], frozenset((None, 400, 404, 431)), end="half")


def endless(rng: random.Random) -> Attempt:
    """Much that is no body: a head, a header or a trailer that goes on, or the line of a chunk."""
    start = b"POST /v1/restore HTTP/1.1\r\nHost: x\r\n"
    chunks = start + b"Transfer-Encoding: chunked\r\n\r\n"
    beginnings = (start, start + b"X-A: ", b"POST /", chunks + b"0\r\n", chunks + b"5;")
    piece = rng.choice((b"X: y\r\n", b"a", b"X-A: " + b"b" * 1000 + b"\r\n")) if rng.random() < 0.7 else b"a"
    more = piece * (rng.choice((2**17, 2**20, 2**22)) // len(piece))
    # The answer can be lost with what was sent after it.
    expected = frozenset((None, 400, 401, 431))
    return Attempt("endless", [rng.choice(beginnings), more], expected, end="half")


def cut(rng: random.Random) -> Attempt:
    """A request of any kind that ends too early, or whose answer nobody reads."""
    other = rng.choice((damaged_photo, bomb, broken_form, too_long, odd_parameters))(rng)
    whole = b"".join(other.parts) if rng.random() < 0.7 else b"".join(message(photo("PNG", 300)))
    if rng.random() < 0.6:
        whole = whole[: rng.randrange(1, len(whole))]
    at = rng.randrange(len(whole))
    pause = rng.choice((0, 0, 0.01, 0.05))
    end = rng.choice(("close", "reset", "half"))
    expected = DOCUMENTED | {None} if end == "half" else frozenset((None,))
    return Attempt("cut", [whole[:at], whole[at:]], expected, pause, end)


def slow(rng: random.Random) -> Attempt:
    """Stops in the middle of the body."""
    headers = rng.choice(([], [FORM]))
    head, body = message(form(("photo", "a", photos()["PNG"])) if headers else photos()["PNG"], headers)
    return Attempt("slow", [head, body[: rng.randrange(len(body))]], frozenset((408,)))


def several(rng: random.Random) -> Attempt:
    """Requests one behind the other, without waiting for answers."""
    others = [
        rng.choice((damaged_photo, odd_parameters, bomb, no_photo))(rng) for _ in range(rng.randint(2, 5))
    ]
    whole = b"".join(part for other in others for part in other.parts)
    # A head that is too long ends the connection, whatever was asked before it.
    return Attempt("several", [whole], DOCUMENTED if len(whole) < 2**16 else DOCUMENTED | {None})


KINDS: dict[Callable[[random.Random], Attempt], float] = {
    damaged_photo: 20,
    bomb: 6,
    no_photo: 6,
    too_long: 6,
    broken_form: 14,
    of_serve: 8,
    odd_headers: 12,
    odd_key: 4,
    odd_origin: 2,
    odd_parameters: 12,
    odd_path: 8,
    not_http: 4,
    endless: 2,
    cut: 12,
    several: 2,
    slow: 0.7,
}


def attempt(number: int) -> Attempt:
    """Request `number`, the same in every run."""
    rng = random.Random(SEED * 1_000_003 + number)
    (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
    return kind(rng)


def send(address: tuple[str, int], sent: Attempt) -> Outcome:
    """What became of it."""
    with socket.create_connection(address, ANSWERS_WITHIN) as connection:
        connection.settimeout(ANSWERS_WITHIN)
        try:
            for part in sent.parts:
                connection.sendall(part)
                time.sleep(sent.pause)
            if sent.end == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if sent.end in ("close", "reset"):
                return Outcome(None)
            if sent.end == "half" and not select.select([connection], [], [], WAITS_FOR_MORE)[0]:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # answered and closed before it was all sent: the answer may be there still
        response = http.client.HTTPResponse(connection, method=sent.method)
        try:
            response.begin()
            body = response.read()
        except (ConnectionError, http.client.RemoteDisconnected):
            return Outcome(None)
        except TimeoutError:
            return Outcome(None, fault=f"no answer within {ANSWERS_WITHIN} s")
        except http.client.HTTPException as error:
            return Outcome(None, fault=f"no HTTP: {error!r}")
        return judged(response, body, sent)


def judged(response: http.client.HTTPResponse, body: bytes, sent: Attempt) -> Outcome:
    status, kind = response.status, response.headers.get("Diffuir-Problem", "")
    fault = ""
    if status not in DOCUMENTED:
        fault = f"status {status}: {body[:300]!r}"
    elif status == 400 and body == NOT_HTTP:
        kind = "HTTP server's own"
    elif status >= 400 and sent.method != "HEAD":
        fault = fault_of_problem(response, body)
    return Outcome(status, kind, fault)


def fault_of_problem(response: http.client.HTTPResponse, body: bytes) -> str:
    """What is wrong with the body of an error; empty for nothing."""
    if response.headers["Content-Type"] != "application/problem+json":
        return f"{response.status} is no problem: {body[:300]!r}"
    problem = json.loads(body)
    right = (
        set(problem) == {"type", "title", "status", "detail", "request_id"}
        and problem["status"] == response.status
        and problem["type"] == f"urn:diffuir:{response.headers['Diffuir-Problem']}"
        and problem["request_id"] == response.headers["X-Request-ID"] != ""
        and len(problem["detail"].splitlines()) == 1
        and len(problem["detail"]) < 500
        and "Traceback" not in problem["detail"]
        and (response.status not in (429, 503) or int(response.headers["Retry-After"]) > 0)
    )
    return "" if right else f"not in the one shape: {response.headers.items()} {body[:600]!r}"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    environment = {
        "DIFFUIR_API_KEYS": f"fuzz:{KEY}",
        # Of glibc: what is freed goes back to the system, so that what stays is what was not.
        "MALLOC_MMAP_THRESHOLD_": "131072",
        "MALLOC_TRIM_THRESHOLD_": "131072",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with stub_endpoint(0.0, 4, **SETTINGS) as endpoint:
            yield endpoint


def address_of(endpoint: Endpoint) -> tuple[str, int]:
    parts = urlsplit(endpoint.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def memory(endpoint: Endpoint) -> dict[int, int]:
    """Process id -> resident bytes, of those that a request goes through."""
    processes: list[psutil.Process] = [
        process for name in ("ProxyActor", "ServeReplica") for process in endpoint.processes(name)
    ]
    return {process.pid: process.memory_info().rss for process in processes}


def restored(endpoint: Endpoint) -> bool:
    """Whether a good photo comes back as it should: darker by one."""
    answer = requests.post(
        f"{endpoint.url}{PHOTO_PATH}", data=photos()["PNG"], headers=AUTHORIZED, timeout=ANSWERS_WITHIN
    )
    if answer.status_code != 200:
        return False
    before, after = (np.asarray(Image.open(io.BytesIO(data))) for data in (photos()["PNG"], answer.content))
    return np.array_equal(after, np.maximum(before, 1) - 1)


def fits_what_is_allowed(endpoint: Endpoint) -> bool:
    """Whether as many requests at once as are allowed, with as many bytes, are taken: then none else is held."""
    head, _ = message(length=MAX_BYTES)
    with ExitStack() as stack:
        held = []
        for _ in range(MAX_OPEN):
            connection = stack.enter_context(socket.create_connection(address_of(endpoint), ANSWERS_WITHIN))
            connection.sendall(head + bytes(MAX_BYTES - 1))
            held.append(connection)
        one_more = Outcome(None)
        until = time.monotonic() + UPLOAD_TIMEOUT
        while one_more.kind != "busy-open" and time.monotonic() < until:
            one_more = send(address_of(endpoint), Attempt("one more", message(photos()["PNG"])))
        answered, _, _ = select.select(held, [], [], 0.5)
        return one_more.kind == "busy-open" and not answered


def eventually(holds: Callable[[Endpoint], bool], endpoint: Endpoint, seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not holds(endpoint):
        if time.monotonic() > until:
            return False
        time.sleep(1)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.timeout(300 + REQUESTS)
def test_malformed_requests_are_answered_and_leave_nothing_behind(endpoint: Endpoint) -> None:
    assert eventually(restored, endpoint)
    before = memory(endpoint)
    assert len(before) == 3, "a server, a gateway and a model"
    faults: list[str] = []
    ends: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    marks: list[dict[int, int]] = []

    def one(number: int) -> tuple[int, Attempt, Outcome]:
        sent = attempt(number)
        return number, sent, send(address_of(endpoint), sent)

    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        third = math.ceil(REQUESTS / 3)
        for start in range(0, REQUESTS, third):
            for number, sent, outcome in pool.map(one, range(start, min(start + third, REQUESTS))):
                fault = outcome.fault
                if not fault and outcome.status not in sent.expected:
                    fault = f"{outcome.status} {outcome.kind} is not of {sorted(map(str, sent.expected))}"
                if fault:
                    faults.append(f"{number}, {sent.what}: {fault}")
                statuses[f"{outcome.status or 'none'} {outcome.kind}".strip()] += 1
                ends[f"{sent.what}: {outcome.status}"] += 1
            assert eventually(restored, endpoint)
            time.sleep(1)
            marks.append(memory(endpoint))
    took = time.monotonic() - began
    grown = {pid: (marks[-1][pid] - marks[0][pid]) / MIB for pid in before if pid in marks[-1]}
    print(f"{REQUESTS} in {took:.0f} s", dict(sorted(statuses.items())), sep="\n")
    print({pid: [round(mark.get(pid, 0) / MIB, 1) for mark in (before, *marks)] for pid in before})
    assert not faults, "\n".join([f"{len(faults)} faults of seed {SEED}:", *faults[:20]])
    assert set(marks[-1]) == set(before), "a process has ended"
    assert sum(grown.values()) * MIB < GROWTH, grown
    assert requests.get(f"{endpoint.url}/readyz", timeout=30).status_code == 200
    assert eventually(fits_what_is_allowed, endpoint), "places or bytes are held for nobody"
    assert eventually(restored, endpoint)
    # Requests that all came to the same end would show nothing.
    assert {200, 400, 401, 403, 404, 405, 413, 415, 422} <= {int(s[:3]) for s in statuses if s[0] != "n"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Request-Timeout-Seconds", "0.0001"),
        ("X-Request-Timeout-Seconds", b"\xff"),
        ("X-Request-Disconnect-Disabled", b"\xff"),
        ("Serve-Multiplexed-Model-Id", b"\xff"),
        ("X-Session-Id", b"\xff"),
        ("X-Request-Id", b"\xff"),
    ],
)
def test_a_header_that_serve_reads_is_not_a_clients_to_send(
    endpoint: Endpoint, name: str, value: str | bytes
) -> None:
    sent = Attempt(name, message(photos()["PNG"], [(name, value)]))
    assert send(address_of(endpoint), sent).status == 200


@pytest.mark.parametrize("path", ["/v1/restore/", "//v1/restore", "*"])
def test_another_way_to_write_a_path_is_not_there(endpoint: Endpoint, path: str) -> None:
    outcome = send(address_of(endpoint), Attempt(path, message(photos()["PNG"], path=path)))
    assert (outcome.status, outcome.kind, outcome.fault) == (404, "http", "")


def test_a_websocket_is_refused_in_the_one_shape(endpoint: Endpoint) -> None:
    headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ]
    sent = Attempt("websocket", message(headers=headers, method="GET", length=0), method="GET")
    outcome = send(address_of(endpoint), sent)
    assert (outcome.status, outcome.kind, outcome.fault) == (404, "http", "")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/restore HTTP/1.1\r\nX-A: " + b"a" * 2**20,
        b"POST /v1/restore HTTP/1.1\r\n" + b"X: y\r\n" * 2**17,
        b"POST /" + b"a" * 2**20,
    ],
    ids=["header", "headers", "path"],
)
def test_a_head_that_does_not_end_is_refused(endpoint: Endpoint, head: bytes) -> None:
    outcome = send(address_of(endpoint), Attempt("head", [head], end="half"))
    # Of what is still on its way when the connection is closed, the answer may be lost.
    assert (outcome.status, outcome.kind, outcome.fault) in ((431, "head", ""), (None, "", ""))
    assert restored(endpoint)


def test_a_request_whose_gateway_dies_is_told_to_come_again(endpoint: Endpoint) -> None:
    (gateway,) = endpoint.processes("ServeReplica:diffuir:Gateway")
    head, body = message(photos()["PNG"])
    with socket.create_connection(address_of(endpoint), ANSWERS_WITHIN) as connection:
        connection.sendall(head + body[:-1])
        time.sleep(0.5)
        gateway.kill()
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert fault_of_problem(response, response.read()) == ""
        assert (response.status, response.headers["Diffuir-Problem"]) == (503, "lost")
    assert eventually(restored, endpoint, 60)
