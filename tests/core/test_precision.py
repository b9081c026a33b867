"""The precision of `auto`: what the CPU can do decides, and a measurement is made once for a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffuir_core.precision import PRECISIONS, fastest_precision

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the answers; the CPU has instructions for bfloat16."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "cpu_name": "one"})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    return tmp_path / "diffuir"


def answer() -> str:
    """The answer as a new process would give it."""
    fastest_precision.cache_clear()
    return fastest_precision(CPU)


def test_a_measurement_is_made_once_for_a_machine(cache: Path) -> None:
    measured = answer()
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())["precision"] == measured
    (other,) = PRECISIONS.keys() - {measured}
    file.write_text(json.dumps({"precision": other}))
    assert answer() == other, "it was measured again"


def test_another_cpu_torch_or_limit_is_measured_for_itself(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "cpu_name": "two"})
    answer()
    monkeypatch.setattr(torch, "__version__", "0.0")
    answer()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    answer()
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize(
    "damage", [b"", b"\xff{", b"[]", b'{"precision": "int4"}', b'{"precision": ["float32"]}']
)
def test_a_damaged_answer_is_replaced(cache: Path, damage: bytes) -> None:
    answer()
    (file,) = cache.iterdir()
    kept = json.loads(file.read_text())
    file.write_bytes(damage)
    measured = answer()  # which may differ from the first, where other work comes between
    assert json.loads(file.read_text()) == kept | {"precision": measured}
    assert measured in PRECISIONS


def test_a_folder_that_cannot_be_written_hinders_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_bytes(b"a file where the folder would be")
    assert answer() in PRECISIONS
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "relative")
    assert answer() in PRECISIONS
    assert not Path("relative").exists()


@pytest.mark.parametrize("capability", ["AVX512", "AVX2", "DEFAULT"])
def test_a_cpu_without_bfloat16_is_not_measured(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capability: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "cpu_name": "old"})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert answer() == "float32"
    assert not cache.exists()


def test_instructions_that_torch_may_not_use_do_not_count(tmp_path: Path) -> None:
    """In a process of its own, as torch reads the limit when it is imported."""
    code = "import torch, diffuir_core.precision as p; print(p.fastest_precision(torch.device('cpu')))"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert done.stdout == "float32\n"
        assert list(tmp_path.iterdir()) == []
