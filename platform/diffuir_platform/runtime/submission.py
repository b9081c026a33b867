"""A command as a job of a Ray cluster: packed, submitted through the cluster's job server, and followed from here.

What the cluster must have: the packages of the `platform` extra in its image (ours come with the job), a job
server (`ray[default]`), data and storage that every node can reach (s3://, or a path that all nodes share), and
the credentials for them in its nodes' own environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
MLFLOW_TRACKING_USERNAME, ...). Credentials are never sent: whoever can open the dashboard can read what is.

Where the job server asks for credentials, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_JOB_HEADERS.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import diffuir_core
from diffuir_core import UserError

from ..stopping import Stopped
from .job_log import exit_code, follow
from .private import JOB_CLIENT_LOGGERS
from .session import WORKER_ENVIRONMENT

PASSED_ON = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"),
)
"""Variables of this process's environment that the job gets: addresses, never credentials."""

_FIXED_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    **WORKER_ENVIRONMENT,
}

SECONDS_TO_CONNECT = 10
"""Longest wait for a connection to the job server, seconds."""

_NAME, _FILES, _ARGUMENTS = "diffuir.job", "diffuir.files", "diffuir.arguments"
"""Keys of a job's metadata."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command of `diffuir` to submit to a cluster."""

    name: str
    """Name of the job on the cluster; a later job of the same name gets a number behind it."""
    arguments: tuple[str, ...]
    """Arguments of `diffuir`, which is started in a folder with `files`."""
    files: Mapping[str, str]
    """Text of each file, by its name."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment of the job and all its workers; the dashboard shows it."""

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata that tells this job from others on the cluster."""
        files = json.dumps(dict(self.files), sort_keys=True).encode()
        return {
            _NAME: self.name,
            _FILES: hashlib.sha256(files).hexdigest()[:16],
            _ARGUMENTS: shlex.join(self.arguments),
        }


def submit(job: Job, address: str) -> int:
    """Submit `job`, or attach to the one of that name that is still running, and follow it to its end.

    Prints the lines of its log, those of errors on stderr. Returns the exit code that the command has when it runs
    here: 0, 1 or 2; 1 too for a job that was stopped or killed, and 130 where the user stops following.
    """
    with _translated_errors(address):
        client = _connect(address)
        submission_id, sentence = _submit_or_attach(client, job, address)
    try:
        print(sentence, flush=True)
        return exit_code(follow(client, submission_id, address), submission_id)
    except (KeyboardInterrupt, Stopped) as error:
        print(
            f"\n{submission_id} goes on without this terminal. To follow it again, run the same command, or\n"
            f"  {_ray_job('logs', address, '--follow', submission_id)}\nTo stop it, run\n"
            f"  {_ray_job('stop', address, submission_id)}",
            file=sys.stderr,
        )
        return int(str(error.code)) if isinstance(error, Stopped) else 130


def passed_on(address: str) -> dict[str, str]:
    """The environment of a job for the cluster at `address`: addresses from this process's, never credentials."""
    passed = dict(_FIXED_ENVIRONMENT)
    for name in PASSED_ON:
        value = os.environ.get(name)
        if not value:
            continue
        check_shareable(name, value)
        if is_loopback(value) and not is_loopback(address):
            print(
                f"{name} = {value} is this machine's own: the job takes that of the cluster's nodes",
                file=sys.stderr,
            )
            continue
        passed[name] = value
    return passed


def check_shared_paths(places: Iterable[tuple[str, str]]) -> None:
    """Raise `UserError` for a path that a cluster does not have; places: (setting, path or URI) of each."""
    for name, place in places:
        if "://" not in place and not place.startswith(("/", "models:/")):
            raise UserError(
                f"{name} = {place} is a path of this folder, which a cluster does not have: give s3://bucket/path "
                "or an absolute path that all its nodes share"
            )


def check_shareable(name: str, value: str) -> None:
    """Raise `UserError` for an address with a password in it: the dashboard shows whatever is sent with a job."""
    if "@" in urlsplit(value).netloc:
        raise UserError(
            f"{name} holds a password, which would be shown with the job: take it out, and give it to the nodes "
            "of the cluster in their own environment"
        )


