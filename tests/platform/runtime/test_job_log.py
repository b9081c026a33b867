"""Following a job: its log through broken connections, and the exit code at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from diffuir_core import UserError
from diffuir_platform.runtime import job_log

SERVER = "http://127.0.0.1:8265"


class Broken:
    """A job server that breaks the connection in the middle of the log twice, and once does not answer."""

    def __init__(self) -> None:
        self.tails = 0
        self.asked = 0

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        self.tails += 1
        yield "one\ntw"
        if self.tails < 3:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
        yield "o\nerror: three\nfour"

    def get_job_info(self, submission_id: str) -> Any:
        self.asked += 1
        if self.asked == 2:
            raise ConnectionError("refused")
        status = JobStatus.SUCCEEDED if self.tails == 3 else JobStatus.RUNNING
        return SimpleNamespace(status=status, driver_exit_code=0)


def test_a_broken_connection_is_made_again_and_no_line_comes_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job_log, "SECONDS_BETWEEN_ATTEMPTS", 0)
    details = job_log.follow(Broken(), "x", SERVER)
    assert details.status == JobStatus.SUCCEEDED
    out, err = capsys.readouterr()
    assert out == "one\ntwo\nfour\n"
    assert err == f"{SERVER} does not answer: retrying\nerror: three\n"


@pytest.mark.parametrize(
    ("status", "driver_code", "code"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 1, 1),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, 137, 1),
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, None, 1),
    ],
)
def test_the_exit_code_is_that_of_the_command_that_ran(
    status: str, driver_code: int | None, code: int
) -> None:
    details = SimpleNamespace(
        status=status, driver_exit_code=driver_code, driver_node_id="node", message="the node died"
    )
    assert job_log.exit_code(details, "x") == code


def test_a_job_that_never_started_is_one_sentence() -> None:
    details = SimpleNamespace(
        status=JobStatus.FAILED, driver_exit_code=None, driver_node_id=None, message="no such\npackage"
    )
    with pytest.raises(UserError, match="did not start \\(no such package\\)"):
        job_log.exit_code(details, "x")
