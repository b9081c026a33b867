"""Freed memory stays in the process, on which the speed on a CPU depends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from diffuir_core.allocator import keep_freed_memory, kept_bytes

PROGRAM = """
import resource, threading, torch
from diffuir_core.allocator import keep_freed_memory, kept_bytes

def faults():
    for _ in range(12):  # a few blocks until they fit each other
        torch.ones(2**25)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**25)  # 128 MiB, or 32,768 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {kept}:
    assert keep_freed_memory()
print(faults(), kept_bytes() >= 2**27)
thread = threading.Thread(target=lambda: print(faults()))
thread.start()
thread.join()
"""


def faults(kept: bool) -> tuple[int, bool, int]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(kept=kept)], capture_output=True, text=True, check=True
    )
    in_main, held, in_thread = run.stdout.split()
    return int(in_main), held == "True", int(in_thread)


@pytest.mark.skipif(not keep_freed_memory(), reason="needs glibc 2.33 or newer")
def test_large_blocks_are_faulted_in_once() -> None:
    without, with_it = faults(False), faults(True)
    assert without[0] > 1000
    assert with_it[0] < without[0] / 10
    assert with_it[2] < without[2] / 10
    assert (without[1], with_it[1]) == (False, True)


@pytest.mark.skipif(not keep_freed_memory(), reason="needs glibc 2.33 or newer")
def test_kept_memory_is_returned_when_memory_is_short() -> None:
    program = """
import torch
from diffuir_core.allocator import keep_freed_memory, kept_bytes
keep_freed_memory()
for side in (2**25, 2**26, 2**24):
    torch.ones(side)
kept = kept_bytes()
keep_freed_memory(False)
torch.ones(2**26)
print(kept >= 2**26, kept_bytes() < 2**24)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True"]


def test_kept_bytes_is_a_count_of_bytes() -> None:
    assert 0 <= kept_bytes() < 2**40
