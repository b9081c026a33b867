"""A job's log on this terminal, from its first line to its last, and the job's exit code."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from diffuir_core import UserError

SECONDS_TO_RECONNECT = 300
"""Longest time to retry a lost connection, seconds; the job does not notice it."""
SECONDS_BETWEEN_ATTEMPTS = 2.0
"""Pause between two attempts, seconds."""
LAST_READS = 3
"""Attempts to read the rest of the log once the job has ended."""


def follow(client: Any, submission_id: str, address: str) -> Any:
    """Print the log of a job until it ends, with error lines on stderr, and return the job's details.

    client: Ray's `JobSubmissionClient` of the job server at `address`. A lost connection is made again, and no
    line is printed twice. Raises `UserError` where the server stays away or no longer knows the job.
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
                    f"the cluster at {address} no longer knows {submission_id}, perhaps because its head was "
                    "restarted: run the same command again to go on"
                ) from error
            if away_since is None:
                away_since = time.monotonic()
                print(f"{address} does not answer: retrying", file=sys.stderr, flush=True)
            if time.monotonic() - away_since > SECONDS_TO_RECONNECT:
                raise UserError(
                    f"{address} has stopped answering, and {submission_id} may still be running: run the same "
                    "command again to follow it"
                ) from error
            breaks = 0
        else:
            away_since = None
            # The log of a job whose node is gone can't be read.
            if details.status.is_terminal() and (breaks == 0 or breaks >= LAST_READS):
                log.end()
                return details
        time.sleep(SECONDS_BETWEEN_ATTEMPTS)


async def _tail(client: Any, submission_id: str, log: _Log) -> None:
    log.begin()
    try:
        async for text in client.tail_job_logs(submission_id):
            log.add(text)
    finally:
        # Ctrl-C cancels this task, and aiohttp may turn that into an error of a lost connection.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise KeyboardInterrupt


class _Log:
    """Prints whole lines, each once, however often the log is read from its beginning."""

    def __init__(self) -> None:
        self._printed = 0
        self._received = 0
        self._rest = ""

    def begin(self) -> None:
        """Expect the log from its beginning."""
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
    """The exit code of the command that ran as the job: its own 0, 1 or 2, and 1 where it was stopped or killed.

    Raises `UserError` for a job that did not start.
    """
    from ray.job_submission import JobStatus

    code = details.driver_exit_code
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if code in (1, 2):
        return int(code)
    if details.status == JobStatus.STOPPED:
        print(f"{submission_id} was stopped: run the same command again to go on", file=sys.stderr)
        return 1
    reason = " ".join(str(details.message).split())[:300]
    if details.driver_node_id is None:
        raise UserError(f"{submission_id} did not start ({reason}): see the cluster's dashboard")
    print(f"{submission_id} was cut off ({reason}): run the same command again to go on", file=sys.stderr)
    return 1
