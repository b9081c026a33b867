"""A restore as a job: what is submitted, and its settings as YAML."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from diffuir_core import UserError
from diffuir_platform.command_table import app
from diffuir_platform.config import load_config
from diffuir_platform.restore import RestoreOptions
from diffuir_platform.restore.job import restore_job
from diffuir_platform.restore.settings import RestoreJob
from support.paths import ROOT

HEAD = "http://head:8265"


def test_what_is_submitted_is_the_command_without_what_is_the_default() -> None:
    job = RestoreJob(
        source="s3://b/in/*.jpg",
        target="s3://b/out 1/",
        weights="models:/diffuir-t@best",
        steps=5,
        exclude=("thumbs/*", "*.png"),
        equalise=True,
        retry_failed=True,
        address=HEAD,
    )
    submitted = restore_job(job, HEAD)
    assert shlex.join(submitted.arguments) == (
        "restore equalise=true weights=models:/diffuir-t@best steps=5 'exclude=[thumbs/*, '\"'\"'*.png'\"'\"']' "
        "'source=s3://b/in/*.jpg' 'target=s3://b/out 1/' retry_failed=true"
    )
    assert (submitted.name, submitted.files) == ("restore-s3-b-out-1", {})


def test_the_command_that_is_submitted_has_the_settings_that_were_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = RestoreJob(source="s3://b/in", target="s3://b/-out", include=("a=*", "-x"), steps=2, format="png")
    submitted = restore_job(job.model_copy(update={"address": HEAD}), HEAD)
    assert app([*submitted.arguments, "--print-config"], standalone_mode=False) == 0
    assert RestoreJob.model_validate(yaml.safe_load(capsys.readouterr().out)) == job


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"source": "photos"}, "source = photos is a path of this folder"),
        ({"target": "./out"}, "target = ./out is a path of this folder"),
        ({"source": "s3:/b/in"}, "source = s3:/b/in is a path of this folder"),
        ({"weights": "t.safetensors"}, "weights = t.safetensors is a path of this folder"),
        ({"progress_file": "progress.json"}, "progress_file = progress.json is a path of this folder"),
    ],
)
def test_paths_of_this_machine_are_refused(change: dict[str, str], text: str) -> None:
    job = RestoreJob(source="s3://b/in", target="/shared/out").model_copy(update=change)
    with pytest.raises(UserError, match=text):
        restore_job(job, HEAD)


def test_the_yaml_of_the_jobs_folder_holds_settings_that_are_known() -> None:
    job = load_config(RestoreJob, ROOT / "jobs/restore.yaml", ["steps=2", "target=s3://other"])
    assert (job.source, job.target, job.steps) == ("s3://bucket/photos", "s3://other", 2)
    assert issubclass(RestoreJob, RestoreOptions)


@pytest.mark.slow
def test_the_script_restores_as_the_yaml_says(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in/a.png")
    Image.fromarray(pixels[::-1]).save(tmp_path / "in/b.png")
    settings = {
        "source": str(tmp_path / "in"),
        "target": str(tmp_path / "out"),
        "steps": 1,
        "exclude": ["b*"],
    }
    (tmp_path / "restore.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, ROOT / "jobs/restore.py", tmp_path / "restore.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "restored 1 of 1 photo into" in done.stdout
    assert Image.open(tmp_path / "out/a.png").size == (24, 16)
    wrong = subprocess.run([*command, "step=3"], capture_output=True, text=True, check=False, timeout=240)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert "nearest known one is 'steps'" in wrong.stderr
    none = subprocess.run(command[:2], capture_output=True, text=True, check=False, timeout=240)
    assert none.returncode == 2
    assert none.stderr.startswith("error: ")
