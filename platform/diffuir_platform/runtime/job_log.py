"""A job's log on this terminal, from its first line to its end, and the exit code of what ran."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from diffuir_core import UserError

SECONDS_WITHOUT_THE_SERVER = 300
"""How long a lost connection is tried again before this process gives up; the job does not notice."""
SECONDS_BETWEEN_ATTEMPTS = 2.0
ATTEMPTS_AT_THE_REST = 3
"""Of reading the end of the log of a job that has ended."""


def follow(client: Any, submission_id: str, address: str) -> Any:
    """Print the log of a job until its end, lines that name an error on stderr; the job's details then.

    client: Ray's `JobSubmissionClient` of the job server at `address`. A connection that is lost is made again,
    and no line is printed twice. Raises `UserError` where the server stays away or has forgotten the job.
    """
    import aiohttp
    import requests

    lost = (aiohttp.ClientError, requests.RequestException, OSError, RuntimeError)
    log = _Log()
    away_since, breaks = None, 0
    while True:
        try:
            asyncio.run(_tail(client, submission_id, log))
            breaks = 0
        except lost:
            breaks += 1
        try:
            details = client.get_job_info(submission_id)
        except lost as error:
            if "does not exist" in str(error):
                raise UserError(
                    f"the cluster at {address} does not know {submission_id} any more, as after a restart of its "
                    "head: the same command goes on with the run"
                ) from error
            if away_since is None:
                away_since = time.monotonic()
                print(f"{address} does not answer: trying again", file=sys.stderr, flush=True)
            if time.monotonic() - away_since > SECONDS_WITHOUT_THE_SERVER:
                raise UserError(
                    f"{address} does not answer any more; {submission_id} may go on: the same command follows "
                    "it again"
                ) from error
            breaks = 0
        else:
            away_since = None
            # The log of a job whose node is gone can't be had.
            if details.status.is_terminal() and (breaks == 0 or breaks >= ATTEMPTS_AT_THE_REST):
                log.end()
                return details
        time.sleep(SECONDS_BETWEEN_ATTEMPTS)


async def _tail(client: Any, submission_id: str, log: _Log) -> None:
    log.begin()
    try:
        async for text in client.tail_job_logs(submission_id):
            log.add(text)
    finally:
        # A Ctrl-C cancels this task, of which aiohttp may make a connection that was lost.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise KeyboardInterrupt


class _Log:
    """Whole lines, each printed once however often the log comes from its beginning."""

    def __init__(self) -> None:
        self._printed = 0
        self._received = 0
        self._rest = ""

    def begin(self) -> None:
        """The log is about to come from its beginning."""
        self._received, self._rest = 0, ""

    def add(self, text: str) -> None:
        """Print the lines that `text` completes and that were not printed yet."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._received += 1
            if self._received > self._printed:
                self._printed = self._received
                print(line, file=sys.stderr if line.startswith("error: ") else sys.stdout, flush=True)

    def end(self) -> None:
        """Print what comes after the last line break."""
        if self._rest:
            self.add("\n")


def exit_code(details: Any, submission_id: str) -> int:
    """Of the command that ran as the job: its own 0, 1 or 2, and 1 where it was stopped or killed.

    Raises `UserError` for a job that did not start.
    """
    from ray.job_submission import JobStatus

    code = details.driver_exit_code
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if code in (1, 2):
        return int(code)
    if details.status == JobStatus.STOPPED:
        print(f"{submission_id} was stopped: the same command goes on", file=sys.stderr)
        return 1
    reason = " ".join(str(details.message).split())[:300]
    if details.driver_node_id is None:
        raise UserError(f"{submission_id} did not start ({reason}): see the cluster's dashboard")
    print(f"{submission_id} was cut off ({reason}): the same command goes on", file=sys.stderr)
    return 1
