"""The command `diffuir` in this process, which has loaded what a new one would load first."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess

import pytest

from diffuir_platform.cli import main


def diffuir_here(*arguments: object) -> CompletedProcess[str]:
    """Exit code and output of the command; `support.album.diffuir` runs it in a process of its own."""
    words = ["diffuir", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
    return CompletedProcess(words, int(ended.value.code or 0), out.getvalue(), err.getvalue())
