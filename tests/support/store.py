"""An S3 server of our own on the loopback, which speaks the real protocol."""

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
    """A new bucket of the server at `endpoint`."""

    endpoint: str
    bucket: str
    client: Any

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    @contextmanager
    def asking_who(self) -> Iterator[None]:
        """Inside, the server knows only users that were made, and looks at their rights."""
        requests.post(f"{self.endpoint}/moto-api/reset-auth", data=b"0", timeout=10)
        try:
            yield
        finally:
            requests.post(f"{self.endpoint}/moto-api/reset-auth", data=b"inf", timeout=10)

    def user_without_rights(self) -> tuple[str, str]:
        """Key and secret of a user that the server knows and that may do nothing."""
        iam = boto3.client("iam", endpoint_url=self.endpoint)
        iam.create_user(UserName=self.bucket)
        made = iam.create_access_key(UserName=self.bucket)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]


def environment(endpoint: str) -> dict[str, str]:
    """What a client of the server finds in its environment."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def new_bucket(endpoint: str) -> Store:
    """A bucket that nobody else uses; the environment must already be `environment(endpoint)`."""
    assert os.environ["AWS_ENDPOINT_URL"] == endpoint
    # A client is kept for each set of options, and the credentials in the environment are none of them.
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    bucket = f"bucket-{next(_buckets)}"
    client.create_bucket(Bucket=bucket)
    return Store(endpoint, bucket, client)
