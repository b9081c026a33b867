"""The command line `diffuir`: its start, its end, and its exit codes.

Exit codes: 0, all done; 1, done, but some inputs failed and are named; 2, it could not start or had to stop, with
one sentence why; 130, Ctrl-C; 143, SIGTERM.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from .stopping import SENTENCE, SIGNALS, Stopped, end, ignore_signals, stops_on_signals

if TYPE_CHECKING:
    import click

WITHOUT_PROCESS = {"-h", "--help", "--print-config", "--verify", "--plan", "--explain", "--address"}
"""Options of `restore` with which no process restores photos beside the command."""


def main() -> None:
    """The console script."""
    before = _end_on_signals()
    # By then the command has said how it ended, and a signal changes nothing any more.
    atexit.register(ignore_signals)
    # Threads that wait for arithmetic sleep: spinning ones take the cores from whatever else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with ExitStack() as stack:
        for number, handler in before.items():
            stack.callback(signal.signal, number, handler)
        if sys.argv[1:2] == ["restore"] and not WITHOUT_PROCESS & set(sys.argv):
            from .restore.worker_process import begin, end_begun_process

            begin()
            stack.callback(end_begun_process)
        code = _run()
    sys.exit(code)


def _run() -> int | None:
    """Run the command and return its exit code; one that is stopped ends the process."""
    from .command_table import app

    def run() -> int | None:
        with stops_on_signals():
            code: int | None = app(standalone_mode=False)
        return code

    try:
        return exit_code_of(run)
    except Stopped as stopped:
        end(int(str(stopped.code)))


def _end_on_signals() -> dict[int, Any]:
    """Have Ctrl-C and SIGTERM end this process while it imports the rest; returns the handlers before.

    Nothing is begun by then, and what a handler raises while a module is imported may be lost.
    """

    def end_at_once(number: int, frame: object) -> None:
        os.write(2, f"{SENTENCE}\n".encode())
        os._exit(128 + number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, end_at_once)
    return before


def exit_code_of(command: Callable[[], int | None]) -> int | None:
    """Return what `command` returns; a mistake of the user becomes one sentence on stderr and exit code 2."""
    import click

    from diffuir_core.errors import UserError

    try:
        return command()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return error.exit_code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _sentence(error: click.UsageError) -> str:
    """Return the error as one sentence, without the usage that click prints above it."""
    import click

    if isinstance(error, click.NoSuchOption):
        nearest = f"; the nearest known one is {error.possibilities[0]}" if error.possibilities else ""
        return f"unknown option {error.option_name}{nearest}"
    text = error.format_message().rstrip(".")
    return f"{text[0].lower()}{text[1:]}"


if __name__ == "__main__":
    main()
