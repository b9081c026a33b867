"""Errors of a store as one sentence, with a remedy and without credentials."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

from diffuir_core.errors import UserError

from ..text import one_line
from .uris import endpoint, split_uri

Action = Literal["read", "write", "list", "delete"]

_WRONG_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
}
"""Error codes of S3 for credentials that the store does not accept."""

FULL_STORE = frozenset(("XMinioStorageFull", "QuotaExceeded", "InsufficientStorage", "StorageFull"))
"""Error codes with which stores that speak S3 refuse a file for want of space."""
_INSUFFICIENT_STORAGE = 507
"""Status code of HTTP (RFC 4918) for the same."""

_GONE = "{disk} no longer takes files ({reason}): check the disk"
_UNWRITABLE = {
    errno.ENOSPC: "no space is left on {disk}: free some",
    errno.EDQUOT: "the quota on {disk} is used up: free some space, or have it raised",
    errno.EROFS: "{disk} is read-only: mount it for writing, or choose another place",
    **dict.fromkeys((errno.EIO, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.ESTALE), _GONE),
}
"""Errors of a local disk that every other file would get too -> their sentence."""
_REFUSED_NAME = (errno.ENOENT, errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG)
"""Errors for a name that a file system can't have, each of its own kind: `:` and `?` on exFAT, a long name."""

_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class StoreError(UserError):
    """The store as a whole can't be used: it does not answer, or does not accept the credentials."""


class Unwritable(StoreError):  # noqa: N818 - it names what is wrong
    """The store takes no more files: it is full, over its quota, read-only or gone. A retry does not help."""


class Busy(UserError):  # noqa: N818 - it names what is wrong
    """The store failed this one request, not because of the file: a retry may succeed."""


class NotThere(UserError):  # noqa: N818 - it names what is wrong
    """The file, or the requested part of it, does not exist."""


@contextmanager
def translated_errors(uri: str, action: Action) -> Iterator[None]:
    """Inside, errors of the store become a `UserError` of one sentence without credentials."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _write_problem(uri, error) if action == "write" else None
        if reason is not None:
            raise Unwritable(one_line(reason)) from error
        reason = _store_problem(uri, error)
        if reason is not None:
            raise StoreError(one_line(reason)) from error
        reason = _file_problem(uri, action, error)
        if reason is not None:
            raise _error_class(uri, action, error)(one_line(reason)) from error
        raise


def s3_error_code(error: BaseException) -> str:
    """The error code of S3 behind an exception; empty if there is none."""
    return str(_s3_response(error).get("Error", {}).get("Code", ""))


def _s3_response(error: BaseException) -> dict[str, Any]:
    return getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}


def _write_problem(uri: str, error: Exception) -> str | None:
    """The sentence for an error of a write that any other file of the store would get too; None for any other."""
    scheme, bucket, path = split_uri(uri)
    if scheme == "s3":
        status = _s3_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
        if s3_error_code(error) in FULL_STORE or status == _INSUFFICIENT_STORAGE:
            place = f"the bucket {bucket} at {_shown_endpoint()}"
            return f"no space is left for {place}: free some, or have its quota raised"
        return None
    sentence = _UNWRITABLE.get(getattr(error, "errno", None) or 0)
    return sentence and sentence.format(disk=f"the disk of {os.path.dirname(path)}", reason=_reason(error))


def _store_problem(uri: str, error: Exception) -> str | None:
    """The sentence for an error that concerns the whole store; None for any other error."""
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
        return "AWS_ENDPOINT_URL is not a URL: write it as http://host:port"
    if s3_error_code(error) in _WRONG_CREDENTIALS:
        return f"{store} does not accept the credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if s3_error_code(error) == "NoSuchBucket" or "bucket does not exist" in str(error).lower():
        return f"there is no bucket {bucket} at {store}: check the URI and AWS_ENDPOINT_URL, or create the bucket"
    return None


def _error_class(uri: str, action: Action, error: Exception) -> type[UserError]:
    """The class for an error that concerns one file, which says whether a retry may help."""
    if isinstance(error, FileNotFoundError) and action != "write":
        return NotThere
    return Busy if split_uri(uri)[0] == "s3" and not isinstance(error, PermissionError) else UserError


def _file_problem(uri: str, action: Action, error: Exception) -> str | None:
    """The sentence for an error that concerns one file; None for a bug of the program."""
    scheme, _, path = split_uri(uri)
    if scheme == "s3":
        if isinstance(error, PermissionError):
            remedy = "check AWS_ACCESS_KEY_ID, or ask the bucket's owner for the right to"
            return f"{_shown_endpoint()} refuses to {action} {uri}: {remedy}"
        named = uri
    else:
        # Not the name of a temporary file, which the user does not know.
        own = scheme == "file" and action != "write" and isinstance(error, OSError)
        named = (getattr(error, "filename", None) if own else None) or (path if scheme == "file" else uri)
    if isinstance(error, FileNotFoundError) and action != "write":
        return f"there is no {named}: check the path"
    if scheme == "file" and action == "write" and getattr(error, "errno", None) in _REFUSED_NAME:
        return f"can't write {named} (its disk can't have a file of this name): choose another name or place"
    if isinstance(error, OSError):
        return f"can't {action} {named} ({_reason(error)}): check the path and its permissions"
    if scheme == "s3" and type(error).__module__.startswith(("botocore.", "aiohttp.")):
        return f"can't {action} {named} ({_redacted(str(error))}): check the URI and AWS_ENDPOINT_URL"
    return None


def _reason(error: Exception) -> str:
    """The reason of an error of a store, as the system words it."""
    return _redacted(getattr(error, "strerror", None) or str(error)) or type(error).__name__


def _shown_endpoint() -> str:
    url = endpoint()
    if url is None:
        return "AWS S3"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else "the store"


def without_credentials(text: str) -> str:
    """`text` without the user names and passwords of URLs in it."""
    return re.sub(r"://[^/@\s]*@", "://", text)


def _redacted(text: str) -> str:
    """Text from a store, up to 200 characters, without the environment's credentials, which it may repeat."""
    for name in _CREDENTIALS:
        if os.environ.get(name):
            text = text.replace(os.environ[name], f"({name})")
    return without_credentials(" ".join(text.split()))[:200]
