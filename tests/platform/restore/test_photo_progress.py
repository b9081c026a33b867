"""Words of one photo while it is restored."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffuir_platform.restore import photo_progress
from diffuir_platform.restore.messages import Passes
from diffuir_platform.restore.photo_progress import PhotoProgress
from support.album import photo, put


def test_a_photo_that_is_refused_at_once_gets_no_word(capsys: pytest.CaptureFixture[str]) -> None:
    with PhotoProgress("a.png") as progress:
        progress.update(None)
    assert capsys.readouterr().err == ""


def test_a_photo_that_is_read_or_takes_its_time_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with PhotoProgress("a\nb.png") as progress:
        progress.update(Passes(0, 0))
        progress.update(Passes(1, 3))
    assert capsys.readouterr().err == "restoring a\N{REPLACEMENT CHARACTER}b.png ...\n"
    monkeypatch.setattr(photo_progress, "SECONDS_OF_SILENCE", 0.0)
    with PhotoProgress("a.png") as progress:
        progress.update(None)
    assert capsys.readouterr().err == "restoring a.png ...\n"


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_progress, "SECONDS_BETWEEN_LINES", 0.0)
    with PhotoProgress("a.png") as progress:
        for done in range(3):
            progress.update(Passes(done, 3))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "restoring a.png: 1 of 3 passes of the network",
        "restoring a.png: 2 of 3 passes of the network",
    ]


def test_a_terminal_gets_a_bar_of_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with PhotoProgress("a.png") as progress:
        progress.update(Passes(0, 0))
        assert "restoring a.png" in terminal.getvalue()
        assert "loading the model" in terminal.getvalue()
        progress.update(Passes(2, 6))
        time.sleep(0.3)
    assert "2 of 6 passes" in terminal.getvalue()


@pytest.mark.slow
def test_the_command_draws_it(tmp_path: Path, weights: Path) -> None:
    put(tmp_path / "a.png", photo(300, 200))
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "diffuir_platform.cli",
        "restore",
        tmp_path / "a.png",
        f"{tmp_path}/out/",
    ]
    more = ["--weights", weights, "--steps", "6", "--tile", "128"]
    process = subprocess.Popen(list(map(str, [*command, *more])), stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 2**16)
        except OSError:  # the other end is closed
            break
        said += piece
    assert process.wait() == 0
    assert b"restoring a.png" in said
    assert b" passes" in said
