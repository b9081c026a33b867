"""A restore onto disks that are full, or that have no hard links and fewer names (exFAT): real ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuir_core import UserError
from diffuir_platform.restore import RestoreOptions, restore
from diffuir_platform.restore.ledger import Ledger, LedgerRow
from diffuir_platform.restore.verify import verify
from support.album import photo, put, results_below
from support.disks import exfat_disk, small_disk
from support.restoring import Cheap, run

PHOTOS = 8


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 2**20) as disk:
        yield disk


def noise(seed: int, side: int = 256) -> Image.Image:
    """A picture that takes 3 bytes a pixel in every format."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_a_full_disk_stops_the_run_and_the_same_command_goes_on(tmp_path: Path, full: Path) -> None:
    for seed in range(PHOTOS):
        put(tmp_path / f"in/{seed}.png", noise(seed))
    source, out = str(tmp_path / "in"), str(full / "out")
    with pytest.raises(UserError) as raised:
        run(source, out, None, 1)
    assert str(raised.value).startswith("no space is left on the disk of ")
    assert str(raised.value).endswith(
        ": free some; what is written stays, and the same command continues from there"
    )
    written = {name: (full / "out" / name).read_bytes() for name in results_below(full / "out")}
    assert 0 < len(written) < PHOTOS
    subprocess.run(["mount", "-o", "remount,size=64m", full], check=True)
    summary = run(source, out, None, 1)
    assert (summary.done + summary.skipped, summary.exit_code) == (PHOTOS, 0)
    found = verify(out)
    assert (found.right, found.bad, found.unknown) == (PHOTOS, 0, 0)
    assert {name: (full / "out" / name).read_bytes() for name in written} == written


def test_a_full_disk_is_said_for_one_photo(tmp_path: Path, full: Path) -> None:
    source = put(tmp_path / "a.png", noise(0, 700))
    with pytest.raises(UserError) as raised:
        restore(source, full / "a.png", RestoreOptions(), restorer=Cheap)
    assert str(raised.value) == f"no space is left on the disk of {full}: free some"
    assert results_below(full) == set()


def test_a_full_disk_is_said_for_the_ledger_and_its_copy(
    tmp_path: Path, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(ledger: Ledger) -> None:
        with ledger:
            for _ in range(40_000):
                text = os.urandom(100).hex()
                ledger.add(LedgerRow(key=text, status="failed", reason=text, source="", target=""))
            ledger.flush()

    put(full / "large", bytes(2**20 - 2**14))
    with pytest.raises(
        UserError, match=f"^no space is left on the disk of {full}/_diffuir/ledger: free some$"
    ):
        fill(Ledger(f"{full}/_diffuir"))
    (full / "large").unlink()
    monkeypatch.setattr("tempfile.tempdir", str(full))
    with pytest.raises(UserError, match=f"^the run's copy of the ledger can't be kept in {full} \\("):
        fill(Ledger(f"{tmp_path}/_diffuir"))


def test_an_exfat_disk_holds_an_output(tmp_path: Path) -> None:
    for seed, name in enumerate(("a.png", "B.png", "b.png", "deep/c.png", "what?.png", "x:y/d.png")):
        put(tmp_path / "in" / name, photo(seed=seed))
    with exfat_disk(tmp_path / "disk") as disk:
        out = disk / "out"
        put(out / "deep/c.png", b"a file of somebody's")
        summary = run(str(tmp_path / "in"), str(out), None, 1)
        assert summary.done == 2
        names = {key: reason for key, reason in summary.failed.items() if key in ("what?.png", "x:y/d.png")}
        assert len(names) == 2
        assert all("can't have a file of this name" in reason for reason in names.values())
        twin = (set(summary.failed) & {"B.png", "b.png"}).pop()
        assert "is in the way" in summary.failed[twin]
        assert "is in the way" in summary.failed["deep/c.png"]
        assert (out / "deep/c.png").read_bytes() == b"a file of somebody's"
        (out / "a.png").unlink()
        (out / "deep/c.png").unlink()
        again = run(str(tmp_path / "in"), str(out), None, 1)
        assert (again.done, again.skipped, set(again.failed)) == (2, 1, {twin, *names})
        assert verify(str(out)).bad == 0
        assert not list(out.rglob(".*"))
