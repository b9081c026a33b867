"""Many keys of a store at a time: listed a page after the other, deleted up to a thousand with one request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

KEYS_AT_ONCE = 1000
"""Most keys that S3 deletes with one request."""


def remove_below(file_system: Any, path: str) -> None:
    """Delete all files below the folder `path`, by their exact names."""
    if not hasattr(file_system, "call_s3"):
        for name in file_system.find(path):
            file_system.rm_file(name)
        return
    for page in filter(None, pages_s3(file_system, path)):
        delete_keys(file_system, path.partition("/")[0], [found["Key"] for found in page])


def delete_keys(file_system: Any, bucket: str, keys: Sequence[str]) -> None:
    """Delete up to KEYS_AT_ONCE keys of a bucket with one request."""
    objects = [{"Key": key} for key in keys]
    answer = file_system.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    for refused in answer.get("Errors", ()):
        raise PermissionError(f"{refused['Key']}: {refused.get('Message', refused.get('Code'))}")


def pages_s3(file_system: Any, path: str) -> Iterator[list[dict[str, Any]]]:
    """Pages of the files below the folder `path`, up to a thousand in each."""
    bucket, _, prefix = path.partition("/")
    page: dict[str, Any] = {}
    while True:
        more = {"ContinuationToken": page["NextContinuationToken"]} if page else {}
        # With a slash at its end, so that s3://bucket/rain does not include s3://bucket/rain2.
        page = file_system.call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", **more
        )
        yield page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
