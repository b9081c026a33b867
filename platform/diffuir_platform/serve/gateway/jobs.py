"""Restores of many or large photos by URI: `diffuir restore` as a job of the cluster that runs the endpoint.

Ray's own job server runs and remembers them, so they outlive every process of the endpoint. A job may read and
write only below the folders of `jobs_under`, and only the API key that sent it can see it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import ray

from diffuir_core import UserError

from ... import storage
from ...config import to_overrides
from ...inference import SETTINGS_OF_DIFFUIR, RestorerName
from ...restore.names import LIST_SUFFIXES, REPORT_FILE
from ...restore.settings import RestoreJob
from ...runtime import WORKER_ENVIRONMENT
from ...runtime.private import job_server_url
from ..catalogue import Catalogue
from ..problems import Problem
from ..schemas import JobInfo, JobProgress, JobRequest, Parameters, Status
from ..settings import ServeSettings
from .access import KEYS, KEYS_FILE

SOURCE, TARGET, KEY = "diffuir.serve.source", "diffuir.serve.target", "diffuir.serve.key"
"""Keys of a job's metadata: what it restores, where to, and the name of the API key that sent it."""
REQUESTS_FOLDER = f"{storage.OWN_FOLDER}/requests"
"""Folder in the target with the list and the progress of each job."""
MAX_URI = 4096
"""Longest URI, characters."""
SECONDS_TO_ANSWER = 20.0
"""Longest wait for an answer of Ray's job server, seconds."""
_INHERITED = ("working_dir", "py_modules", "pip", "env_vars")
"""Fields of this process's runtime environment that jobs get too."""
_LIST_SUFFIXES = (*LIST_SUFFIXES, ".parquet")
_WILDCARDS = "*?["
_STATUSES: dict[str, Status] = {"PENDING": "pending", "RUNNING": "running", "STOPPED": "cancelled"}
_UNDER_WAY = ("pending", "running")
_NO_AGENT_YET = "try again later"
"""Part of the job server's error while the cluster starts, "No available agent to submit job"."""
_ID = re.compile("diffuir-[0-9a-f]{32}")

T = TypeVar("T")


