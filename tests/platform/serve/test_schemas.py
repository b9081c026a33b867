"""One definition of options: the API takes those of `diffuir restore`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from diffuir_platform.restore.settings import PhotoOptions, RestoreJob, RestoreOptions
from diffuir_platform.serve.schemas import JobRequest, RestoreQuery


@pytest.mark.parametrize("model", [RestoreQuery, JobRequest])
def test_defaults_texts_and_bounds_are_those_of_a_restore(model: type[RestoreQuery | JobRequest]) -> None:
    theirs, ours = (m.model_json_schema()["properties"] for m in (model, RestoreJob))
    for name in PhotoOptions.model_fields:
        assert theirs[name] == ours[name]
    (number, null) = theirs["steps"]["anyOf"]
    assert {**ours["steps"], **number} == ours["steps"]
    assert null == {"type": "null"}


def test_a_job_takes_what_the_command_takes() -> None:
    theirs, ours = (model.model_json_schema()["properties"] for model in (JobRequest, RestoreJob))
    assert set(theirs) - {"model"} <= set(ours)
    for name in ("include", "exclude", "restart", "retry_failed"):
        assert theirs[name]["description"] == ours[name]["description"]
    with pytest.raises(ValidationError, match="at most 100"):
        JobRequest(source="in", target="out", include=("a",) * 101)
    assert RestoreOptions(include=("a",) * 101)


def test_a_gateway_loads_no_part_of_a_restore_but_its_settings() -> None:
    code = "import sys, diffuir_platform.serve.gateway; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "diffuir_platform.restore.settings" in loaded
    for module in ("ledger", "report", "run", "job", "stages", "pipeline", "inputs"):
        assert f"diffuir_platform.restore.{module}" not in loaded
    assert "torch" not in loaded
