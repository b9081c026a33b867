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
from diffuir_platform.config import load_config
from diffuir_platform.restore import RestoreOptions
from diffuir_platform.restore.job import RestoreJob, restore_job
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
        "restore --weights models:/diffuir-t@best --steps 5 --equalise --exclude 'thumbs/*' --exclude '*.png' "
        "--retry-failed -- 's3://b/in/*.jpg' 's3://b/out 1/'"
    )
    assert (submitted.name, submitted.files) == ("restore-s3-b-out-1", {})


def test_every_option_is_one_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    from diffuir_platform.cli import app

    with pytest.raises(SystemExit):
        app(["restore", "--help"])
    text = capsys.readouterr().out
    for name in set(RestoreJob.model_fields) - {"source", "target"}:
        # Long names may be cut in a narrow terminal.
        assert f"--{name.replace('_', '-')}"[:14] in text, name


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"source": "photos"}, "IN is photos, a path of this folder"),
        ({"target": "./out"}, "OUT is ./out, a path of this folder"),
        ({"weights": "t.safetensors"}, "--weights is t.safetensors, a path of this folder"),
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
