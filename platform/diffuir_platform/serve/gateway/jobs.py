"""Restores of many or large photos, by URI: what `diffuir restore` does, as a job of the cluster that serves.

Ray's own job server runs and remembers them, so they outlive every process of the endpoint. A job may read and
write only below the folders that the server was told, and is shown only to the API key that sent it.
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
from ...restore.job import RestoreJob, arguments_of
from ...restore.names import LISTS, REPORT_FILE
from ...runtime import WORKER_ENVIRONMENT
from ..catalogue import Catalogue
from ..problems import Problem
from ..schemas import JobRequest, JobShown, Status
from ..settings import ServeSettings
from .access import KEYS, KEYS_FILE

SOURCE, TARGET, KEY = "diffuir.serve.source", "diffuir.serve.target", "diffuir.serve.key"
"""The keys of a job's metadata."""
_OF_THE_CODE = ("working_dir", "py_modules", "pip", "env_vars")
"""What a job takes over of this process's runtime environment."""
_TABLES = (*LISTS, ".parquet")
_PATTERN = "*?["
_STATUSES: dict[str, Status] = {"PENDING": "pending", "RUNNING": "running", "STOPPED": "cancelled"}
_UNDER_WAY = ("pending", "running")
_OURS = re.compile(
    r"^(?:(?:error: |[\d,]+ of [\d,]+\+? photos, |restored \d).*|failed: \d.*(?:\n  .*)?)", re.MULTILINE
)
"""Of a job's log, which also holds what Ray and the interpreter say of the machine."""
LONGEST_URI = 4096
SECONDS_TO_ANSWER = 20.0
"""That Ray's job server has."""
_NOT_YET = "try again later"
_ID = re.compile("diffuir-[0-9a-f]{32}")

T = TypeVar("T")


