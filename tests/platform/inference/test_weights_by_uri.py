"""Weights by name: from a path, a store and MLflow's registry, in one way for every command."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from diffuir_core import UserError, build
from diffuir_core.pretrained import PRETRAINED
from diffuir_core.weights import RELEASE_PREFIX
from diffuir_platform import storage
from diffuir_platform.inference import fetch_weights, pinned
from support.store import Store


@pytest.fixture(scope="module")
def registry(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database of MLflow's with the model `mine`: version 1 damaged, 2 the weights and `prod`, 3 the newest."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    client.create_registered_model("mine")
    run = client.create_run(client.create_experiment("test", (folder / "files").as_uri())).info.run_id
    (folder / "damaged.safetensors").write_bytes(weights.read_bytes()[:1000])
    for version, file in enumerate((folder / "damaged.safetensors", weights, weights), 1):
        client.log_artifact(run, str(file), f"registered/{version}")
        client.create_model_version("mine", f"runs:/{run}/registered/{version}", run)
    client.set_registered_model_alias("mine", "prod", "2")
    return uri


@pytest.fixture
def tracker(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The registry as MLflow's clients find it, with an empty cache of fetched models."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return registry


def in_a_bucket(data: bytes, s3: Store, name: str) -> str:
    storage.write_bytes(f"{s3.uri}/models/{name}", data)
    return f"{s3.uri}/models/{name}"


def check(named: str, weights: Path) -> None:
    """`named` stands for the bytes of `weights`, and a worker finds them in a file of the same ending."""
    fetched = fetch_weights(named)
    assert fetched.data == weights.read_bytes()
    assert fetched.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    with fetched.as_file() as file:
        assert file is not None
        assert (file.suffix, file.read_bytes()) == (weights.suffix, weights.read_bytes())
    assert fetched.open().model.variant.name == "T"
    assert not file.exists()


def test_no_name_is_the_shipped_weights_which_are_not_sent() -> None:
    fetched = fetch_weights(None)
    assert (fetched.data, fetched.sha256) == (None, hashlib.sha256(PRETRAINED.read_bytes()).hexdigest())
    with fetched.as_file() as file:
        assert file is None


def test_a_path_names_a_file(weights: Path) -> None:
    check(str(weights), weights)


def test_a_uri_names_a_file_in_a_store(weights: Path, s3: Store) -> None:
    check(in_a_bucket(weights.read_bytes(), s3, "t.safetensors"), weights)
    check(weights.as_uri(), weights)


def test_a_release_keeps_its_ending(s3: Store, tmp_path: Path) -> None:
    state = {RELEASE_PREFIX + name: value for name, value in build("T").state_dict().items()}
    torch.save({"ema": state}, tmp_path / "model-300.pt")
    check(
        in_a_bucket((tmp_path / "model-300.pt").read_bytes(), s3, "model-300.pt"), tmp_path / "model-300.pt"
    )


@pytest.mark.parametrize(
    "named", ["models:/mine@prod", "models:/mine/2", "models:/mine/latest", "models:/mine"]
)
def test_the_registry_names_a_version_or_an_alias(tracker: str, named: str, weights: Path) -> None:
    check(named, weights)


def no_such_bucket(s3: Store, tmp_path: Path) -> str:
    return "s3://absent/t.safetensors"


def no_such_key(s3: Store, tmp_path: Path) -> str:
    return f"{s3.uri}/no.safetensors"


def nonsense_in_a_bucket(s3: Store, tmp_path: Path) -> str:
    return in_a_bucket(b"nonsense", s3, "n.safetensors")


def no_such_file(s3: Store, tmp_path: Path) -> str:
    return str(tmp_path / "no.safetensors")


def nonsense_in_a_file(s3: Store, tmp_path: Path) -> str:
    (tmp_path / "n.pt").write_bytes(b"nonsense")
    return str(tmp_path / "n.pt")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (no_such_file, "there is no weights file at "),
        (nonsense_in_a_file, "n.pt is not a readable PyTorch checkpoint"),
        (no_such_bucket, "there is no bucket absent"),
        (no_such_key, "no.safetensors"),
        (nonsense_in_a_bucket, "n.safetensors"),
    ],
)
def test_a_file_that_is_gone_or_holds_no_weights_is_one_sentence(
    place: Callable[[Store, Path], str], says: str, s3: Store, tmp_path: Path
) -> None:
    named = place(s3, tmp_path)
    with pytest.raises(UserError, match=re.escape(says)) as raised:
        fetch_weights(named)
    assert "\n" not in str(raised.value)
    assert named in str(raised.value) or place is no_such_bucket


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("models:/mine/1", "models:/mine/1 is not a readable safetensors file"),
        ("models:/mine/9", "there is no models:/mine/9"),
        ("models:/mine@staging", "there is no models:/mine@staging"),
        ("models:/other", "there is no models:/other/latest"),
        ("models:/mine@prod/2", "write models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("models:/", "write models:/NAME@ALIAS or models:/NAME/VERSION"),
    ],
)
def test_a_model_that_is_not_registered_or_is_damaged_is_one_sentence(
    tracker: str, named: str, says: str
) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as raised:
        fetch_weights(named)
    assert "\n" not in str(raised.value)


def test_the_registry_needs_the_address_of_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for function in (fetch_weights, pinned):
        with pytest.raises(UserError, match="set MLFLOW_TRACKING_URI"):
            function("models:/mine@prod")


def test_a_pinned_alias_is_the_version_that_it_names_now(tracker: str, weights: Path) -> None:
    name = pinned("models:/mine@prod")
    assert name == "models:/mine/2"
    assert pinned("models:/mine") == "models:/mine/3"
    assert pinned(name) == name
    client = MlflowClient(tracker)
    client.set_registered_model_alias("mine", "prod", "3")
    try:
        assert pinned("models:/mine@prod") == "models:/mine/3"
        check(name, weights)
    finally:
        client.set_registered_model_alias("mine", "prod", "2")
    with pytest.raises(UserError, match="there is no models:/mine@staging"):
        pinned("models:/mine@staging")


def test_a_pinned_path_does_not_depend_on_the_working_folder(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(weights.parent)
    assert pinned(weights.name) == str(weights)
    assert pinned(os.path.join(".", weights.name)) == str(weights)
    assert [pinned(name) for name in (None, "s3://bucket/t.safetensors")] == [
        None,
        "s3://bucket/t.safetensors",
    ]
