"""A training run ends with one sentence, and resumes only from a checkpoint of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from diffuir_core import UserError
from diffuir_platform.storage.errors import FULL_STORE, NotThere, StoreError
from diffuir_platform.train import TrainConfig, train
from diffuir_platform.train.checkpoints import SNAPSHOT_FILE
from diffuir_platform.train.record import result_settings
from diffuir_platform.train.run import find_user_error
from diffuir_platform.train.settings import StageConfig
from diffuir_platform.train.state import STATE_FILE, TrainState
from support.small_run import config
from support.store import Store

CPU = torch.device("cpu")
CHAOS = "DIFFUIR_CHAOS" in os.environ
"""Whether all intervals are tried; otherwise a few."""
INTERVALS = [(1, 1), (50, 3), (3, 50), (2, 3), (5, 2), (7, 1), (50, 50), (60, 7)]


@pytest.mark.slow
@pytest.mark.parametrize(("log_every", "checkpoint_every"), INTERVALS if CHAOS else INTERVALS[:2])
def test_a_loss_that_is_no_number_ends_the_run_before_it_is_kept(
    photos: Path,
    runs: Path,
    ray: object,
    capsys: pytest.CaptureFixture[str],
    log_every: int,
    checkpoint_every: int,
) -> None:
    intervals = {"log_every": log_every, "checkpoint_every": checkpoint_every}
    diverging = config(photos, runs, learning_rate=0.9, clip_norm=1e12, sampled_share=0.0, **intervals)
    with pytest.raises(UserError, match=r"no finite numbers at step \d+: take another name and a lower"):
        train(diverging.model_copy(update={"stages": (StageConfig(steps=60, crop=16, batch=10),)}))
    assert capsys.readouterr().out.count("loss nan") <= 1
    kept = list((runs / "test").glob("checkpoint_*/state.pt"))
    assert kept or checkpoint_every > 1, "those from before are there"
    for file in kept:
        state = torch.load(file, weights_only=True)
        moments = [moment for values in state["optimizer"]["state"].values() for moment in values.values()]
        for value in (*state["model"].values(), *state["ema"].values(), *moments):
            assert value.isfinite().all()


def test_a_state_is_not_finite_where_any_part_of_it_is_not(photos: Path, tmp_path: Path) -> None:
    def state() -> TrainState:
        made = TrainState(config(photos, tmp_path), CPU)
        for parameter in made.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        made.advance(made.network)
        return made

    assert state().is_finite()
    for part in ("model", "averaged", "optimizer"):
        spoilt = state()
        if part == "optimizer":
            next(iter(spoilt.optimizer.state.values()))["exp_avg_sq"].fill_(torch.inf)
        else:
            with torch.no_grad():
                next(getattr(spoilt, part).parameters()).fill_(torch.nan)
        assert not spoilt.is_finite(), part


def test_a_state_that_no_disk_has_room_for_says_so(photos: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        begun = config(photos, tmp_path)
        with pytest.raises(OSError, match="No space left on device"):
            TrainState(begun, CPU).save(disk, recipe(begun))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_before_anything_is_averaged_the_model_itself_is_what_is_kept(photos: Path, tmp_path: Path) -> None:
    state = TrainState(config(photos, tmp_path, ema={"decay": 0.5, "every": 3}), CPU)
    for step in range(1, 5):
        for parameter in state.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        state.advance(state.network)
        averaged, model = state.averaged.state_dict(), state.model.state_dict()
        same = all(torch.equal(value, averaged[name]) for name, value in model.items())
        assert same == (step <= 3), step


def recipe(config: TrainConfig, data: str = "1234") -> dict[str, Any]:
    return {"settings": result_settings(config.model_dump(mode="json")), "fingerprints": {"data": data}}


def test_a_checkpoint_of_another_run_is_not_gone_on_from(photos: Path, tmp_path: Path) -> None:
    begun = config(photos, tmp_path)
    TrainState(begun, CPU).save(tmp_path, recipe(begun))
    TrainState(begun, CPU).load(tmp_path, recipe(begun))
    for changes, sentence in (
        ({"variant": "S"}, r'of a run with variant = "T", not "S"'),
        ({"seed": 5}, r"of a run with seed = 0, not 5"),
    ):
        other = config(photos, tmp_path, **changes)
        with pytest.raises(UserError, match=sentence):
            TrainState(other, CPU).load(tmp_path, recipe(other))
    with pytest.raises(UserError, match="of a run with other images"):
        TrainState(begun, CPU).load(tmp_path, recipe(begun, "5678"))


def test_a_damaged_checkpoint_is_named(photos: Path, tmp_path: Path) -> None:
    begun = config(photos, tmp_path)
    state = TrainState(begun, CPU)
    state.save(tmp_path, recipe(begun))
    whole = (tmp_path / STATE_FILE).read_bytes()
    for size in (0, 1000, len(whole) // 2):
        (tmp_path / STATE_FILE).write_bytes(whole[:size])
        with pytest.raises(UserError, match="checkpoint that the run goes on from is damaged"):
            state.load(tmp_path, recipe(begun))


def test_a_run_without_its_record_is_not_gone_on_with(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "test"
    run.mkdir()
    (run / SNAPSHOT_FILE).write_text("{}")
    with pytest.raises(UserError, match=r"holds checkpoints and no run\.json"):
        train(config(photos, tmp_path))
    (run / "run.json").write_text('{"settings":')
    with pytest.raises(UserError, match=r"run\.json was cut off"):
        train(config(photos, tmp_path))


def test_gpus_that_are_not_there_are_not_waited_for(photos: Path, tmp_path: Path, ray: object) -> None:
    with pytest.raises(UserError, match="takes 1 GPUs and this machine has 0: leave out gpus"):
        train(config(photos, tmp_path, gpus=True))


def test_a_storage_that_others_cannot_see_is_refused(photos: Path) -> None:
    with pytest.raises(UserError, match="memory:// is another one in each process"):
        train(config(photos, photos).model_copy(update={"storage": "memory://runs"}))


def test_a_place_for_the_tracker_that_is_a_file_is_named(
    photos: Path, tmp_path: Path, s3: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(
        UserError, match=r"MLflow's files can't be kept in .*/runs \(File exists\): set track"
    ):
        train(config(photos, tmp_path).model_copy(update={"storage": f"{s3.uri}/runs"}))


def test_a_photo_whose_name_is_no_text_is_named(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "1.png").read_bytes())
    with pytest.raises(UserError, match=r"caf\N{REPLACEMENT CHARACTER}\.png is not UTF-8: rename it"):
        train(config(folder, tmp_path))


def test_a_workers_sentence_is_found_in_its_traceback() -> None:
    for kind in (UserError, StoreError, NotThere):
        text = f"Traceback...\n  File ...\n{kind.__module__}.{kind.__qualname__}: there is no bucket b: check it\n"
        assert find_user_error(RuntimeError(text)) == "there is no bucket b: check it"
    full = RuntimeError("Traceback...\nOSError: [Errno 28] Error writing bytes. No space left on device\n")
    assert "a disk is full" in str(find_user_error(full))
    sqlite = RuntimeError("sqlite3.OperationalError: database or disk is full")
    assert "a disk is full" in str(find_user_error(sqlite))
    for code in FULL_STORE:
        refused = translate_boto_error(ClientError({"Error": {"Code": code}}, "PutObject"))
        assert "the store of the run's folder is full" in str(find_user_error(RuntimeError(str(refused))))
    assert find_user_error(RuntimeError("IndexError: list index out of range")) is None
