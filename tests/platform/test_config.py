from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from diffuir_core import UserError
from diffuir_platform.config import Config, field_of, load_config, to_overrides, to_yaml
from diffuir_platform.restore import RestoreOptions
from diffuir_platform.restore.settings import RestoreJob
from diffuir_platform.serve import ServeSettings
from diffuir_platform.sweep import SweepConfig
from diffuir_platform.train import TrainConfig
from support.paths import JOBS


def refused(reason: str, *overrides: str, file: Path | None = None) -> str:
    with pytest.raises(UserError, match=reason) as raised:
        load_config(TrainConfig, file, overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_defaults_are_the_published_recipe() -> None:
    config = load_config(TrainConfig, None)
    assert config.learning_rate == 8e-5
    assert config.betas == (0.9, 0.99)
    assert config.steps == 300_000
    assert config.accumulate == 2
    assert config.clip_norm == 1.0
    assert (config.ema.decay, config.ema.every) == (0.995, 10)
    assert [(stage.batch, stage.crop) for stage in config.stages] == [(10, 256)]
    assert config.delta_end == 1.8e-3


@pytest.mark.parametrize("file", sorted(JOBS.glob("train*.yaml")), ids=lambda file: file.name)
def test_every_shipped_config_is_valid(file: Path) -> None:
    assert load_config(TrainConfig, file).name


@pytest.mark.parametrize("file", sorted(JOBS.glob("sweep*.yaml")), ids=lambda file: file.name)
def test_every_shipped_sweep_is_valid(file: Path) -> None:
    assert len(load_config(SweepConfig, file).points()) > 1


def test_a_key_that_stands_twice_in_an_override_is_refused() -> None:
    with pytest.raises(UserError, match="the key 'rain' stands twice: keep one"):
        load_config(TrainConfig, None, ["mixture={rain: 0.4, haze: 0.6, rain: 0.6}"])


def test_overrides_are_read_as_yaml() -> None:
    config = load_config(
        TrainConfig,
        None,
        ["learning_rate=4e-4", "ema.decay=0.9", "data.clean=[a, b]", "stages=[{steps: 5, crop: 64}]"],
    )
    assert config.learning_rate == 4e-4
    assert config.ema.decay == 0.9
    assert config.data.clean == (Path("a"), Path("b"))
    assert config.steps == 5


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("lerning_rate=1e-4", "learning_rate"),
        ("ema.decai=0.9", "ema.decay"),
        ("data.cleen=[a]", "data.clean"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(override: str, nearest: str) -> None:
    assert repr(nearest) in refused("unknown key", override)


def test_an_unknown_key_within_a_list_is_refused() -> None:
    assert "'stages.crop'" in refused("unknown key", "stages=[{steps: 5, cropp: 64}]")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("learning_rate=-1", "learning_rate = -1"),
        ("variant=XL", "variant = 'XL'"),
        ("stages=[{steps: 5, batch: 7}]", "batch of 7"),
        ("stages=[]", "at least one"),
        ("workers=11", "workers = 11"),
        ("mixture={haze: 0.5, rain: 0.4}", "sum to 0.9"),
        ("mixture={fog: 1.0}", "no task 'fog'"),
        ("name=../elsewhere", "name"),
        ("steps", "not an override"),
        ("=5", "not an override"),
        ("seed=[", "not valid YAML"),
        ("seed.deep=1", "seed"),
        ("seed=18446744073709551616", "less than 9223372036854775808"),
        ("registered_model=my model", "registered_model: 'my model' can't name a registered model"),
        ("stages.0.crop=64", r"stages = .* should be a list, as in stages=\[...\]"),
        ("data.clean=/photos", r"data.clean = '/photos': input should be a list, as in data.clean=\[...\]"),
        ("data.clean=[/my photos #1]", r"""in quotes, as in 'data.clean=\["my photos #1"\]'"""),
    ],
)
def test_a_value_out_of_range_is_one_sentence(override: str, reason: str) -> None:
    refused(reason, override)


def test_an_override_reaches_into_a_list(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("stages: [{steps: 3, crop: 32}, {steps: 4, crop: 48}]\nlearning_rate: 1.0e-4\n")
    config = load_config(TrainConfig, file, ["stages.1.crop=64"])
    assert [(stage.steps, stage.crop) for stage in config.stages] == [(3, 32), (4, 64)]
    for place in ("2", "-1", "one"):
        refused(f"'{place}' is not a position in a list of 2", f"stages.{place}.crop=64", file=file)
    refused("learning_rate holds a value", "learning_rate.x=1", file=file)


def test_a_key_that_is_missing_is_named_and_not_what_is_there() -> None:
    with pytest.raises(UserError, match=r"^the settings: name is missing: give it a value$"):
        load_config(SweepConfig, None, ["grid.seed=[1, 2]"])


def test_missing_file(tmp_path: Path) -> None:
    refused("can't read", file=tmp_path / "absent.yaml")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "just words", "\tname: x"])
