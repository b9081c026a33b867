"""`diffuir fit-niqe`: statistics of one's own photos, which NIQE and IL-NIQE then compare with."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from diffuir_core.errors import UserError
from diffuir_core.imaging import decode
from diffuir_core.metrics import IL_NIQE_VARIANTS, NIQE_VARIANTS, fit_niqe, niqe_samples, read_niqe
from diffuir_platform.command_table import app
from diffuir_platform.data.examples import PHOTOS_FOLDER
from diffuir_platform.evaluate import fit_pristine
from diffuir_platform.evaluate.settings import FitNiqeSettings


def run(*arguments: object) -> int:
    code: int = app(["fit-niqe", *map(str, arguments)], standalone_mode=False)
    return code


def test_statistics_are_fitted_to_a_folder_and_what_is_no_photo_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for photo in sorted(PHOTOS_FOLDER.glob("*.jpg"))[:10]:
        (tmp_path / "photos" / "below").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / "below" / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    Image.new("RGB", (90, 200)).save(tmp_path / "photos" / "small.png")
    assert run(tmp_path / "photos", tmp_path / "own.npz") == 1
    said = capsys.readouterr().out
    assert "broken.jpg: " in said
    assert "small.png: NIQE needs images of at least 96x96 pixels, this one is 90x200" in said
    assert "own.npz, niqe-matlab of " in said
    assert "sharp blocks of 10 photos" in said
    photos = (decode(path.read_bytes()).pixels for path in sorted(PHOTOS_FOLDER.glob("*.jpg"))[:10])
    expected = fit_niqe(niqe_samples(photo) for photo in photos)
    found = read_niqe(tmp_path / "own.npz")
    np.testing.assert_array_equal(found.mean, expected.mean)
    np.testing.assert_array_equal(found.covariance, expected.covariance)


def test_every_definition_can_be_fitted() -> None:
    offered = get_args(FitNiqeSettings.model_fields["metric"].annotation)
    assert offered == (*NIQE_VARIANTS, *IL_NIQE_VARIANTS)


def test_what_stops_it_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"there is no folder .*none: name one with pristine photos"):
        fit_pristine(tmp_path / "none", tmp_path / "own.npz", "niqe-matlab")
    with pytest.raises(UserError, match=r"own\.mat does not end in \.npz"):
        fit_pristine(tmp_path / "photos", tmp_path / "own.mat", "niqe-matlab")
    for metric in ("niqe-matlab", "niqe-released", "il-niqe", "il-niqe-unresized"):
        with pytest.raises(UserError, match=r"these photos give 0 sharp blocks .*: add photos"):
            fit_pristine(tmp_path / "photos", tmp_path / "own.npz", metric)
    assert not (tmp_path / "own.npz").exists()
