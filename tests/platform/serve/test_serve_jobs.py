"""The jobs of the endpoint, with a job server that only records what it was sent."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from diffuir_core import UserError
from diffuir_platform.config import load_config
from diffuir_platform.restore import restore
from diffuir_platform.restore.progress import Counts, ProgressFile
from diffuir_platform.restore.settings import RestoreJob
from diffuir_platform.serve import ServeSettings
from diffuir_platform.serve.api.error_handlers import validation_message
from diffuir_platform.serve.catalogue import Catalogue, ModelEntry
from diffuir_platform.serve.gateway import jobs
from diffuir_platform.serve.gateway.jobs import Jobs
from diffuir_platform.serve.problems import Problem
from diffuir_platform.serve.schemas import JobRequest


@dataclass
class JobServer:
    """Ray's client, as `Jobs` uses it."""

    known: dict[str, Any] = field(default_factory=dict)

    def submit_job(self, *, entrypoint: str, submission_id: str, runtime_env: Any, metadata: Any) -> None:
        self.known[submission_id] = SimpleNamespace(
            submission_id=submission_id,
            entrypoint=shlex.split(entrypoint),
            metadata=metadata,
            status="RUNNING",
            driver_exit_code=None,
            start_time=1,
            end_time=None,
        )

    def list_jobs(self) -> list[Any]:
        return list(self.known.values())

    def get_job_info(self, job_id: str) -> Any:
        return self.known[job_id]

    @property
    def job(self) -> RestoreJob:
        """The settings of the one command that was submitted."""
        (job,) = self.known.values()
        return load_config(RestoreJob, None, job.entrypoint[job.entrypoint.index("restore") + 1 :])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"a photo")
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> JobServer:
    context = SimpleNamespace(gcs_address="10.0.0.7:6379", runtime_env={})
    monkeypatch.setattr(jobs.ray, "get_runtime_context", lambda: context)
    return JobServer()


def jobs_of(folder: Path, server: JobServer, **settings: Any) -> Jobs:
    entry = ModelEntry(None, "0" * 64, "T", 1)
    made = Jobs(ServeSettings(jobs_under=(str(folder),), **settings), Catalogue({"shipped": entry}, 1))
    made._client = server
    return made


def refusal(made: Jobs, **request: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        asyncio.run(made.submit(JobRequest(**request), ""))
    return refused.value


@pytest.mark.parametrize("ending", ["", "/"])
def test_the_target_of_one_photo_is_a_folder(folder: Path, server: JobServer, ending: str) -> None:
    request = JobRequest(source=str(folder / "a.png"), target=f"{folder}/out{ending}")
    shown = asyncio.run(jobs_of(folder, server).submit(request, ""))
    assert (server.job.source, server.job.target) == (str(folder / "a.png"), f"{folder}/out/")
    assert shown.target == f"{folder}/out/"


def test_many_long_paths_leave_other_requests_their_turn(folder: Path, server: JobServer) -> None:
    """Every part of a path is resolved: these take seconds."""
    sources = [f"{folder}{'/d' * 180}/{number}.png" for number in range(1500)]
    request = JobRequest(source=sources, target=f"{folder}/out")
    waits = [0.0]

    async def submitted() -> None:
        submitting = asyncio.create_task(jobs_of(folder, server).submit(request, ""))
        while not submitting.done():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            waits.append(time.perf_counter() - began)
        await submitting

    began = time.perf_counter()
    asyncio.run(submitted())
    assert len(server.known) == 1
    assert max(waits) < (time.perf_counter() - began) / 4


@pytest.mark.parametrize("name", ["source", "target"])
def test_a_uri_that_is_too_long_is_refused(folder: Path, server: JobServer, name: str) -> None:
    long = f"{folder}/{'a' * 4096}"
    request = {"source": [str(folder / "a.png")], "target": f"{folder}/out"}
    if name == "source":
        problem = refusal(jobs_of(folder, server), **{**request, "source": [long]})
        assert (problem.status, problem.kind) == (422, name)
        assert "4,096" in problem.detail
    with pytest.raises(ValueError, match="4096"):
        JobRequest(**{**request, "target": long})


def test_as_many_as_there_may_be_are_begun_though_they_come_at_once(folder: Path, server: JobServer) -> None:
    made = jobs_of(folder, server, max_jobs=2)
    request = JobRequest(source=str(folder / "a.png"), target=f"{folder}/out")

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(made.submit(request, "") for _ in range(6)), return_exceptions=True)

    refused = [one for one in asyncio.run(all_of_them()) if isinstance(one, Problem)]
    assert len(server.known) == 2
    assert [(one.kind, one.retry_after) for one in refused] == [("busy-jobs", 60)] * 4


