"""The command `diffuir sweep`."""

from __future__ import annotations

from ..command_line import SettingsCommand, Shortcut
from ..runtime import cluster_address, takes_jobs
from ..train.settings import TrainConfig
from .settings import SweepConfig


def _sweep(config: SweepConfig) -> int:
    """Train a model for every point of a grid, and make a table and a plot of what they reach.

    The same command again trains what is missing. Exit code 1: some runs failed and are named.
    """
    address = cluster_address(config.train.address)
    if address is not None and takes_jobs(address):
        from .job import submit_sweep

        return submit_sweep(config, address)
    from .run import run_sweep

    common = config.train.model_copy(update={"address": address})
    return run_sweep(config.model_copy(update={"train": common}))


sweep_command = SettingsCommand(
    _sweep,
    SweepConfig,
    takes_file=True,
    shortcuts={
        "address": Shortcut(key="train.address", help=str(TrainConfig.model_fields["address"].description))
    },
)
