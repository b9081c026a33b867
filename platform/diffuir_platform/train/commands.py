"""The command `diffuir train`."""

from __future__ import annotations

from ..command_line import SettingsCommand
from ..config import Config
from ..runtime import cluster_address, takes_jobs
from .settings import TrainConfig


class TrainModes(Config):
    """Treatment of an earlier run of the same name."""

    overwrite: bool = False
    """Begin anew where a run of that name exists, instead of resuming it."""


def _train(config: TrainConfig, modes: TrainModes) -> int:
    """Train a model, or resume the run of that name from its last checkpoint.

    Without CONFIG, with the published recipe. The exported weights are NAME/weights.safetensors in the storage.
    """
    address = cluster_address(config.address)
    if address is not None and takes_jobs(address):
        from .job import submit_training

        return submit_training(config, modes.overwrite, address)
    from .run import train
    from .stopping import StoppedEarly

    try:
        train(config.model_copy(update={"address": address}), modes.overwrite)
    except StoppedEarly as stopped:
        print(stopped)
        return stopped.exit_code
    return 0


train_command = SettingsCommand(_train, TrainConfig, takes_file=True, modes=TrainModes)
