from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffuir_core import Restorer, Schedule, UNet, UserError, load_weights, open_weights, save_weights


@pytest.fixture
def saved(tiny: UNet, tmp_path: Path) -> Path:
    file = tmp_path / "tiny.safetensors"
    save_weights(file, tiny, Schedule.release(1.4e-3), {"steps": 7}, {"low_light": "equalise"})
    return file


def test_saved_weights_are_loaded_unchanged(saved: Path, tiny: UNet) -> None:
    weights = open_weights(saved)
    assert weights.model.variant == tiny.variant
    assert weights.schedule.delta_end == 1.4e-3
    assert weights.recipe == {"steps": 7}
    assert weights.preprocessing == {"low_light": "equalise"}
    state = tiny.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in weights.model.state_dict().items())
    assert not weights.model.training


def test_the_header_says_how_many_steps_the_weights_need(tiny: UNet, tmp_path: Path) -> None:
    file = tmp_path / "one.safetensors"
    save_weights(file, tiny, Schedule.release(), steps=1)
    assert open_weights(file).steps == 1
    assert Restorer(file, precision="float32").steps == 1
    assert Restorer(file, precision="float32", steps=2).steps == 2


def test_weights_that_say_nothing_of_steps_need_three(saved: Path, tmp_path: Path) -> None:
    state = load_file(saved)
    with safe_open(saved, framework="pt") as opened:
        header = {key: value for key, value in opened.metadata().items() if key != "steps"}
    older = tmp_path / "older.safetensors"
    save_file(state, older, metadata=header)
    assert open_weights(older).steps == 3
    save_file(state, older, metadata={**header, "steps": "0"})
    refused(older, "damaged header")


def test_saving_leaves_no_other_file(saved: Path) -> None:
    assert [file.name for file in saved.parent.iterdir()] == ["tiny.safetensors"]


def refused(file: Path, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as raised:
        load_weights(file)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.safetensors", "no weights file")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no weights file")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_safetensors(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    refused(saved, "not a readable safetensors")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_checkpoint(tiny: UNet, tmp_path: Path, share: float) -> None:
    file = tmp_path / "model.pt"
    torch.save({"ema": {f"ema_model.model.unet0.{k}": v for k, v in tiny.state_dict().items()}}, file)
    load_weights(file)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    refused(file, "not a readable PyTorch checkpoint")


def test_foreign_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, file)
    refused(file, "not weights of DiffUIR")


@pytest.mark.parametrize("content", [["a", "list"], {"model": {}}, {"ema": {}}])
def test_foreign_checkpoint(tmp_path: Path, content: object) -> None:
    file = tmp_path / "foreign.pt"
    torch.save(content, file)
    with pytest.raises(UserError):
        load_weights(file)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('ran')",))

    file = tmp_path / "hostile.pt"
    torch.save({"ema": Payload()}, file)
    refused(file, "not a readable PyTorch checkpoint")


def test_a_missing_parameter_is_refused(saved: Path) -> None:
    state = load_file(saved)
    del state["final_conv.bias"]
    save_file(state, saved, metadata=header_of(saved))
    refused(saved, "none of the variants")


def test_values_that_are_not_finite_are_refused(saved: Path) -> None:
    state = load_file(saved)
    state["final_conv.bias"][0] = float("nan")
    save_file(state, saved, metadata=header_of(saved))
    refused(saved, "not finite")


def test_damaged_header_is_refused(saved: Path) -> None:
    save_file(load_file(saved), saved, metadata={**header_of(saved), "schedule": "{"})
    refused(saved, "damaged header")


def header_of(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata())
