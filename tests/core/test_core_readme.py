"""The README of the core: its table names what exists, and its code runs as it stands there."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import diffuir_core
from diffuir_core.pixels import Pixels

CORE = Path(diffuir_core.__file__).parent
TESTS = Path(__file__).parent
PAGE = (CORE / "README.md").read_text(encoding="utf-8")
EXTENDING = (CORE.parent / "platform" / "EXTENDING.md").read_text(encoding="utf-8")


def section(title: str, page: str = PAGE) -> str:
    """The text of a section of a page."""
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def code(title: str, language: str, page: str = PAGE) -> list[str]:
    """The code blocks of a language in a section."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(title, page), flags=re.MULTILINE | re.DOTALL)


def test_every_name_in_the_table_of_equations_exists() -> None:
    names = re.findall(r"`([a-z_]+)\.([\w.]+)`", section("From the paper to the code"))
    assert len(names) > 15
    for module, path in names:
        found: object = importlib.import_module(f"diffuir_core.{module}")
        for name in path.split("."):
            found = getattr(found, name)


def test_the_reading_order_names_every_module() -> None:
    named = set(re.findall(r"`(\w+)(?:\.py|/)`", section("Reading order")))
    there = {path.stem for path in CORE.glob("*.py")} | {
        path.parent.name for path in CORE.glob("*/__init__.py")
    }
    assert named == there - {"__init__"}


def test_every_named_test_exists() -> None:
    files = re.findall(r"`(tests/[\w/]+(?:\.py)?)`", PAGE)
    assert len(files) > 8
    assert [file for file in files if not (CORE.parent / file).exists()] == []


def test_the_notebook_runs(
    tmp_path: Path,
    photo: Pixels,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo).save("photo.jpg")
    names: dict[str, object] = {}
    for block in code("In a notebook", "python"):
        exec(block, names)
    assert Image.open("restored.jpg").size == photo.shape[1::-1]
    figures = [float(line.removesuffix(" dB")) for line in capsys.readouterr().out.splitlines()]
    assert len(figures) == 3
    assert figures[-1] > figures[0]


def test_the_degradation_has_the_properties_of_the_others(tmp_path: Path) -> None:
    """The example of EXTENDING.md is added to a copy of the core and of the tests that all degradations share."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CORE, tmp_path / "diffuir_core", ignore=ignored)
    shutil.copytree(TESTS, tmp_path / "tests/core", ignore=ignored)
    (example,) = code("A task", "python", EXTENDING)
    (tmp_path / example.partition("\n")[0].removeprefix("# ")).write_text(example)
    (changes,) = code("A task", "diff", EXTENDING)
    parts = re.split(r"^--- (\S+)\n", changes, flags=re.MULTILINE)[1:]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        if name.startswith("platform/"):  # tests/platform/test_extending.py makes these changes
            continue
        lines = text.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] in f" {sign}") for sign in "-+")
        file = tmp_path / name
        assert file.read_text().count(before) == 1, f"{name} does not contain this once:\n{before}"
        file.write_text(file.read_text().replace(before, after))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/core/test_degradations.py",
    ]
    run = subprocess.run(
        [*command, "-k", "noise or tasks"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert re.search(r"\b(\d\d) passed", run.stdout), run.stdout
