"""`diffuir train --address http://...` and `jobs/train.py`, on a Ray head and a worker with a store and MLflow."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image
from ray.job_submission import JobStatus, JobSubmissionClient

from diffuir_core import UserError
from diffuir_platform.runtime.submission import Job, build_package, submit
from support.paths import ROOT

SERVER = "http://127.0.0.1:8265"


def local(command: str, folder: Path, *options: str) -> str:
    command_line = [ROOT / "cluster" / "local.sh", command, "--folder", folder, *options]
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that leads to it."""
    folder = tmp_path_factory.mktemp("cluster")
    try:
        lines = local("up", folder, "--workers", "1", "--store", "moto").splitlines()
        yield dict(shlex.split(line)[1].split("=", 1) for line in lines)
    finally:
        local("down", folder)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of six steps on ten smooth pictures."""
    folder = tmp_path_factory.mktemp("job")
    for seed in range(10):
        small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        (folder / "clean").mkdir(exist_ok=True)
        Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC).save(
            folder / "clean" / f"{seed}.png"
        )
    settings = {
        "name": "tiny",
        "storage": "s3://diffuir/runs",
        "data": {"clean": [str(folder / "clean")]},
        "stages": [{"steps": 6, "crop": 16, "batch": 10}],
        "mixture": {"rain": 1.0},
        "log_every": 1,
        "checkpoint_every": 3,
        "panels_every": 6,
        "threads": 1,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(settings))
    return folder / "job.yaml"


def diffuir_train(cluster: dict[str, str], job: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command, started."""
    address = () if "--address" in arguments else ("--address", cluster["RAY_API_SERVER_ADDRESS"])
    return subprocess.Popen(
        [sys.executable, "-m", "diffuir_platform.cli", "train", str(job), *address, *arguments],
        env=os.environ | cluster,
        cwd=job.parent,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def lines_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if wanted in line:
            return lines
    raise AssertionError(
        f"{wanted!r} did not come: {lines} {process.stderr.read() if process.stderr else ''}"
    )


@pytest.mark.slow
def test_a_run_is_submitted_once_followed_twice_and_ends_with_its_weights(
    cluster: dict[str, str], job: Path
) -> None:
    first = diffuir_train(cluster, job)
    try:
        begun = lines_until(first, "submitted train-tiny ")
        assert any(line.startswith("package: ") for line in begun)
        second, third = diffuir_train(cluster, job), diffuir_train(cluster, job, "learning_rate=1e-3")
        lines_until(second, "train-tiny is running at")
        second.send_signal(signal.SIGINT)
        code, _, err = ended(second)
        assert code == 130
        assert "ray job stop --address" in err
        assert "ray job logs --address" in err
        code, _, err = ended(third)
        assert code == 2
        assert "other settings" in err
        assert len(err.strip().splitlines()) == 1
        code, out, err = ended(first)
        assert code == 0, out + err
        assert "step 6/6" in out
    finally:
        first.kill()

    client = JobSubmissionClient(cluster["RAY_API_SERVER_ADDRESS"])
    (details,) = client.list_jobs()
    assert details.status == JobStatus.SUCCEEDED
    shown = details.model_dump_json()
    assert cluster["AWS_ENDPOINT_URL"] in shown
    assert cluster["AWS_ACCESS_KEY_ID"] not in shown
    assert cluster["AWS_SECRET_ACCESS_KEY"] not in shown
    store = boto3.client(
        "s3",
        endpoint_url=cluster["AWS_ENDPOINT_URL"],
        region_name=cluster["AWS_DEFAULT_REGION"],
        aws_access_key_id=cluster["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=cluster["AWS_SECRET_ACCESS_KEY"],
    )
    assert store.head_object(Bucket="diffuir", Key="runs/tiny/weights.safetensors")["ContentLength"] > 1e6
    tracker = MlflowClient(cluster["MLFLOW_TRACKING_URI"])
    (run,) = tracker.search_runs([tracker.get_experiment_by_name("diffuir").experiment_id])
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_a_later_submission_of_the_same_name_gets_a_number(cluster: dict[str, str], job: Path) -> None:
    """After the test above the run is finished, and its job says so."""
    code, out, err = ended(diffuir_train(cluster, job))
    assert code == 0, err
    assert "submitted train-tiny-2 " in out
    assert "is finished" in out


@pytest.mark.slow
def test_data_that_the_cluster_does_not_have_are_named_with_exit_code_2(
    cluster: dict[str, str], job: Path
) -> None:
    code, _, err = ended(diffuir_train(cluster, job, "name=absent", "data.clean=[/not-there]"))
    assert code == 2
    assert "/not-there" in err
    assert len(err.strip().splitlines()) == 1


WHERE = """
import ray, diffuir_core, diffuir_platform
@ray.remote(num_cpus=1)
def where():
    import diffuir_core, diffuir_platform
    return diffuir_core.__file__, diffuir_platform.__file__
ray.init("auto", log_to_driver=False)
print("FOUND", diffuir_core.__file__, diffuir_platform.__file__, *ray.get(where.remote()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["package", "ray job submit"])
def test_the_driver_and_its_workers_run_the_code_that_was_uploaded(
    cluster: dict[str, str], tmp_path: Path, how: str
) -> None:
    if how == "package":
        build_package(tmp_path, {})
        runtime_env: dict[str, Any] = {"working_dir": str(tmp_path)}
    else:
        runtime_env = {
            "working_dir": str(ROOT),
            **yaml.safe_load((ROOT / "jobs" / "runtime-env.yaml").read_text()),
        }
    client = JobSubmissionClient(cluster["RAY_API_SERVER_ADDRESS"])
    job = client.submit_job(entrypoint=f"python -c {shlex.quote(WHERE)}", runtime_env=runtime_env)
    assert wait_for(client, job).status == JobStatus.SUCCEEDED, client.get_job_logs(job)
    (line,) = [line for line in client.get_job_logs(job).splitlines() if line.startswith("FOUND")]
    files = line.split()[1:]
    assert len(files) == 4
    assert all("working_dir_files" in file for file in files), files


def wait_for(client: JobSubmissionClient, job: str) -> Any:
    deadline = time.monotonic() + 150
    while not (details := client.get_job_info(job)).status.is_terminal():
        assert time.monotonic() < deadline, client.get_job_logs(job)
        time.sleep(0.5)
    return details


@pytest.mark.slow
def test_the_jobs_script_takes_what_the_command_takes(cluster: dict[str, str]) -> None:
    arguments = "jobs/train-quick.yaml data.clean=[/not-there] storage=s3://diffuir/runs"
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "job", "submit"]
    options = ["--address", cluster["RAY_API_SERVER_ADDRESS"], "--working-dir", ".", "--runtime-env"]
    job = ["jobs/runtime-env.yaml", "--submission-id", "by-hand", "--", "python", "jobs/train.py"]
    done = subprocess.run(
        [*command, *options, *job, *arguments.split()],
        env=os.environ | cluster,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1, done.stderr  # which is what `ray job submit` makes of any failure
    (error,) = {line for line in done.stdout.splitlines() if line.startswith("error: ")}
    assert "/not-there" in error
    details = JobSubmissionClient(cluster["RAY_API_SERVER_ADDRESS"]).get_job_info("by-hand")
    assert details.driver_exit_code == 2


def test_what_is_uploaded_holds_the_code_and_no_data(tmp_path: Path) -> None:
    count, size = build_package(tmp_path, {"train.yaml": "name: x\n"})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == count
    assert size == sum(path.stat().st_size for path in files) < 20e6
    assert {path.name for path in tmp_path.iterdir()} == {"diffuir_core", "diffuir_platform", "train.yaml"}
    assert list(tmp_path.glob("diffuir_core/pretrained/*.safetensors"))
    assert not list(tmp_path.rglob("__pycache__"))


def test_by_hand_too_only_the_code_and_the_configs_are_uploaded(tmp_path: Path) -> None:
    from zipfile import ZipFile

    from ray._private.runtime_env.packaging import create_package

    excludes = yaml.safe_load((ROOT / "jobs" / "runtime-env.yaml").read_text())["excludes"]
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True, include_parent_dir=False, excludes=excludes)
    names = ZipFile(package).namelist()
    assert {name.partition("/")[0] for name in names} == {"diffuir_core", "platform", "jobs"}
    assert {"jobs/train.py", "platform/diffuir_platform/cli.py"} <= set(names)
    assert [name for name in names if "__pycache__" in name or "/." in name] == []
    assert package.stat().st_size < 20e6


@contextmanager
def answering(code: int) -> Iterator[str]:
    """The address of a server that is no job server of ours, and answers everything with that status."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


NOTHING = Job(name="x", arguments=("train",), files={})


@pytest.mark.parametrize(
    ("code", "reason"),
    [(404, "is not a Ray job server"), (200, "is not a Ray job server"), (401, "RAY_AUTH_MODE=token")],
)
def test_a_server_that_is_none_of_ray_or_lets_nobody_in_is_one_sentence(code: int, reason: str) -> None:
    with answering(code) as address, pytest.raises(UserError, match=reason) as raised:
        submit(NOTHING, address)
    assert "\n" not in str(raised.value)
    assert address in str(raised.value)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:1", "nothing answers at"),
        ("http://127.0.0.1:none", "nothing answers at"),
        ("http://user:word@127.0.0.1:1", "RAY_JOB_HEADERS"),
    ],
)
def test_an_address_where_nobody_is_is_one_sentence(address: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as raised:
        submit(NOTHING, address)
    assert "\n" not in str(raised.value)
    assert "word" not in str(raised.value).replace("password", "")


def test_another_address_in_the_environment_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:2")
    with answering(401) as address, pytest.raises(UserError, match="wants credentials"):
        submit(NOTHING, address)


def test_the_command_says_so_with_exit_code_2(job: Path) -> None:
    tracker = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}
    for arguments, reason in (
        (["--address", "http://127.0.0.1:1"], "nothing answers"),
        (["--address", SERVER, "lerning_rate=1"], "learning_rate"),
    ):
        code, _, err = ended(diffuir_train(tracker, job, *arguments))
        assert code == 2
        assert reason in err
        assert len(err.strip().splitlines()) == 1