class Jobs:
    """Submits, shows and stops them; every method raises `Problem` for what the client can put right."""

    def __init__(self, settings: ServeSettings, catalogue: Catalogue) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._roots = [_real(storage.absolute(root)) for root in settings.jobs_under]
        self._known_client: Any = None
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="diffuir-jobs")
        self._beginning: set[str] = set()

    async def submit(self, request: JobRequest, key: str) -> JobShown:
        """Begin one, and return what `show` will."""
        if not self._roots:
            raise Problem(403, "jobs", "this server takes no jobs: it was started without jobs_under")
        weights, steps = self._weights(request.model), self._steps(request.steps)
        await self._check_room()
        job_id = f"diffuir-{uuid.uuid4().hex}"
        self._beginning.add(job_id)
        try:
            await self._begin(request, job_id, weights, steps, key)
        finally:
            self._beginning.discard(job_id)
        return await self.show(job_id, key)

    async def _begin(
        self, request: JobRequest, job_id: str, weights: str | None, steps: int, key: str
    ) -> None:
        # Each link of each path is looked up, of which there may be millions.
        sources, target = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._places, request
        )
        source = (
            sources[0] if isinstance(request.source, str) else await self._listed(sources, target, job_id)
        )
        job = RestoreJob(
            source=source,
            target=target,
            weights=weights,
            steps=steps,
            device=self._settings.device,
            precision=self._settings.precision,
            **request.model_dump(exclude={"source", "target", "model", "steps"}),
        )
        # Where several clusters run on one machine, Ray leads a job to any of them.
        cluster = f"RAY_ADDRESS={ray.get_runtime_context().gcs_address}"
        program = (sys.executable, "-m", "diffuir_platform.cli")
        command = ["env", cluster, *program, "restore", *arguments_of(job)]
        shown = source if isinstance(request.source, str) else f"{len(sources)} photos"
        await self._ask(
            lambda client: client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=job_id,
                runtime_env=_environment(),
                metadata={SOURCE: shown, TARGET: target, KEY: key},
            )
        )

    async def show(self, job_id: str, key: str) -> JobShown:
        """How it stands: the last line that tells of its photos, and at its end the figures of its report."""
        info = await self._own(job_id, key)
        shown = JobShown(
            id=job_id,
            status=_status(info),
            source=info.metadata[SOURCE],
            target=info.metadata[TARGET],
            submitted=_time(info.start_time),
            ended=_time(info.end_time),
        )
        if shown.status != "pending":
            log = await self._ask(lambda client: client.get_job_logs(job_id))
            shown.progress = _progress(log)
        if shown.status in ("done", "done-but-some-failed"):
            shown.report = await asyncio.to_thread(_report, shown.target)
        return shown

    async def cancel(self, job_id: str, key: str) -> JobShown:
        """Stop it; the same job again goes on where it was."""
        await self._own(job_id, key)
        await self._ask(lambda client: client.stop_job(job_id))
        return await self.show(job_id, key)

    def _places(self, request: JobRequest) -> tuple[list[str], str]:
        """The absolute URIs of what is restored, and of the folder that it goes to, with a slash at its end.

        Without that slash the target of one photo would be its result's file.
        """
        given = [request.source] if isinstance(request.source, str) else request.source
        target = self._checked(request.target, "target").rstrip("/") + "/"
        return [self._checked(source, "source") for source in given], target

    def _checked(self, uri: str, name: str) -> str:
        """The absolute URI of what lies below one of the server's folders; raises `Problem` for what does not.

        What is checked is what the job gets, whose process may be in another folder.
        """
        if len(uri) > LONGEST_URI:
            raise Problem(422, name, f"{name}: a URI has up to {LONGEST_URI:,} characters")
        if uri != uri.strip() or "\0" in uri or ".." in uri.split("/"):
            raise Problem(403, name, f"{name}: it may hold no '..', and no space at its ends")
        try:
            place = storage.absolute(uri)
        except (UserError, ValueError) as error:
            raise Problem(422, name, f"{name}: {error}") from error
        # As a pattern and as a path: what exists is taken by its name, whatever letters that has.
        led_to = {place} if "://" in place else {_real(place), os.path.realpath(place)}
        if name == "source" and any(one.lower().endswith(_TABLES) for one in {place, *led_to}):
            raise Problem(422, "source", "lists and tables are not taken here: send their URIs as a list")
        if not all(self._is_below(one) for one in led_to):
            raise Problem(403, name, f"{name}: it does not lie below a folder that this server may use")
        return place + "/" * uri.endswith("/")  # which makes it a folder

    def _is_below(self, place: str) -> bool:
        return any(place == root or place.startswith(root.rstrip("/") + "/") for root in self._roots)

    async def _check_room(self) -> None:
        """Raise `Problem` where as many jobs run or wait as there may be."""
        jobs = await self._ask(lambda client: client.list_jobs())
        ours = (job for job in jobs if SOURCE in (job.metadata or {}) and _status(job) in _UNDER_WAY)
        under_way = len({job.submission_id for job in ours} | self._beginning)
        if under_way >= self._settings.max_jobs:
            detail = f"{under_way} jobs are under way, as many as there may be: send it again later"
            raise Problem(503, "busy-jobs", detail, 60)

    def _weights(self, model: str | None) -> str | None:
        name = model or self._settings.default_model
        if name not in self._catalogue:
            raise Problem(
                422, "model", f"there is no model of that name: choose {', '.join(self._catalogue)}"
            )
        return self._catalogue[name].uri

    def _steps(self, steps: int | None) -> int:
        most = self._settings.most_steps
        if steps is not None and steps > most:
            raise Problem(422, "parameter", f"steps: this server takes up to {most}")
        return steps or self._settings.steps

    async def _listed(self, sources: Sequence[str], target: str, job_id: str) -> str:
        """A list file of them, in the target's own folder."""
        if not sources or any("\n" in uri or "\r" in uri for uri in sources):
            raise Problem(422, "source", "source: send URIs without line breaks, at least one")
        place = storage.join(target, f"{storage.OWN_FOLDER}/requests/{job_id}.txt")
        try:
            await asyncio.to_thread(storage.write_bytes, place, "\n".join(sources).encode())
        except UserError as error:
            raise Problem(422, "target", f"target: {error}") from error
        return place

    async def _own(self, job_id: str, key: str) -> Any:
        """What Ray knows of a job that this key sent."""
        info = None
        if _ID.fullmatch(job_id):  # Ray's client makes it part of a path
            with suppress(RuntimeError):
                info = await self._ask(lambda client: client.get_job_info(job_id))
        if info is None or (info.metadata or {}).get(KEY) != key or SOURCE not in info.metadata:
            raise Problem(404, "job", "there is no job of that id")
        return info

    async def _ask(self, ask: Callable[[Any], T]) -> T:
        """What Ray's job server answers; its client waits for it in a thread."""

        def asked() -> T:
            from ray.job_submission import JobSubmissionClient

            if self._known_client is None:
                self._known_client = JobSubmissionClient(_job_server())
            return ask(self._known_client)

        try:
            # Ray's client waits for ever, and in threads of its own nobody else waits with it.
            async with asyncio.timeout(SECONDS_TO_ANSWER):
                return await asyncio.get_running_loop().run_in_executor(self._threads, asked)
        except (ConnectionError, TimeoutError) as error:
            detail = "this cluster's job server does not answer: is it started with its dashboard?"
            raise Problem(503, "jobs", detail, 10) from error
        except RuntimeError as error:
            # Of a cluster that has just been started: "No available agent to submit job".
            if _NOT_YET not in str(error):
                raise
            raise Problem(503, "jobs", "the job server is not ready yet: send it again", 5) from error


