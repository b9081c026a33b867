"""A restore as a job of a Ray cluster: what is submitted, and its settings as YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diffuir_core.errors import UserError

from .. import storage
from ..runtime.submission import Job, passed_on, submit
from .settings import RestoreOptions


class RestoreJob(RestoreOptions):
    """The settings of `jobs/restore.yaml`: what is restored, and how."""

    source: str
    """IN of `diffuir restore`."""
    target: str
    """OUT of `diffuir restore`."""
    restart: bool = False
    """Begin anew, whatever an earlier run left in OUT."""
    retry_failed: bool = False
    """Try only what failed before, once more."""


def submit_restore(job: RestoreJob, address: str) -> int:
    """Restore on the cluster whose job server is at `address`, http://HEAD:8265, and return the exit code.

    Raises `UserError` where nothing can come of it: paths that mean this machine only, a server that does not
    answer, a restore into the same output with other settings that is still going on.
    """
    return submit(restore_job(job, address), address)


def restore_job(job: RestoreJob, address: str) -> Job:
    """The job; raises `UserError` for paths that mean this machine only."""
    for name, place in (("IN", job.source), ("OUT", job.target), ("--weights", job.weights or "/")):
        if ":/" not in place and not place.startswith("/"):
            raise UserError(
                f"{name} is {place}, a path of this folder, which a cluster does not have: give s3://bucket/path "
                "or an absolute path that all its nodes share"
            )
    return Job(
        name="restore-" + re.sub(r"[^A-Za-z0-9]+", "-", storage.absolute(job.target)).strip("-")[-80:],
        arguments=("restore", *arguments_of(job)),
        files={},
        environment=passed_on(address),
    )


def arguments_of(job: RestoreJob) -> Iterator[str]:
    """As the command line takes them; what is the default is left out, and the cluster is the job's own."""
    options = job.model_dump(mode="json", exclude={"source", "target", "address"}, exclude_defaults=True)
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            yield flag
        else:
            for one in value if isinstance(value, list) else [value]:
                yield from (flag, str(one))
    yield from ("--", job.source, job.target)
