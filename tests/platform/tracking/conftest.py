from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from diffuir_platform.tracking import Tracker, open_run
from support.mlflow_server import Start
from support.ports import free_port


@pytest.fixture(scope="module")
def database(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    shutil.copyfile(empty, file)
    return f"sqlite:///{file}"


@pytest.fixture
def nobody() -> str:
    """Address that nothing listens at."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def start(database: str, tmp_path: Path) -> Start:
    """Function that opens a run in SQLite, or resumes one as a new process would."""

    def start(
        run_id: str | None = None, uri: str = database, experiment: str = "test", **options: str
    ) -> Tracker:
        spool = tmp_path / "spool"
        return open_run(uri, experiment, "run", run_id, tmp_path / "artifacts", spool=spool, **options)

    return start
