"""A restore as a job of a Ray cluster."""

from __future__ import annotations

import re

from .. import storage
from ..config import to_overrides
from ..inference import RestorerName
from ..runtime.submission import Job, check_shared_paths, passed_on, submit
from .settings import RestoreJob


def submit_restore(job: RestoreJob, address: str) -> int:
    """Restore on the cluster whose job server is at `address`, http://HEAD:8265, and return the exit code.

    Raises `UserError` where this cannot work: paths of this machine only, a server that does not answer, a restore
    into the same output with other settings that is still running.
    """
    return submit(restore_job(job, address), address)


def restore_job(job: RestoreJob, address: str) -> Job:
    """The job that is submitted; raises `UserError` for paths of this machine only."""
    places = {"source": job.source, "target": job.target, "weights": job.weights}
    places["progress_file"] = job.progress_file
    places["restorer"] = None if job.restorer is None else RestorerName.parse(job.restorer).place
    check_shared_paths((name, place) for name, place in places.items() if place is not None)
    # A job joins the cluster that runs it.
    settings = job.model_copy(update={"address": None})
    return Job(
        name="restore-" + re.sub(r"[^A-Za-z0-9]+", "-", storage.absolute(job.target)).strip("-")[-80:],
        arguments=("restore", *to_overrides(settings)),
        files={},
        environment=passed_on(address),
    )
