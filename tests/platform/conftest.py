from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from diffuir_core import Schedule, build, save_weights
from diffuir_platform.runtime import Resources, ray_session
from diffuir_platform.train import train
from support.album import make_album
from support.mlflow_server import Server
from support.small_run import config
from support.store import Store, environment, new_bucket


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiffUIR-T that has learned nothing, for tests that only need its arithmetic."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "t.safetensors"
    save_weights(path, build("T"), Schedule.release())
    return path


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything in it that people's folders have."""
    folder = tmp_path_factory.mktemp("album")
    make_album(folder)
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3 server for all tests of the session."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket, with an environment that leads to it."""
    for name, value in environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return new_bucket(s3_endpoint)


@pytest.fixture(scope="session")
def ray(s3_endpoint: str) -> Iterator[Resources]:
    """A local Ray for all tests of the session, which the code under test finds running and leaves so."""
    with ExitStack() as stack:
        # Only while it starts: what its processes have in their environment, tests must not find in theirs.
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment(s3_endpoint).items():
                patch.setenv(name, value)
            resources = stack.enter_context(ray_session(data=True))
        yield resources


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Database with MLflow's tables, which take seconds to make."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def server(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server; a test that kills it starts it again."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty, folder / "server.db")
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def runs(empty: Path, tmp_path: Path) -> Path:
    """Storage for runs that holds MLflow's tables and nothing else."""
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copyfile(empty, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten smooth coloured pictures."""
    folder = tmp_path_factory.mktemp("clean")
    for seed in range(10):
        small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="session")
def finished(photos: Path, empty: Path, tmp_path_factory: pytest.TempPathFactory, ray: object) -> Path:
    """The storage of a run that nothing disturbed."""
    storage = tmp_path_factory.mktemp("runs")
    shutil.copyfile(empty, storage / "mlflow.db")
    train(config(photos, storage, panels_every=4))
    return storage