def test_where_there_is_no_room_no_path_is_looked_at(folder: Path, server: JobServer) -> None:
    made = jobs_of(folder, server, max_jobs=1)
    asyncio.run(made.submit(JobRequest(source=str(folder / "a.png"), target=f"{folder}/out"), ""))
    assert refusal(made, source="/etc/passwd", target="/etc").kind == "busy-jobs"


@pytest.mark.parametrize(
    ("wrong", "kind"), [({"model": "none"}, "model"), ({"steps": 11}, "parameter")], ids=["model", "steps"]
)
def test_what_the_server_does_not_offer_is_refused_and_nothing_is_written(
    folder: Path, server: JobServer, wrong: dict[str, Any], kind: str
) -> None:
    problem = refusal(
        jobs_of(folder, server), source=[str(folder / "a.png")], target=f"{folder}/out", **wrong
    )
    assert (problem.status, problem.kind) == (422, kind)
    assert not (folder / "out").exists()
    assert server.known == {}


@pytest.mark.parametrize("source", [5, [1, 2], None, {"a": 1}])
def test_what_is_no_source_is_told_in_a_sentence(source: Any) -> None:
    with pytest.raises(ValidationError) as error:
        JobRequest.model_validate({"source": source, "target": "/out"})
    assert validation_message(error.value.errors()[0]) == "source: give a string or a list of strings"


def submitted(folder: Path, server: JobServer) -> tuple[Jobs, str]:
    """A job that is running, and its id."""
    made = jobs_of(folder, server)
    request = JobRequest(source=str(folder / "a.png"), target=f"{folder}/out")
    shown = asyncio.run(made.submit(request, ""))
    assert (shown.status, shown.progress) == ("running", None)
    return made, shown.id


COUNTS = Counts(done=1200, failed=3, listed=5000, images_per_second=9.1)


@pytest.mark.parametrize(
    "counts",
    [
        Counts(),
        COUNTS,
        replace(COUNTS, listing_ended=True, skipped=7),
        replace(COUNTS, error="IN has no photos: name a folder with photos"),
    ],
    ids=["start", "under way", "resumed", "ended"],
)
def test_progress_is_what_the_run_writes(folder: Path, server: JobServer, counts: Counts) -> None:
    made, job_id = submitted(folder, server)
    assert server.job.progress_file == f"{folder}/out/_diffuir/requests/{job_id}.json"
    place = Path(server.job.progress_file)
    with ProgressFile(str(place)) as file:
        file.follow(lambda: counts)
        if counts.error is not None:
            file.fail(counts.error)
    shown = asyncio.run(made.get(job_id, ""))
    assert shown.progress is not None
    assert shown.progress.model_dump() == asdict(counts)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"done": "many"}', b"\xff\xfe"])
def test_a_file_that_is_no_progress_shows_none(folder: Path, server: JobServer, content: bytes) -> None:
    made, job_id = submitted(folder, server)
    place = Path(str(server.job.progress_file))
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    assert asyncio.run(made.get(job_id, "")).progress is None


def test_a_job_that_could_not_start_tells_why(folder: Path, server: JobServer) -> None:
    """The exit code 2 of the command, which the client sees as a failed job with a sentence."""
    made, job_id = submitted(folder, server)
    (folder / "a.png").unlink()
    with pytest.raises(UserError) as raised:
        restore(server.job.source, server.job.target, progress_file=server.job.progress_file)
    server.known[job_id].status, server.known[job_id].driver_exit_code = "FAILED", 2
    shown = asyncio.run(made.get(job_id, ""))
    assert shown.status == "failed"
    assert shown.progress is not None
    assert shown.progress.error == str(raised.value)


def test_a_job_of_another_key_is_not_there(folder: Path, server: JobServer) -> None:
    made, job_id = submitted(folder, server)
    with pytest.raises(Problem) as refused:
        asyncio.run(made.get(job_id, "other"))
    assert (refused.value.status, refused.value.kind) == (404, "job")


def test_the_gateway_loads_no_ledger_and_no_torch() -> None:
    code = "import sys, diffuir_platform.serve.gateway; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    rooms = "diffuir_platform.restore"
    heavy = {
        "torch",
        "mlflow",
        *(f"{rooms}.{name}" for name in ("ledger", "report", "run", "job", "summary")),
    }
    assert heavy & set(done.stdout.split()) == set()
