from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Threads that wait for arithmetic sleep: spinning ones take the cores from the other processes of a test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Seconds between two looks of Ray Train for reports: its own 2 s are longer than a step of these tests.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# A shell's background jobs ignore SIGINT, and so would every command that a test ends with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden values and photos beside the checkout; what needs it is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside this checkout: golden values and photos are not checked")
    return folder