class Jobs:
    """Submits, describes and stops jobs; every method raises `Problem` for an error of the request."""

    def __init__(self, settings: ServeSettings, catalogue: Catalogue) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._roots = [_resolved(storage.absolute(root)) for root in settings.jobs_under]
        self._client: Any = None
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="diffuir-jobs")
        self._starting: set[str] = set()

    async def submit(self, request: JobRequest, key: str) -> JobInfo:
        """Start a job and return its state."""
        if not self._roots:
            raise Problem(403, "jobs", "this server runs no jobs: its operator has to set jobs_under")
        weights, steps = self._weights(request.model), self._steps(request.steps)
        check_effect(request, self._catalogue)
        await self._check_room()
        job_id = f"diffuir-{uuid.uuid4().hex}"
        self._starting.add(job_id)
        try:
            await self._start(request, job_id, weights, steps, key)
        finally:
            self._starting.discard(job_id)
        return await self.get(job_id, key)

    async def _start(
        self, request: JobRequest, job_id: str, weights: str | None, steps: int, key: str
    ) -> None:
        # In a thread: every link of every path is resolved, and there may be millions.
        sources, target = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._checked_paths, request
        )
        source = (
            sources[0] if isinstance(request.source, str) else await self._write_list(sources, target, job_id)
        )
        restorer = self._catalogue.restorer
        model: dict[str, Any] = {"weights": weights, "steps": steps, "precision": self._settings.precision}
        if restorer is not None:
            model = {"weights": weights} if RestorerName.parse(restorer).kind == "factory" else {}
        job = RestoreJob(
            source=source,
            target=target,
            restorer=restorer,
            device=self._settings.device,
            progress_file=_progress_file(target, job_id),
            **model,
            **request.model_dump(exclude={"source", "target", "model", "steps"}),
        )
        # Where several clusters run on one machine, Ray may lead a job to any of them.
        cluster = f"RAY_ADDRESS={ray.get_runtime_context().gcs_address}"
        program = (sys.executable, "-m", "diffuir_platform.cli")
        command = ["env", cluster, *program, "restore", *to_overrides(job)]
        summary = source if isinstance(request.source, str) else f"{len(sources)} photos"
        await self._ask(
            lambda client: client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=job_id,
                runtime_env=_environment(),
                metadata={SOURCE: summary, TARGET: target, KEY: key},
            )
        )

    async def get(self, job_id: str, key: str) -> JobInfo:
        """The state of a job: its progress, and at its end the figures of its report."""
        details = await self._details(job_id, key)
        job = JobInfo(
            id=job_id,
            status=_status(details),
            source=details.metadata[SOURCE],
            target=details.metadata[TARGET],
            submitted=_time(details.start_time),
            ended=_time(details.end_time),
        )
        if job.status != "pending":
            job.progress = await asyncio.to_thread(_progress, job.target, job_id)
        if job.status in ("done", "done-but-some-failed"):
            job.report = await asyncio.to_thread(_report, job.target)
        return job

    async def cancel(self, job_id: str, key: str) -> JobInfo:
        """Stop a job; the same request sent again goes on where it stopped."""
        await self._details(job_id, key)
        await self._ask(lambda client: client.stop_job(job_id))
        return await self.get(job_id, key)

    def _checked_paths(self, request: JobRequest) -> tuple[list[str], str]:
        """The absolute URIs of the sources, and of the target folder with a slash at its end.

        Without that slash the target of one photo would be the file of its result.
        """
        given = [request.source] if isinstance(request.source, str) else request.source
        target = self._checked(request.target, "target").rstrip("/") + "/"
        return [self._checked(source, "source") for source in given], target

    def _checked(self, uri: str, name: str) -> str:
        """The absolute URI of `uri`; raises `Problem` where it is not below one of the server's folders.

        The job gets exactly the URI that is checked here, because its process may run in another folder.
        """
        if len(uri) > MAX_URI:
            raise Problem(422, name, f"{name}: a URI has up to {MAX_URI:,} characters")
        if uri != uri.strip() or "\0" in uri or ".." in uri.split("/"):
            raise Problem(403, name, f"{name}: '..' and spaces at the ends are not allowed")
        try:
            absolute = storage.absolute(uri)
        except (UserError, ValueError) as error:
            raise Problem(422, name, f"{name}: {error}") from error
        # Resolved both as a pattern and as a path: a file whose name has wildcards is found by its name.
        resolved = {absolute} if "://" in absolute else {_resolved(absolute), os.path.realpath(absolute)}
        if name == "source" and any(one.lower().endswith(_LIST_SUFFIXES) for one in {absolute, *resolved}):
            raise Problem(422, "source", "source: list files are not allowed: send the URIs as a JSON list")
        if not all(self._is_below(one) for one in resolved):
            raise Problem(403, name, f"{name}: it is not below a folder that this server may use")
        return absolute + "/" * uri.endswith("/")  # the slash makes it a folder

    def _is_below(self, path: str) -> bool:
        return any(path == root or path.startswith(root.rstrip("/") + "/") for root in self._roots)

    async def _check_room(self) -> None:
        """Raise `Problem` where as many jobs run or wait as the settings allow."""
        jobs = await self._ask(lambda client: client.list_jobs())
        ours = (job for job in jobs if SOURCE in (job.metadata or {}) and _status(job) in _UNDER_WAY)
        under_way = len({job.submission_id for job in ours} | self._starting)
        if under_way >= self._settings.max_jobs:
            detail = f"{under_way} jobs run or wait, the most that this server allows: send it again later"
            raise Problem(503, "busy-jobs", detail, 60)

    def _weights(self, model: str | None) -> str | None:
        name = model or self._settings.default_model
        if name not in self._catalogue:
            raise Problem(
                422, "model", f"there is no model of that name: use one of {', '.join(self._catalogue)}"
            )
        return self._catalogue[name].uri

    def _steps(self, steps: int | None) -> int:
        most = self._settings.most_steps
        if steps is not None and steps > most:
            raise Problem(422, "parameter", f"steps: this server allows up to {most}")
        return steps or self._settings.steps

    async def _write_list(self, sources: Sequence[str], target: str, job_id: str) -> str:
        """Write the sources into a list file in the target's own folder, and return its URI."""
        if not sources or any("\n" in uri or "\r" in uri for uri in sources):
            raise Problem(422, "source", "source: send at least one URI, and none with line breaks")
        uri = storage.join(target, f"{REQUESTS_FOLDER}/{job_id}.txt")
        try:
            await asyncio.to_thread(storage.write_bytes, uri, "\n".join(sources).encode())
        except UserError as error:
            raise Problem(422, "target", f"target: {error}") from error
        return uri

    async def _details(self, job_id: str, key: str) -> Any:
        """Ray's details of a job that this key sent; raises `Problem` 404 for any other."""
        details = None
        if _ID.fullmatch(job_id):  # Ray's client puts it into a path
            with suppress(RuntimeError):
                details = await self._ask(lambda client: client.get_job_info(job_id))
        if details is None or (details.metadata or {}).get(KEY) != key or SOURCE not in details.metadata:
            raise Problem(404, "job", "there is no job with this id")
        return details

    async def _ask(self, ask: Callable[[Any], T]) -> T:
        """Call Ray's job server through its client, which blocks, in a thread; raises `Problem` 503."""

        def call() -> T:
            from ray.job_submission import JobSubmissionClient

            if self._client is None:
                self._client = JobSubmissionClient(job_server_url(ray.get_runtime_context().gcs_address))
            return ask(self._client)

        try:
            # Ray's client has no timeout; these threads are for it alone, so that nothing else waits with it.
            async with asyncio.timeout(SECONDS_TO_ANSWER):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except (ConnectionError, TimeoutError) as error:
            detail = "the cluster's job server does not answer: its head has to run with the dashboard"
            raise Problem(503, "jobs", detail, 10) from error
        except RuntimeError as error:
            if _NO_AGENT_YET not in str(error):
                raise
            raise Problem(503, "jobs", "the job server is not ready yet: send it again", 5) from error


