"""A sweep as one job of a Ray cluster: its driver and all of its runs are there."""

from __future__ import annotations

import dataclasses

import yaml

from ..runtime.submission import Job, submit
from ..train.job import CONFIG_FILE, training_job
from .settings import SweepConfig

SWEEP_CONFIG_FILE = "sweep.yaml"


def submit_sweep(config: SweepConfig, address: str) -> int:
    """Sweep on the cluster whose job server is at `address`, as `submit_training` trains on it."""
    return submit(sweep_job(config, address), address)


def sweep_job(config: SweepConfig, address: str) -> Job:
    """The job that sweeps; raises `UserError` for settings of any of its runs that mean this machine only."""
    for point in config.points():
        training_job(point.config, False, address)
    job = training_job(config.train, False, address)
    common = yaml.safe_load(job.files[CONFIG_FILE])
    # Each run has its own.
    del common["name"]
    settings = {**config.model_dump(mode="json"), "train": common}
    return dataclasses.replace(
        job,
        name=f"sweep-{config.name}",
        arguments=("sweep", SWEEP_CONFIG_FILE),
        files={SWEEP_CONFIG_FILE: yaml.safe_dump(settings, sort_keys=False)},
    )
