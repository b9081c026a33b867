"""The README's promises: its first commands, its length, its tree, its figures, its guarantees."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from support.paths import ROOT
from support.ports import free_port

README = (ROOT / "README.md").read_text(encoding="utf-8")
CARD = (ROOT / "diffuir_core" / "pretrained" / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The rows of a Markdown table, without its two lines of heading."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_first_two_commands_are_demo_and_test() -> None:
    commands = re.findall(r"^    (\S.*?)(?:\s+#.*)?$", README, flags=re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]


def test_it_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 140


def test_figures_of_the_shipped_weights_are_those_of_their_card() -> None:
    card = {row[0]: row for row in rows(CARD.partition("\n## Results\n")[2])}
    shown = rows(section("What the weights that ship reach"))
    assert len(shown) == 5
    for name, images, before, after, gain, *ssim in shown:
        assert card[name][:5] == [name, images, before, after, gain]
        assert card[name][-2:] == ssim


def test_the_tree_holds_every_folder_a_reader_meets() -> None:
    lines = [line for line in section("The tree").splitlines() if line.startswith("    ")]
    assert len(lines) <= 13
    top = re.findall(r"^    (\S+)/ ", "\n".join(lines), flags=re.MULTILINE)
    rooms = re.findall(r"(\w+)/(?=\s)", "\n".join(line for line in lines if line.startswith("      ")))
    assert [name for name in top if not (ROOT / name).is_dir()] == []
    there = {path.parent.name for path in (ROOT / "platform" / "diffuir_platform").glob("*/__init__.py")}
    assert set(rooms) == there


def test_every_guarantee_has_tests() -> None:
    guarantees = rows(section("What holds"))
    assert [int(text.partition(".")[0]) for text, _ in guarantees] == list(range(1, 11))
    for text, tests in guarantees:
        files = re.findall(r"`(tests/[\w/]+\.py)`", tests)
        assert files, text
        assert [file for file in files if "def test_" not in (ROOT / file).read_text(encoding="utf-8")] == []


def session() -> list[tuple[str, list[str]]]:
    """The commands of the section "Five commands", each with the lines that it prints."""
    (block,) = re.findall(
        r"^```console\n(.*?)^```$", section("Five commands"), flags=re.MULTILINE | re.DOTALL
    )
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(part.splitlines()[0], part.splitlines()[1:]) for part in parts]


def pattern(line: str) -> str:
    """A regular expression for a line as another run prints it: other figures, and anything in place of `...`."""
    escaped = re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*")
    escaped = re.sub(r"b?float\d+", "PRECISION", escaped)  # whichever is faster there
    escaped = re.sub(r"\d+(?:\\?[.,]\d+)*", r"[\\d.,]+", escaped)
    return escaped.replace("PRECISION", r"b?float\d+").replace(r"\ ", r"\s+")


def check(command: str, expected: list[str], output: str) -> None:
    """The lines that the README shows are there, in their order."""
    place = 0
    for line in expected:
        if line.strip() == "...":
            continue
        found = re.compile(pattern(line)).search(output, place)
        assert found is not None, f"{line!r} is not what {command} prints:\n{output}"
        place = found.end()


@contextmanager
def serving(command: str, folder: Path, environment: dict[str, str], url: str) -> Iterator[None]:
    """An endpoint, from when it is ready; what it prints goes into the file serve.log."""
    with (
        (folder / "serve.log").open("w") as log,
        subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 180
            while "is ready" not in (folder / "serve.log").read_text():
                assert process.poll() is None, "the endpoint ended"
                assert time.monotonic() < deadline, "the endpoint did not become ready"
                time.sleep(0.5)
            assert requests.get(f"{url}/readyz", timeout=30).ok
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=120)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables for commands that are started in `tmp_path` as in the root of the repository."""
    for name in ("platform", "jobs"):
        (tmp_path / name).symlink_to(ROOT / name)
    return os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_the_quick_sweep_runs_on_photos_that_ship(tmp_path: Path, environment: dict[str, str]) -> None:
    # One point of its grid: sweeps of several are in tests/platform/sweep.
    short = (
        '"train.stages=[{steps: 4, crop: 32, batch: 10}]" train.validation.images=1 grid.delta_end=[9.99e-4]'
    )
    printed = run(f"diffuir sweep jobs/sweep-quick.yaml {short}", tmp_path, environment)
    assert "written: " in printed
    table = (tmp_path / "runs" / "quick-sweep" / "table.md").read_text()
    assert len(rows(table)) == 1


@pytest.mark.slow
def test_the_five_commands_print_what_the_readme_shows(tmp_path: Path, environment: dict[str, str]) -> None:
    (assignment, _), *steps, (serve, served), (curl, responded) = session()
    name, _, value = assignment.partition("=")
    environment[name] = value
    assert [step.split()[1] for step, _ in steps] == ["restore", "restore", "train", "evaluate"]
    for command, expected in steps:
        # A sixth of the steps show what is printed.
        short = ' "stages=[{steps: 40, crop: 64, batch: 10}]"' if command.startswith("diffuir train") else ""
        check(command, expected, run(command + short, tmp_path, environment))
    assert (tmp_path / "frog.jpg").is_file()
    assert (tmp_path / "runs" / "quick" / "weights.safetensors").is_file()
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    with serving(serve.removesuffix("&").replace("8000", port), tmp_path, environment, url):
        check(curl, responded, run(curl.replace("8000", port), tmp_path, environment))
    check(serve, served, (tmp_path / "serve.log").read_text())
    assert (tmp_path / "again.jpg").read_bytes()[:2] == b"\xff\xd8"
