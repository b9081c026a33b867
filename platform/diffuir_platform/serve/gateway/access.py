"""Who may use the API: keys from the environment, each with its own rate."""

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
SHORTEST_KEY = 16
"""Characters of a key, so that nobody guesses one."""


class Access:
    """Lets requests with a known key in; where there are no keys, everyone.

    keys: name -> key. per_minute: requests of each, None for any number.
    """

    def __init__(self, keys: Mapping[str, str], per_minute: int | None) -> None:
        # Digests are of one length, and comparing them tells nothing of the keys.
        self._digests = {name: _digest(key) for name, key in keys.items()}
        self._rate = None if per_minute is None else RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, authorization: str | None) -> str:
        """The name of the key in an Authorization header; raises `Problem` 401 or 429."""
        name = self._name(authorization or "")
        if self._rate is not None and not self._limiter.hit(self._rate, name):
            reset = self._limiter.get_window_stats(self._rate, name).reset_time
            seconds = max(1, math.ceil(reset - time.time()))
            raise Problem(
                429, "rate", f"this key has had its {self._rate.amount} requests of a minute", seconds
            )
        return name

    def _name(self, authorization: str) -> str:
        if not self._digests:
            return ""
        scheme, _, key = authorization.partition(" ")
        found = _digest(key.strip())
        # All of them, so that the time taken does not tell which one it was near to.
        names = [name for name, digest in self._digests.items() if hmac.compare_digest(digest, found)]
        if scheme.lower() != "bearer" or not names:
            raise Problem(401, "key", "send a key of this server as Authorization: Bearer KEY")
        return names[0]


def keys_of_environment(required: bool) -> dict[str, str]:
    """Name -> key, from DIFFUIR_API_KEYS (NAME:KEY, with commas between) or a file of such lines.

    Raises `UserError` for what is none, and where there are none though they are required.
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
        name, key = name.strip(), key.strip()  # as a header's is
        if not name or len(key) < SHORTEST_KEY:
            raise UserError(
                f"an API key is written NAME:KEY with at least {SHORTEST_KEY} characters of key: mend {KEYS} or "
                f"the file of {KEYS_FILE}"
            )
        if not key.isascii() or not key.isprintable():
            raise UserError(
                f"the API key of {name} holds characters that a client can't send in a header: make it of ASCII "
                "letters and digits"
            )
        if name in keys:
            raise UserError(f"there are two API keys of the name {name}: give each its own")
        keys[name] = key
    if required and not keys:
        raise UserError(f"require_key is set and there are no API keys: set {KEYS} or {KEYS_FILE}")
    return keys


def check_origin(headers: Mapping[str, str], local: bool = False) -> None:
    """Raises `Problem` 403 for what another site's page sends through a visitor's browser.

    local: whether only programs of this machine may ask. A site can have its own name lead to the loopback (DNS
    rebinding), and then is of the same origin; but it asks by that name.
    """
    origin, host = headers.get("origin"), headers.get("host")
    if origin is not None and (not host or _netloc(origin) != host):
        raise Problem(403, "origin", "pages of other sites may not use this server")
    if local and _host_of(host or "") not in LOOPBACK:
        raise Problem(
            403, "origin", "this server is asked by a name of its own machine: localhost or 127.0.0.1"
        )


def _netloc(url: str) -> str:
    """Its host and port; empty for what is no URL."""
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
