"""A run starts from weights that fit it: others are refused, and a difference that it can unlearn is printed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from diffuir_core import Schedule, UserError, build, save_weights
from diffuir_platform.data import list_sources
from diffuir_platform.data.building import build_index
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.train import train
from diffuir_platform.train.run import initial_weights
from support.small_run import config
from support.trees import tree_of_pairs


def test_initial_weights_of_another_variant_are_refused(photos: Path, runs: Path, weights: Path) -> None:
    with pytest.raises(UserError, match="was trained with variant = T, the run has S: set variant = T, or"):
        train(config(photos, runs, init_from=str(weights), variant="S"))


@pytest.mark.parametrize(("key", "value"), [("delta_end", 1.4e-3), ("condition", "no-sdt")])
def test_initial_weights_of_another_diffusion_are_refused(
    photos: Path, runs: Path, weights: Path, key: str, value: object
) -> None:
    with pytest.raises(
        UserError, match=rf"{weights} was trained with {key} = .*, the run has {value}: set {key}"
    ):
        train(config(photos, runs, init_from=str(weights), **{key: value}))


def test_overwriting_removes_nothing_where_the_initial_weights_are_wrong(
    photos: Path, finished: Path, runs: Path
) -> None:
    run = shutil.copytree(finished / "test", runs / "test")
    before = sorted(run.rglob("*"))
    with pytest.raises(UserError, match=r"there is no weights file at nowhere\.safetensors"):
        train(config(photos, runs, init_from="nowhere.safetensors"), overwrite=True)
    assert sorted(run.rglob("*")) == before


SAW_BOTH = {"data": {"haze": {"photos": 1, "pairs": 0}, "low_light": {"photos": 0, "pairs": 1}}}


@pytest.mark.parametrize(
    ("recipe", "theirs", "ours", "says"),
    [
        (SAW_BOTH, "equalise", "", "with equalised histograms, and the run's are not equalised: it learns"),
        (
            SAW_BOTH,
            "",
            "equalise",
            "with unequalised histograms, and the run's are equalised: it learns anew",
        ),
        (SAW_BOTH, "equalise", "equalise", None),
        (SAW_BOTH, "", "", None),
        ({}, "equalise", "", "with equalised histograms, and the run's are not equalised: it learns anew"),
        ({"source": "release"}, "", "equalise", None),
        ({"data": {"haze": {"photos": 1, "pairs": 0}}}, "", "equalise", None),
    ],
)
def test_photos_that_the_weights_saw_otherwise_equalised_are_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recipe: dict[str, object],
    theirs: str,
    ours: str,
    says: str | None,
) -> None:
    root, out = tree_of_pairs(tmp_path / "pairs", 2), tmp_path / "dark.parquet"
    options = IndexOptions(layout="pairs", task="low_light", split="train", equalise=bool(ours))
    build_index(str(root), str(out), options)
    data = {"index": [str(out)]}
    run = config(tmp_path, tmp_path, data=data, mixture={"low_light": 1.0})
    file = tmp_path / "w.safetensors"
    save_weights(file, build("T"), Schedule.release(), recipe, {"low_light": "equalise"} if theirs else {})
    initial_weights(str(file), run, list_sources(run.data, run.tasks))
    printed = capsys.readouterr().out
    if says is None:
        assert printed == ""
    else:
        assert printed.startswith(f"{file} was trained on low_light photos {says}")
        assert len(printed.splitlines()) == 1
