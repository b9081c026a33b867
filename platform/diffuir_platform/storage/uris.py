"""URIs: scheme, bucket and path, and the endpoint of s3://."""

from __future__ import annotations

import os
from urllib.parse import unquote

from diffuir_core.errors import UserError


def split_uri(uri: str) -> tuple[str, str | None, str]:
    """(scheme, bucket of an s3:// URI, path as the file system takes it); raises `UserError` for other schemes."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return "file", None, os.path.abspath(uri)
    if scheme == "file":
        # Percent signs have a meaning in file:// (RFC 8089) and none in a path or an S3 key.
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost"):
            raise UserError(
                f"{uri} is a file of the machine {host}: write file:///path for a file of this machine"
            )
        return "file", None, os.path.abspath(unquote(slash + path))
    if scheme == "memory":
        return "memory", None, "/" + rest.strip("/")
    if scheme != "s3":
        raise UserError(f"{scheme}:// is not supported: give a local path, file://, s3:// or memory://")
    bucket = rest.partition("/")[0]
    if "@" in bucket:
        raise UserError(
            "an s3:// URI may not hold credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not bucket:
        raise UserError(f"{uri} names no bucket: write s3://bucket/path")
    if "?versionId=" in rest:  # s3fs would cut it off, and write to the key before it
        raise UserError(f"{uri} names a version of an object: copy it to a key of its own")
    return "s3", bucket, rest.rstrip("/")


def absolute(uri: str) -> str:
    """The canonical form of `uri`: an absolute path without a scheme, or scheme://path without a final slash."""
    scheme, _, path = split_uri(uri)
    return path if scheme == "file" else f"{scheme}://{path}"


def is_remote(uri: str) -> bool:
    """Whether a request to the store of `uri` goes over the network, so that it pays to make several at a time."""
    return split_uri(uri)[0] == "s3"


def join(folder: str, name: str) -> str:
    """The absolute URI of `name`, a relative path with "/", in `folder`."""
    return f"{absolute(folder).rstrip('/')}/{name}"


def endpoint() -> str | None:
    """The URL of the store of s3://, from the variables that every S3 client reads; None for AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