def is_loopback(url: str) -> bool:
    """Whether only this machine can reach `url`."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def build_package(folder: Path, files: Mapping[str, str]) -> tuple[int, int]:
    """Put our two packages and `files` into `folder`, which Ray puts on every worker's path; (files, bytes)."""
    for package in (Path(diffuir_core.__file__).parent, Path(__file__).parents[1]):
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def _connect(address: str) -> Any:
    """A `JobSubmissionClient` of the job server at `address`."""
    _check_address(address)
    from ray.job_submission import JobSubmissionClient

    for name in JOB_CLIENT_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        headers = json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}")
    except ValueError as error:
        raise UserError('RAY_JOB_HEADERS is not JSON: write {"name": "value"}') from error
    with _no_other_address(address):
        return JobSubmissionClient(address, headers=headers)


@contextmanager
def _translated_errors(address: str) -> Iterator[None]:
    """Turns errors of Ray's client into a `UserError`."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise UserError(
            f"the cluster at {address} wants credentials: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to its token"
        ) from error
    except (ConnectionError, requests.RequestException, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{address} is not a Ray job server ({reason}): give --address of the cluster's dashboard, "
            "http://HEAD:8265"
        ) from error


def _check_address(address: str) -> None:
    """Raise `UserError` where nothing answers at `address`: Ray's client would wait minutes for a silent host."""
    parts = urlsplit(address)
    if "@" in parts.netloc:
        raise UserError("--address holds a password, which would be printed: set RAY_JOB_HEADERS instead")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=SECONDS_TO_CONNECT):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"nothing answers at {address} ({reason}): give --address of the cluster's dashboard, http://HEAD:8265"
        ) from error


@contextmanager
def _no_other_address(address: str) -> Iterator[None]:
    """Makes Ray's client take the address that it is given, and none of the environment."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _submit_or_attach(client: Any, job: Job, address: str) -> tuple[str, str]:
    """Return the submission id of the job, and a sentence for the user."""
    while True:
        jobs = [details for details in client.list_jobs() if details.submission_id]
        for running in jobs:
            if (running.metadata or {}).get(_NAME) == job.name and not running.status.is_terminal():
                _check_same(job, running, address)
                submission_id = running.submission_id
                return submission_id, f"{submission_id} is running at {address}: attached to it"
        submission_id = _free_id(job.name, {details.submission_id for details in jobs})
        if _submit(client, job, submission_id, address):
            return submission_id, f"submitted {submission_id} to {address}; Ctrl-C leaves it running"


def _check_same(job: Job, running: Any, address: str) -> None:
    """Raise `UserError` where the running job is not the one that is asked for."""
    other_files = running.metadata.get(_FILES) != job.metadata[_FILES]
    if other_files or not set(job.arguments) <= set(shlex.split(running.metadata.get(_ARGUMENTS, ""))):
        raise UserError(
            f"{running.submission_id} is running at {address} with other settings: take another name, or stop it "
            f"with `{_ray_job('stop', address, running.submission_id)}`"
        )


def _free_id(name: str, taken: set[str]) -> str:
    number = 1
    while (submission_id := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return submission_id


def _submit(client: Any, job: Job, submission_id: str, address: str) -> bool:
    """Submit the job under that id; return False where somebody else has just taken the id."""
    with tempfile.TemporaryDirectory(prefix="diffuir-") as folder:
        count, size = build_package(Path(folder), job.files)
        print(f"package: {count} files, {size / 1e6:.1f} MB", flush=True)
        try:
            client.submit_job(
                # `python` is that of the cluster's nodes; -m finds the package in the folder that it starts in.
                entrypoint=f"python -m diffuir_platform.cli {shlex.join(job.arguments)}",
                submission_id=submission_id,
                runtime_env={"working_dir": folder, "env_vars": dict(job.environment)},
                metadata=job.metadata,
            )
        except (RuntimeError, ValueError) as error:
            if "already exists" in str(error):
                return False
            reason = " ".join(str(error).split())[-300:]
            raise UserError(
                f"the cluster at {address} did not take the job ({reason}): see its dashboard"
            ) from error
    return True


def _ray_job(action: str, address: str, *arguments: str) -> str:
    return shlex.join(["ray", "job", action, "--address", address, *arguments])
