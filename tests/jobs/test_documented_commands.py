"""The commands that stand in the README, the configs and the scripts, with a reader's own folders in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from diffuir_platform.config import load_config
from diffuir_platform.sweep import SweepConfig
from diffuir_platform.train import TrainConfig
from support.paths import ROOT

FILES = [ROOT / "README.md", *sorted((ROOT / "jobs").glob("*.yaml")), *sorted((ROOT / "jobs").glob("*.py"))]
COMMAND = re.compile(r"(?:diffuir|python jobs/\w+\.py) .*jobs/(?:train|sweep)[\w-]*\.yaml .*")


def commands() -> list[str]:
    """Those with settings, each on one line."""
    found = []
    for file in FILES:
        text = re.sub(r"^# ?", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        # In a comment the next line goes on by being indented.
        text = re.sub(r"\s*\\\n\s+|(?<=\])\n {2,}(?=[\w.]+=)", " ", text)
        found += COMMAND.findall(text)
    return found


def test_they_are_found() -> None:
    assert len(commands()) >= 9


@pytest.mark.parametrize("command", commands())
def test_a_documented_command_needs_no_folders_but_the_reader_s_own(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    file = next(word for word in words if word.endswith(".yaml") and "env" not in word)
    overrides = [word for word in words[words.index(file) + 1 :] if "=" in word]
    model = TrainConfig if Path(file).name.startswith("train") else SweepConfig
    config = load_config(model, file, overrides)
    assert "shared" not in str(config.model_dump(mode="json"))
    assert overrides
