"""The jobs of the endpoint, before a job server that only remembers what it was asked."""

from __future__ import annotations

import asyncio
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from diffuir_platform.restore.summary import Summary
from diffuir_platform.serve import ServeSettings
from diffuir_platform.serve.api.error_handlers import sentence
from diffuir_platform.serve.catalogue import Catalogue, ModelEntry
from diffuir_platform.serve.gateway import jobs
from diffuir_platform.serve.gateway.jobs import Jobs
from diffuir_platform.serve.problems import Problem
from diffuir_platform.serve.schemas import JobRequest

RAYS_OWN = """\
2026-11-26 12:00:00,000\tINFO job_manager.py:568 -- Running entrypoint for job diffuir-1: env \
RAY_ADDRESS=10.0.0.7:6379 /srv/venv/bin/python -m diffuir_platform.cli restore -- /photos/in /photos/out/
"""
STACK = """\
*** SIGTERM received at time=1764158400 on cpu 1 ***
PC: @     0x7f0000000000  (unknown)  epoll_wait
    @     0x7f0000000001         64  (unknown)
[2026-11-26 12:00:00,000 E 7 7] logging.cc:474:     @     0x7f0000000001  (unknown)
"""
TRACE = """\
Traceback (most recent call last):
  File "/srv/venv/lib/python3.11/site-packages/diffuir_platform/cli.py", line 3, in main
    raise ValueError
ValueError: /srv/venv
"""
PROGRESS = "1,200 of 5,000+ photos, 3 failed, 0 skipped, 9.10 images/s, 1.20 Mpx/s\n"


@dataclass
class JobServer:
    """Ray's client, as `Jobs` uses it. `log`: of every job."""

    log: str = ""
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

    def get_job_logs(self, job_id: str) -> str:
        return self.log

    @property
    def restored(self) -> tuple[str, str]:
        """Source and target of the one command that was submitted."""
        (job,) = self.known.values()
        return tuple(job.entrypoint[-2:])  # type: ignore[return-value]


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
    made._known_client = server
    return made


def refusal(made: Jobs, **request: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        asyncio.run(made.submit(JobRequest(**request), ""))
    return refused.value


@pytest.mark.parametrize("ending", ["", "/"])
def test_the_target_of_one_photo_is_a_folder(folder: Path, server: JobServer, ending: str) -> None:
    request = JobRequest(source=str(folder / "a.png"), target=f"{folder}/out{ending}")
    shown = asyncio.run(jobs_of(folder, server).submit(request, ""))
    assert server.restored == (str(folder / "a.png"), f"{folder}/out/")
    assert shown.target == f"{folder}/out/"


def test_many_long_paths_leave_other_requests_their_turn(folder: Path, server: JobServer) -> None:
    """Each part of a path is looked up: these take seconds."""
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
    assert sentence(error.value.errors()[0]) == "source: give a string or a list of strings"


def summary(failed: int) -> str:
    """What `diffuir restore` prints at its end."""
    done = Summary(
        "/photos/out", done=3, failures=failed, failed={f"{i}.png": "cut off" for i in range(failed)}
    )
    return "\n".join(done.lines()) + "\n"


@pytest.mark.parametrize(
    ("log", "progress"),
    [
        ("", None),
        (RAYS_OWN, None),
        (RAYS_OWN + STACK, None),
        (RAYS_OWN + TRACE, None),
        (RAYS_OWN + PROGRESS, PROGRESS.strip()),
        (RAYS_OWN + PROGRESS + STACK, PROGRESS.strip()),
        (
            RAYS_OWN + "error: it has no photos: name a folder\n" + STACK,
            "error: it has no photos: name a folder",
        ),
        (RAYS_OWN + PROGRESS + summary(0), "restored 3 of 3 photos into /photos/out (0.0 s)"),
        (RAYS_OWN + PROGRESS + summary(2), "failed: 2 0.png: cut off"),
    ],
    ids=[
        "nothing",
        "start",
        "cancelled",
        "crashed",
        "under way",
        "stopped",
        "refused",
        "done",
        "some failed",
    ],
)
def test_progress_shows_nothing_of_the_machine(
    folder: Path, server: JobServer, log: str, progress: str | None
) -> None:
    server.log = log
    request = JobRequest(source=str(folder / "a.png"), target=f"{folder}/out")
    shown = asyncio.run(jobs_of(folder, server).submit(request, ""))
    assert shown.status == "running"
    assert shown.progress == progress