def _job_server() -> str:
    """Its URL, from the cluster that this process is part of."""
    from ray.dashboard.utils import ray_address_to_api_server_url

    try:
        return ray_address_to_api_server_url(ray.get_runtime_context().gcs_address)
    except ValueError as error:
        raise ConnectionError(str(error)) from error


def _real(place: str) -> str:
    """A local path with its links followed, as far as it is no pattern; a URI as it is."""
    if "://" in place:
        return place
    plain = next((i for i, letter in enumerate(place) if letter in _PATTERN), len(place))
    folder, rest = place[:plain], place[plain:]
    return os.path.realpath(folder) + ("/" if rest and folder.endswith("/") else "") + rest


def _environment() -> dict[str, Any]:
    """The code that this process runs, for a job's process."""
    own = dict(ray.get_runtime_context().runtime_env)
    kept = {name: own[name] for name in _OF_THE_CODE if name in own}
    variables = {
        name: value for name, value in kept.get("env_vars", {}).items() if name not in (KEYS, KEYS_FILE)
    }
    return {**kept, "env_vars": {**variables, **WORKER_ENVIRONMENT}}


def _status(info: Any) -> Status:
    """In the words of `diffuir restore`'s exit code."""
    if info.status == "SUCCEEDED":
        return "done"
    if info.status == "FAILED" and info.driver_exit_code == 1:
        return "done-but-some-failed"
    return _STATUSES.get(str(info.status), "failed")


def _progress(log: str) -> str | None:
    """The last line of a job's log that tells how far it is or why it ended, None while there is none.

    Of photos that failed it is their number, with the first one's reason.
    """
    ours = _OURS.findall(log)
    return " ".join(ours[-1].split())[:500] if ours else None


def _time(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _report(target: str) -> dict[str, Any] | None:
    try:
        report = json.loads(storage.read_bytes(storage.join(target, f"{storage.OWN_FOLDER}/{REPORT_FILE}")))
    except (UserError, ValueError):
        return None  # one photo leaves none
    return {name: report[name] for name in ("run", "output_holds", "failed") if name in report}
