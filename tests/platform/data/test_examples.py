"""The example photos and pairs that ship: sources named, small, packed into the wheel, and made as they say."""

from __future__ import annotations

import re
import subprocess
import tomllib
from statistics import median

import pytest

from diffuir_core import Restorer
from diffuir_core.degradations import TASKS
from diffuir_core.imaging import decode
from diffuir_core.metrics import psnr
from diffuir_platform.data import find_pairs
from diffuir_platform.data.examples import PAIRS_FOLDER, PHOTOS_FOLDER
from support.example_pairs import degraded_pairs
from support.paths import ROOT

PHOTOS = sorted(PHOTOS_FOLDER.iterdir())
PAIRS = [path for path in sorted(PAIRS_FOLDER.rglob("*")) if path.is_file()]


def test_every_photo_has_its_title_author_source_and_licence() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (PHOTOS_FOLDER.parent / "SOURCES.md").read_text().splitlines()
        if re.match(r"\| [\w/]+\.jpg ", line)
    ]
    clean = [path.relative_to(PAIRS_FOLDER) for path in PAIRS if path.parent.name == "clean"]
    names = [path.name for path in PHOTOS] + [f"{path.parts[0]}/{path.name}" for path in clean]
    assert sorted(row[0] for row in rows) == sorted(names)
    for row in rows:
        assert len(row) == 5
        assert all(row)
        assert "CC0" in row[4] or "public domain" in row[4]


def test_photos_are_few_and_small() -> None:
    assert len(PHOTOS) == 12
    assert sum(path.stat().st_size for path in PHOTOS) < 800_000
    for path in PHOTOS:
        assert max(decode(path.read_bytes()).pixels.shape) == 512


def test_each_task_has_two_small_pairs_of_photos_that_are_not_trained_on() -> None:
    pairs = find_pairs(PAIRS_FOLDER)
    assert sorted(pair.set_name for pair in pairs) == sorted(2 * TASKS)
    assert not {pair.key for pair in pairs} & {path.stem for path in PHOTOS}
    assert sum(path.stat().st_size for path in PAIRS) < 1_500_000
    for pair in pairs:
        assert max(decode(pair.clean.read_bytes()).pixels.shape) == 256


def test_the_degraded_photos_are_what_our_own_synthesis_makes_of_the_clean_ones() -> None:
    made = dict(degraded_pairs())
    assert sorted(made) == [path for path in PAIRS if path.parent.name == "degraded"]
    for path, pixels in made.items():
        # Only the JPEG of quality 95 is between them.
        assert psnr(decode(path.read_bytes()).pixels, pixels) > 36, path


def test_the_wheel_takes_them_along() -> None:
    """Hatchling packs all of a package but what git ignores."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for path in (*PHOTOS, *PAIRS):
        assert any(path.is_relative_to(ROOT / package) for package in packages)
    listed = subprocess.run(
        ["git", "check-ignore", *map(str, (*PHOTOS, *PAIRS))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 128:  # no repository
        assert listed.stdout == ""


@pytest.mark.slow
def test_guarantee_9_good_photos_come_back_as_they_were() -> None:
    restorer = Restorer(precision="float32")
    scores = []
    for path in PHOTOS:
        pixels = decode(path.read_bytes()).pixels
        (restored,) = restorer.restore([pixels])
        scores.append(psnr(restored, pixels))
    assert median(scores) >= 45
    assert min(scores) >= 35
