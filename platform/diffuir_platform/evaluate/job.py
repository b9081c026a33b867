"""An evaluation as a job of a Ray cluster."""

from __future__ import annotations

import re

from diffuir_core.errors import UserError

from .. import storage
from ..config import to_overrides
from ..runtime.submission import Job, check_shareable, check_shared_paths, passed_on, submit
from .settings import EvaluateSettings

PLACES = ("pairs", "data", "weights", "out", "niqe", "il_niqe", "lpips_backbone", "lpips_linear")
"""Settings that name files."""


def submit_evaluation(settings: EvaluateSettings, address: str) -> int:
    """Evaluate on the cluster whose job server is at `address`, http://HEAD:8265, and return the exit code.

    Raises `UserError` where this cannot work: no --out, paths of this machine only, a server that does not answer.
    """
    return submit(evaluation_job(settings, address), address)


def evaluation_job(settings: EvaluateSettings, address: str) -> Job:
    """The job that is submitted; raises `UserError` for paths of this machine only, and without --out."""
    if settings.out is None:
        raise UserError(
            "on a cluster the results would be lost: give --out, a folder that all its nodes share"
        )
    check_shared_paths((n, str(getattr(settings, n))) for n in PLACES if getattr(settings, n) is not None)
    check_shareable("tracking_uri", settings.tracking_uri or "")
    # A job joins the cluster that runs it.
    settings = settings.model_copy(update={"address": None})
    return Job(
        name="evaluate-"
        + re.sub(r"[^A-Za-z0-9]+", "-", storage.absolute(str(settings.out))).strip("-")[-80:],
        arguments=("evaluate", *to_overrides(settings)),
        files={},
        environment=passed_on(address),
    )
