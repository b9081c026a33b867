"""A sweep as one job of a Ray cluster, where its driver and all of its runs are."""

from __future__ import annotations

from ..config import to_yaml
from ..runtime.submission import Job, submit
from ..train.job import settings_on_cluster, training_environment
from .settings import SweepConfig

SWEEP_CONFIG_FILE = "sweep.yaml"
"""Name of the job's config in the folder that it starts in."""


def submit_sweep(config: SweepConfig, address: str) -> int:
    """Sweep on the cluster whose job server is at `address`, as `submit_training` trains on it."""
    return submit(sweep_job(config, address), address)


def sweep_job(config: SweepConfig, address: str) -> Job:
    """The job that sweeps; raises `UserError` for settings of any of its runs that mean this machine only."""
    for point in config.points():
        settings_on_cluster(point.config, address)
    common = settings_on_cluster(config.train, address)
    return Job(
        name=f"sweep-{config.name}",
        arguments=("sweep", SWEEP_CONFIG_FILE),
        files={SWEEP_CONFIG_FILE: to_yaml(config.model_copy(update={"train": common}))},
        environment=training_environment(address),
    )