def test_a_file_that_is_no_config(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert str(file) in refused("YAML|must hold", file=file)


def test_a_binary_file_is_no_config(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(b"\xff\xfe\x00\x81")
    refused("not valid YAML", file=file)


def test_a_key_that_stands_twice_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    for text in ("seed: 1\nvariant: T\nseed: 2\n", "ema:\n  decay: 0.5\n  every: 1\n  decay: 0.6\n"):
        file.write_text(text)
        assert re.search(r"the key '(seed|decay)' stands twice: keep one.*line", refused("YAML", file=file))
    file.write_text("base: &base {decay: 0.5}\nema:\n  <<: *base\n  every: 2\n")
    refused("unknown key|base", file=file)  # a merge is not a repetition


TEXT = st.text(st.characters(exclude_categories=()) | st.sampled_from("\n\r\t'\":#{}[],&*!|>%@`-. \udce9"))
"""Any text, the names of files that are not UTF-8 among it, and often what YAML takes for its own."""


def values_of(annotation: Any, bounds: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a field of that type within its bounds, by their names in pydantic."""
    if annotation is int:
        step = bounds.get("multiple_of", 1)
        least, most = bounds.get("ge", 1) // step, bounds.get("le", bounds.get("lt", 2**63) - 1) // step
        return st.integers(least, most).map(lambda number: number * step)
    if annotation is float:
        return st.floats(bounds.get("ge", 0.0), bounds["le"], exclude_min="gt" in bounds)
    if get_origin(annotation) in (Union, UnionType):
        return st.one_of(*(values_of(part, bounds) for part in get_args(annotation)))
    if get_origin(annotation) is tuple:
        return st.lists(TEXT, max_size=3).map(tuple)
    return TEXT if annotation is str else st.from_type(annotation)


def bounds_of(field: FieldInfo) -> dict[str, Any]:
    names = ("ge", "gt", "le", "lt", "multiple_of")
    found = ((name, getattr(bound, name, None)) for name in names for bound in field.metadata)
    return {name: value for name, value in found if value is not None}


RESTORERS = st.sampled_from(["identity", "sharpen", "module.inner:make"]) | st.builds(
    "{}:{}".format, st.sampled_from(["spandrel", "results"]), TEXT.filter(bool)
)


JOBS_OF_A_RESTORE = st.fixed_dictionaries(
    {name: TEXT for name, field in RestoreJob.model_fields.items() if field.is_required()},
    optional={
        name: values_of(field.annotation, bounds_of(field))
        for name, field in RestoreJob.model_fields.items()
        if not field.is_required()
    }
    | {"restorer": st.none() | RESTORERS},
).map(RestoreJob.model_validate)


@given(JOBS_OF_A_RESTORE)
def test_overrides_and_yaml_made_of_settings_give_them_back(job: RestoreJob) -> None:
    words = to_overrides(job)
    assert not any("\n" in word for word in words)
    assert load_config(RestoreJob, None, shlex.split(shlex.join(words))) == job
    values = yaml.safe_load(to_yaml(job))
    assert list(values) == list(RestoreJob.model_fields)
    assert RestoreJob.model_validate(values) == job


@pytest.mark.parametrize("file", sorted(JOBS.glob("[st]*.yaml")), ids=lambda file: file.name)
def test_so_do_those_of_every_shipped_config(file: Path, tmp_path: Path) -> None:
    """Their settings hold models, tables and lists of them."""
    kinds = {"train": TrainConfig, "sweep": SweepConfig, "serve": ServeSettings}
    model = kinds[file.name[:5]]
    settings = load_config(model, file)
    assert load_config(model, None, to_overrides(settings)) == settings
    (tmp_path / "again.yaml").write_text(to_yaml(settings))
    assert load_config(model, tmp_path / "again.yaml") == settings


def test_a_field_of_another_model_has_its_default_text_and_bounds() -> None:
    class Other(Config):
        steps: int | None = field_of(RestoreOptions, "steps", default=None)

    assert Other().steps is None
    assert Other.model_fields["steps"].description == RestoreOptions.model_fields["steps"].description
    for model in (Other, RestoreOptions):
        with pytest.raises(ValidationError, match="less than or equal to 1000"):
            model(steps=1001)
    assert RestoreOptions().steps == 3, "the original is as it was"