def check_effect(parameters: Parameters, catalogue: Catalogue) -> None:
    """Raise `Problem` 422 for a parameter of DiffUIR where the models have another restorer."""
    if catalogue.restorer is None:
        return
    for name in sorted(parameters.model_fields_set & set(SETTINGS_OF_DIFFUIR)):
        raise Problem(
            422, "parameter", f"{name}: it has no effect on {catalogue.restorer_title}: leave it out"
        )


def _resolved(path: str) -> str:
    """A local path with its links resolved up to its first wildcard; a URI unchanged."""
    if "://" in path:
        return path
    plain = next((i for i, letter in enumerate(path) if letter in _WILDCARDS), len(path))
    folder, rest = path[:plain], path[plain:]
    return os.path.realpath(folder) + ("/" if rest and folder.endswith("/") else "") + rest


def _environment() -> dict[str, Any]:
    """The runtime environment of a job: the code that this process runs, without the API keys."""
    own = dict(ray.get_runtime_context().runtime_env)
    kept = {name: own[name] for name in _INHERITED if name in own}
    variables = {
        name: value for name, value in kept.get("env_vars", {}).items() if name not in (KEYS, KEYS_FILE)
    }
    return {**kept, "env_vars": {**variables, **WORKER_ENVIRONMENT}}


def _status(info: Any) -> Status:
    """The status of a job, from Ray's and the exit code of `diffuir restore`."""
    if info.status == "SUCCEEDED":
        return "done"
    if info.status == "FAILED" and info.driver_exit_code == 1:
        return "done-but-some-failed"
    return _STATUSES.get(str(info.status), "failed")


def _progress_file(target: str, job_id: str) -> str:
    return storage.join(target, f"{REQUESTS_FOLDER}/{job_id}.json")


def _progress(target: str, job_id: str) -> JobProgress | None:
    """The progress that a job has written; None where it has not written any yet, or it cannot be read."""
    try:
        return JobProgress.model_validate_json(storage.read_bytes(_progress_file(target, job_id)))
    except (UserError, ValueError):
        return None


def _time(milliseconds: int | None) -> str | None:
    """A time of Ray's as ISO 8601 in UTC."""
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _report(target: str) -> dict[str, Any] | None:
    """The parts of report.json that the API shows; None for a single photo, which has none."""
    try:
        report = json.loads(storage.read_bytes(storage.join(target, f"{storage.OWN_FOLDER}/{REPORT_FILE}")))
    except (UserError, ValueError):
        return None
    return {name: report[name] for name in ("run", "output_holds", "failed") if name in report}
