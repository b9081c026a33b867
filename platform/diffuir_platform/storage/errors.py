"""What a store raises, as one sentence that says what to do and holds no credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

from diffuir_core.errors import UserError

from ..text import one_line
from .uris import endpoint, split_uri

Action = Literal["read", "write", "list", "delete"]


_NOT_KNOWN = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
}


_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class StoreError(UserError):
    """The store as a whole can't be used: it is not there, or does not know who asks."""


class Busy(UserError):  # noqa: N818 - it names what is wrong
    """The store failed this one request, for no fault of the file's: asked again it may not."""


class NotThere(UserError):  # noqa: N818 - it names what is wrong
    """The file, or the part of it that is asked for, is not there."""


@contextmanager
def translated_errors(uri: str, action: Action) -> Iterator[None]:
    """What the store raises inside becomes a UserError of one sentence that holds no credentials."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _of_the_store(uri, error)
        if reason is not None:
            raise StoreError(one_line(reason)) from error
        reason = _of_the_file(uri, action, error)
        if reason is not None:
            raise _kind(uri, action, error)(one_line(reason)) from error
        raise


def code_of(error: BaseException) -> str:
    """The error code of S3 behind an exception; empty where there is none."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _of_the_store(uri: str, error: Exception) -> str | None:
    """What is wrong with the whole store and what to do; None where it is something else."""
    scheme, bucket, _ = split_uri(uri)
    if scheme != "s3":
        return None
    from botocore import exceptions as boto

    store = _shown_endpoint()
    chain = (error, error.__cause__, error.__context__)

    def is_one_of(*kinds: type[Exception]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    if is_one_of(boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound):
        return (
            f"there are no credentials for {store}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or name a profile that exists"
        )
    if is_one_of(boto.HTTPClientError, boto.ConnectionError, ConnectionError, TimeoutError):
        return f"nothing answers at {store}: check AWS_ENDPOINT_URL and the network"
    if isinstance(error, ValueError) and "endpoint" in str(error).lower():
        return "AWS_ENDPOINT_URL is no URL: write it as http://host:port"
    if code_of(error) in _NOT_KNOWN:
        return f"{store} does not take the credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code_of(error) == "NoSuchBucket" or "bucket does not exist" in str(error).lower():
        return (
            f"there is no bucket {bucket} at {store}: check the URI and AWS_ENDPOINT_URL, or make the bucket"
        )
    return None


def _kind(uri: str, action: Action, error: Exception) -> type[UserError]:
    """Of what is wrong with a file: whether it is worth asking again."""
    if isinstance(error, FileNotFoundError) and action != "write":
        return NotThere
    return Busy if split_uri(uri)[0] == "s3" and not isinstance(error, PermissionError) else UserError


def _of_the_file(uri: str, action: Action, error: Exception) -> str | None:
    """What is wrong with this file and what to do; None for what is a fault of the program."""
    scheme, _, path = split_uri(uri)
    if scheme == "s3":
        if isinstance(error, PermissionError):
            ask = "check AWS_ACCESS_KEY_ID, or ask its owner for the right to"
            return f"{_shown_endpoint()} refuses to {action} {uri}: {ask}"
        named = uri
    else:
        # Not the name of a temporary file, which would say nothing.
        own = scheme == "file" and action != "write" and isinstance(error, OSError)
        named = (getattr(error, "filename", None) if own else None) or (path if scheme == "file" else uri)
    if isinstance(error, FileNotFoundError) and action != "write":
        return f"there is no {named}: check the path"
    if isinstance(error, OSError):
        reason = _redacted(error.strerror or str(error)) or type(error).__name__
        return f"can't {action} {named} ({reason}): check the path and its permissions"
    if scheme == "s3" and type(error).__module__.startswith(("botocore.", "aiohttp.")):
        return f"can't {action} {named} ({_redacted(str(error))}): check the URI and AWS_ENDPOINT_URL"
    return None


def _shown_endpoint() -> str:
    url = endpoint()
    if url is None:
        return "AWS S3"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else "the store"


def without_credentials(text: str) -> str:
    """`text` without the user and password that URLs in it may hold."""
    return re.sub(r"://[^/@\s]*@", "://", text)


def _redacted(text: str) -> str:
    """What a store said, in 200 letters, without the credentials of the environment: it may repeat them."""
    for name in _CREDENTIALS:
        if os.environ.get(name):
            text = text.replace(os.environ[name], f"({name})")
    return without_credentials(" ".join(text.split()))[:200]
