"""Parameters, tags and model card of a run in MLflow, and the weights that it registers there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

import diffuir_core
from diffuir_core import Schedule, UserError, build, open_weights, save_weights
from diffuir_platform.tracking import (
    GitState,
    code_state,
    fetch_registered,
    git_state,
    model_card,
    submitted_state,
)
from diffuir_platform.train import train
from support.mlflow_server import Server, Start
from support.small_run import config


def test_nested_and_long_settings_become_params(start: Start) -> None:
    tracker = start()
    settings = {
        "name": "x",
        "none": None,
        "data": {"clean": ["a", "b"], "pairs": {}},
        "stages": ({"steps": 1}, {"steps": 2}),
        "long": "y" * 10_000,
    }
    tracker.log_params(settings | {f"many{i}": i for i in range(250)})
    tracker.finish("FINISHED")
    client = MlflowClient(tracker.uri)
    params = client.get_run(tracker.run_id).data.params
    assert params["data.clean"] == '["a", "b"]'
    assert params["data.pairs"] == "{}"
    assert (params["stages.0.steps"], params["stages.1.steps"], params["none"]) == ("1", "2", "None")
    assert params["many249"] == "249"
    assert len(params["long"]) == 6000
    assert params["long"].endswith("whole in params.json)")
    whole = json.loads(Path(client.download_artifacts(tracker.run_id, "params.json")).read_text())
    assert whole["long"] == "y" * 10_000


def test_a_run_has_its_provenance_as_tags(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository" / "jobs"
    repository.mkdir(parents=True)

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=repository, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "--initial-branch=trunk")
    assert git_state(repository) is None, "nothing is committed"
    (repository / "job.yaml").write_text("a: 1")
    git("add", ".")
    git("commit", "-m", "Begin")
    (repository / "untracked").touch()
    commit = git("rev-parse", "HEAD")
    assert git_state(repository) == GitState(commit, "trunk", dirty=False)
    (repository / "job.yaml").write_text("a: 2")
    monkeypatch.setattr(diffuir_core, "__file__", str(repository / "__init__.py"))

    tracker = start(parent="f" * 32, index="abc", data="def")
    tags = MlflowClient(tracker.uri).get_run(tracker.run_id).data.tags
    assert tags["mlflow.source.git.commit"] == commit
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert tags["mlflow.source.git.dirty"] == "true"
    assert tags["mlflow.parentRunId"] == "f" * 32
    assert tags["diffuir.index"] == "abc"
    assert tags["diffuir.data"] == "def"
    assert tags["diffuir.version"]

    for name, value in submitted_state().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(diffuir_core, "__file__", str(tmp_path / "__init__.py"))
    assert code_state() == GitState(commit, "trunk", dirty=True), "a job has no repository"
    (repository / "venv").mkdir()
    assert git_state(repository / "venv") is None, "no file of it is tracked"

    git("checkout", "--detach", "--force")
    assert git_state(repository) == GitState(commit, "", dirty=False)
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert git_state(repository) is None, "there is no git"


def test_the_card_holds_the_recipe() -> None:
    recipe = {
        "settings": {"variant": "T", "data": {"clean": ["a|b"]}},
        "data": {"haze": {"photos": 10, "pairs": 0}, "rain": {"photos": 3}},
        "steps_done": 300,
    }
    card = model_card("DiffUIR-T", recipe, {"rain100l": {"PSNR": 31.6789}}, GitState("c0ffee", "main", True))
    lines = card.splitlines()
    for line in (
        "# DiffUIR-T",
        "| rain100l | 31.68 |",
        "| task | photos | pairs |",
        "| rain | 3 |  |",
        '| data.clean | ["a\\|b"] |',
        "| steps_done | 300 |",
        "Commit c0ffee of main, with changes that are not committed.",
    ):
        assert line in lines


@pytest.mark.parametrize("kind", ["database", "server"])
def test_registered_weights_come_back_the_same(
    kind: str, request: pytest.FixtureRequest, start: Start, tmp_path: Path
) -> None:
    fixture = request.getfixturevalue(kind)
    uri = fixture.uri if isinstance(fixture, Server) else fixture
    tracker, cache = start(uri=uri), tmp_path / "cache"
    file = tmp_path / "weights.safetensors"
    contents = [os.urandom(100_000) for _ in range(2)]
    for content in contents:
        file.write_bytes(content)
        tracker.register(file, "# The card", "diffuir-t", "best")
    tracker.register(file, "# The card", "diffuir-t", "latest")  # again: no third version
    tracker.finish("FINISHED")

    fetched = [fetch_registered(uri, "diffuir-t", v, cache) for v in ("1", "2", "best", "latest")]
    assert [path.read_bytes() for path in fetched] == [contents[0], *(3 * [contents[1]])]
    assert fetched[1] == fetched[2], "the same bytes are kept once"
    assert (fetched[0].parent / "README.md").read_text() == "# The card"
    versions = MlflowClient(uri).search_model_versions("name = 'diffuir-t'")
    assert sorted((str(v.version), v.run_id) for v in versions) == [
        ("1", tracker.run_id),
        ("2", tracker.run_id),
    ]
    for absent in ("3", "worst"):
        with pytest.raises(UserError, match=r"there is no models:/diffuir-t[/@]" + absent):
            fetch_registered(uri, "diffuir-t", absent, cache)
    MlflowClient(uri).create_registered_model("empty")
    for other in ("other", "empty"):
        with pytest.raises(UserError, match=f"there is no models:/{other}/latest"):
            fetch_registered(uri, other, cache=cache)


def test_a_run_starts_from_weights_of_the_registry(
    start: Start, database: str, photos: Path, tmp_path: Path, ray: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(7)
    model, file = build("T"), tmp_path / "weights.safetensors"
    save_weights(file, model, Schedule.release(), {"steps_done": 123})
    tracker = start()
    tracker.register(file, "# The card", "first", "best")
    tracker.finish("FINISHED")

    changes = {"stages": [{"steps": 1, "crop": 16, "batch": 10}], "learning_rate": 1e-7}
    run = config(photos, tmp_path / "runs", init_from="models:/first@best", **changes)
    trained = open_weights(train(run))
    assert trained.recipe["init_from"] == {"steps_done": 123}
    assert trained.recipe["settings"]["init_from"] == "models:/first@best"
    expected = model.state_dict()
    for name, value in trained.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0)

    with pytest.raises(UserError, match=r"models:/first@best was trained with variant = T, the run has S"):
        train(run.model_copy(update={"name": "other", "variant": "S"}))
    with pytest.raises(UserError, match="there is no models:/first@worst"):
        train(run.model_copy(update={"name": "other", "init_from": "models:/first@worst"}))


def test_weights_that_were_changed_behind_the_registry_are_refused(start: Start, tmp_path: Path) -> None:
    tracker = start(experiment="changed")
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"as trained")
    tracker.register(file, "", "changed")
    tracker.finish("FINISHED")
    (stored,) = (tmp_path / "artifacts").rglob("*.safetensors")  # the experiment's own folder
    stored.write_bytes(b"something else")
    with pytest.raises(UserError, match="not what was registered"):
        fetch_registered(tracker.uri, "changed", cache=tmp_path / "cache")


@pytest.mark.parametrize(("name", "alias"), [("a/b", None), ("a", "v2"), ("a", "2"), ("a", "x y")])
def test_names_that_mlflow_would_refuse_are_refused_at_once(
    start: Start, tmp_path: Path, name: str, alias: str | None
) -> None:
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(UserError, match="registered model"):
        start().register(tmp_path / "w.safetensors", "", name, alias)


def test_fetching_from_nobody_is_one_sentence(nobody: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be used"):
        fetch_registered(f"http://a:b@{nobody}", "diffuir-t", cache=tmp_path)
