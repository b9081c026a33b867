"""Access to the API: keys from the environment, a rate limit for each, and the origin of requests."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from diffuir_core import UserError

from ..problems import Problem

KEYS, KEYS_FILE = "DIFFUIR_API_KEYS", "DIFFUIR_API_KEYS_FILE"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIN_KEY = 16
"""Shortest key that is accepted, characters, so that nobody guesses one."""


class Access:
    """Admits requests with a known key; where there are no keys, all requests.

    keys: name -> key. per_minute: most requests of each key in a minute, None for any number.
    """

    def __init__(self, keys: Mapping[str, str], per_minute: int | None) -> None:
        # Digests have one length, and comparing them reveals nothing about the keys.
        self._digests = {name: _digest(key) for name, key in keys.items()}
        self._rate = None if per_minute is None else RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, authorization: str | None) -> str:
        """The name of the key in an Authorization header; raises `Problem` 401 or 429."""
        name = self._name(authorization or "")
        if self._rate is not None and not self._limiter.hit(self._rate, name):
            reset = self._limiter.get_window_stats(self._rate, name).reset_time
            seconds = max(1, math.ceil(reset - time.time()))
            used = f"this key has used its {self._rate.amount} requests per minute"
            raise Problem(429, "rate", f"{used}: send it again after {seconds} s", seconds)
        return name

    def _name(self, authorization: str) -> str:
        if not self._digests:
            return ""
        scheme, _, key = authorization.partition(" ")
        found = _digest(key.strip())
        # Compare with all of them, so that the time taken does not reveal which one was close.
        names = [name for name, digest in self._digests.items() if hmac.compare_digest(digest, found)]
        if scheme.lower() != "bearer" or not names:
            raise Problem(401, "key", "this server requires an API key: send Authorization: Bearer KEY")
        return names[0]


def api_keys(required: bool) -> dict[str, str]:
    """Name -> key, from the environment.

    DIFFUIR_API_KEYS holds NAME:KEY, separated by commas; DIFFUIR_API_KEYS_FILE names a file with a line for each.
    Raises `UserError` for a malformed key, and where there are no keys although they are required.
    """
    text = os.environ.get(KEYS, "")
    if file := os.environ.get(KEYS_FILE):
        try:
            text += "\n" + Path(file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{KEYS_FILE} = {file} can't be read: give a file of lines NAME:KEY") from error
    keys = {}
    for line in filter(None, (line.strip() for line in text.replace(",", "\n").splitlines())):
        name, _, key = line.partition(":")
        name, key = name.strip(), key.strip()  # HTTP strips header values too
        if not name or len(key) < MIN_KEY:
            raise UserError(
                f"an API key is written NAME:KEY with at least {MIN_KEY} characters of key: correct {KEYS} or the "
                f"file of {KEYS_FILE}"
            )
        if not key.isascii() or not key.isprintable():
            raise UserError(
                f"the API key of {name} holds characters that a client can't send in a header: make it of ASCII "
                "letters and digits"
            )
        if name in keys:
            raise UserError(f"there are two API keys with the name {name}: give each its own name")
        keys[name] = key
    if required and not keys:
        raise UserError(f"require_key is set and there are no API keys: set {KEYS} or {KEYS_FILE}")
    return keys


def check_origin(headers: Mapping[str, str], local: bool = False) -> None:
    """Raise `Problem` 403 for a request that another site's page sends through a visitor's browser.

    local: whether only programs of this machine may send requests. A site can have its own name resolve to the
    loopback (DNS rebinding) and is of the same origin then, but its requests name that host.
    """
    origin, host = headers.get("origin"), headers.get("host")
    if origin is not None and (not host or _netloc(origin) != host):
        raise Problem(
            403, "origin", "pages of other sites may not use this server: send the request from a program"
        )
    if local and _host_of(host or "") not in LOOPBACK:
        detail = (
            "without API keys this server accepts requests to localhost or 127.0.0.1 only: use that address"
        )
        raise Problem(403, "origin", detail)


def _netloc(url: str) -> str:
    """The host and port of `url`; empty where it is malformed."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _host_of(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
