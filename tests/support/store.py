"""An S3 server on the loopback that speaks the real protocol."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import requests
import s3fs

ACCESS_KEY, SECRET_KEY = "AKIATESTTESTTESTTEST", "a-secret-that-nobody-may-see"
_buckets = itertools.count()


@dataclass(frozen=True)
class Store:
    """A bucket of the server at `endpoint` for one test."""

    endpoint: str
    bucket: str
    client: Any

    @property
    def uri(self) -> str:
        """The bucket as an s3:// URI."""
        return f"s3://{self.bucket}"

    @contextmanager
    def asking_who(self) -> Iterator[None]:
        """Make the server check credentials and rights inside the block; it knows only users that were made."""
        requests.post(f"{self.endpoint}/moto-api/reset-auth", data=b"0", timeout=10)
        try:
            yield
        finally:
            requests.post(f"{self.endpoint}/moto-api/reset-auth", data=b"inf", timeout=10)

    def user_without_rights(self) -> tuple[str, str]:
        """Make a user without any rights; returns its key and secret."""
        iam = boto3.client("iam", endpoint_url=self.endpoint)
        iam.create_user(UserName=self.bucket)
        made = iam.create_access_key(UserName=self.bucket)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]


def environment(endpoint: str) -> dict[str, str]:
    """Return the environment variables with which a client reaches the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def new_bucket(endpoint: str) -> Store:
    """Make a bucket that nothing else uses; the process's environment must already be `environment(endpoint)`."""
    assert os.environ["AWS_ENDPOINT_URL"] == endpoint
    # s3fs caches a client for each set of options, which do not include the credentials in the environment.
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    bucket = f"bucket-{next(_buckets)}"
    client.create_bucket(Bucket=bucket)
    return Store(endpoint, bucket, client)
