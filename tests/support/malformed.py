"""Malformed requests of all kinds, reproducible by their number."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from urllib.parse import quote

from .malformed_bodies import (
    DOCUMENTED,
    FORM,
    KEY,
    PHOTO_PATH,
    SEED,
    Attempt,
    bomb,
    broken_form,
    chunked,
    damaged_photo,
    form,
    message,
    no_photo,
    photo,
    photos,
    too_long,
)

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
SERVE_HEADERS = (
    "serve_multiplexed_model_id",
    "serve-multiplexed-model-id",
    "x-request-timeout-seconds",
    "x-request-disconnect-disabled",
    "x-session-id",
    "X_Session-ID",
    "x-request-id",
)


def serve_headers(rng: random.Random) -> Attempt:
    """Headers that Serve takes as instructions; clients must not be able to use them."""
    lines = [
        (rng.choice(SERVE_HEADERS), rng.choice((*HOSTILE, *HOSTILE_BYTES, rng.randbytes(8).hex())))
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
    # Invalid HTTP may get a response, or the server may wait for the rest.
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
    "guard",
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
    """A head, header, trailer or line of a chunk that does not end."""
    start = b"POST /v1/restore HTTP/1.1\r\nHost: x\r\n"
    chunks = start + b"Transfer-Encoding: chunked\r\n\r\n"
    beginnings = (start, start + b"X-A: ", b"POST /", chunks + b"0\r\n", chunks + b"5;")
    piece = rng.choice((b"X: y\r\n", b"a", b"X-A: " + b"b" * 1000 + b"\r\n")) if rng.random() < 0.7 else b"a"
    more = piece * (rng.choice((2**17, 2**20, 2**22)) // len(piece))
    # The response can be lost with the data that was sent after it.
    expected = frozenset((None, 400, 401, 431))
    return Attempt("endless", [rng.choice(beginnings), more], expected, end="half")


def cut(rng: random.Random) -> Attempt:
    """A request of any kind that ends too early, or whose response is not read."""
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
    """A request that stops in the middle of its body."""
    headers = rng.choice(([], [FORM]))
    head, body = message(form(("photo", "a", photos()["PNG"])) if headers else photos()["PNG"], headers)
    return Attempt("slow", [head, body[: rng.randrange(len(body))]], frozenset((408,)))


def several(rng: random.Random) -> Attempt:
    """Pipelined requests: several in a row without waiting for responses."""
    others = [
        rng.choice((damaged_photo, odd_parameters, bomb, no_photo))(rng) for _ in range(rng.randint(2, 5))
    ]
    whole = b"".join(part for other in others for part in other.parts)
    # A head that is too long ends the connection, whatever was requested before it.
    return Attempt("several", [whole], DOCUMENTED if len(whole) < 2**16 else DOCUMENTED | {None})


KINDS: dict[Callable[[random.Random], Attempt], float] = {
    damaged_photo: 20,
    bomb: 6,
    no_photo: 6,
    too_long: 6,
    broken_form: 14,
    serve_headers: 8,
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
    """The request of that number, the same in every run."""
    rng = random.Random(SEED * 1_000_003 + number)
    (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
    return kind(rng)
