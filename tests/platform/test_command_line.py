"""The command line: every command takes its settings in the same ways, and a mistake is one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import yaml
from pydantic import BaseModel, Field

from diffuir_platform.cli import exit_code_of
from diffuir_platform.command_line import SettingsCommand, Shortcut
from diffuir_platform.command_table import COMMANDS, app
from diffuir_platform.config import Config
from diffuir_platform.serve import ServeSettings
from support.paths import JOBS

ASKED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "restore": (
        ["in", "out", "--include", "a*", "--tile", "256", "--equalise", "exclude=[b, c]"],
        {"source": "in", "include": ["a*"], "tile": 256, "equalise": True, "exclude": ["b", "c"], "steps": 3},
    ),
    "train": (
        ["data.clean=[photos]", "--learning-rate", "1e-4", "ema.decay=0.9", "--no-compile"],
        {"learning_rate": 1e-4, "ema": {"decay": 0.9, "every": 10}, "compile": False, "name": "diffuir"},
    ),
    "sweep": (
        [str(JOBS / "sweep-quick.yaml"), "--at-once", "1", "--address", "auto", "grid.seed=[1, 2]"],
        {"name": "quick-sweep", "at_once": 1},
    ),
    "evaluate": (
        ["pairs", "--protocol", "rgb-3d", "--out", "measured"],
        {"pairs": "pairs", "protocol": "rgb-3d", "out": "measured", "precision": "float32"},
    ),
    "analyse": (
        ["steps", "pairs", "--counts", "1", "--counts", "3", "--protocol", "rgb"],
        {"analysis": "steps", "source": "pairs", "counts": [1, 3], "protocol": "rgb"},
    ),
    "fit-niqe": (
        ["photos", "own.npz", "--metric", "il-niqe"],
        {"photos": "photos", "out": "own.npz", "metric": "il-niqe"},
    ),
    "index": (
        ["root", "out.parquet", "--layout", "pairs", "--task", "rain"],
        {"root": "root", "out": "out.parquet", "layout": "pairs", "task": "rain", "mismatched": 0.01},
    ),
    "demo": (["--out", "elsewhere", "steps=1"], {"out": "elsewhere", "steps": 1, "seed": 0}),
}
"""Arguments of each command, and settings that they give."""


def command(name: str) -> SettingsCommand:
    found = app.get_command(app.make_context("diffuir", [name]), name)
    assert isinstance(found, SettingsCommand)
    return found


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert exit_code_of(lambda: app([*arguments, "--print-config"], standalone_mode=False)) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert exit_code_of(lambda: app(list(arguments), standalone_mode=False)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("name", ASKED)
def test_what_print_config_prints_is_a_file_that_config_takes(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments, settings = ASKED[name]
    once = printed(capsys, name, *arguments)
    found = yaml.safe_load(once)
    assert {**found, **settings} == found
    (tmp_path / "again.yaml").write_text(once)
    assert printed(capsys, name, "--config", str(tmp_path / "again.yaml")) == once


def test_for_a_sweep_the_address_is_that_of_its_runs(capsys: pytest.CaptureFixture[str]) -> None:
    found = yaml.safe_load(printed(capsys, "sweep", *ASKED["sweep"][0]))
    assert found["train"]["address"] == "auto"
    assert "name" not in found["train"], "each run has its own"


def test_for_serve_it_prints_what_serve_deploy_takes(capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load(printed(capsys, "serve", "--weights", "t.pt", "--port", "8123", "max_wait=2"))
    assert config["http_options"]["port"] == 8123
    settings = ServeSettings.model_validate(config["applications"][0]["args"])
    assert (settings.models, settings.max_wait) == ({"default": "t.pt"}, 2.0)
    assert unwrapped("`serve deploy` takes") in unwrapped(help_of("serve", capsys))


def test_print_config_is_of_every_command() -> None:
    assert {*ASKED, "serve"} == set(COMMANDS)


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        app([name, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_every_setting_and_begins_with_the_line_of_the_table(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = unwrapped(help_of(name, capsys))
    assert unwrapped(COMMANDS[name].help) in text
    options = {option for param in command(name).params for option in param.opts}
    for key, field in command(name).model.model_fields.items():
        is_argument = key in command(name).arguments
        assert is_argument or f"--{key.replace('_', '-')}" in options or key in text, key
        if not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            assert unwrapped(str(field.description)) in text, key


def unwrapped(text: str) -> str:
    """The text without the spaces and line breaks that come with a narrow terminal."""
    return "".join(text.split())


def settings_within(model: type[BaseModel]) -> list[tuple[str, str | None]]:
    """(its name, its help text) of each setting of a model and of the models within it."""
    found = []
    for name, field in model.model_fields.items():
        inner = [part for part in _parts(field.annotation) if issubclass(part, BaseModel)]
        if inner != [field.annotation]:
            found.append((f"{model.__name__}.{name}", field.description))
        for part in inner:
            found += settings_within(part)
    return found


def _parts(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts(inner)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text_is_whole_sentences(name: str) -> None:
    modes = command(name).modes
    for setting, text in [
        *settings_within(command(name).model),
        *(settings_within(modes) if modes is not None else []),
    ]:
        assert text, f"{setting} has no docstring"
        assert text[0].isupper(), setting
        assert text.endswith("."), setting
        assert text.split()[0] not in ("Of", "That", "What", "How", "As"), setting


@pytest.mark.parametrize("arguments", [["--help"], ["restore", "--help"], ["serve", "--help"]])
def test_help_loads_neither_torch_nor_ray(arguments: list[str]) -> None:
    code = f"""
import sys
from diffuir_platform.command_table import app
try:
    app({arguments})
finally:
    loaded = {{"torch", "ray", "mlflow", "pyarrow", "pydantic"}} & set(sys.modules)
    print("LOADED", *sorted(loaded), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ")
    (line,) = done.stderr.splitlines()
    assert line.split()[1:] == ([] if arguments == ["--help"] else ["pydantic"])


class Part(Config):
    depth: int = 1
    """Depth."""


class Example(Config):
    source: str
    """Source."""
    target: str = "out"
    """Target."""
    steps: int = Field(default=3, ge=1)
    """Steps."""
    share: float | None = None
    """Share."""
    fast: bool = False
    """Fast."""
    compile: bool | None = None
    """Compile."""
    kind: Literal["a", "b"] = "a"
    """Kind."""
    only: tuple[str, ...] = ()
    """Only."""
    part: Part = Part()
    """Part."""


class Modes(Config):
    plan: bool = False
    """Plan."""
    nodes: int = Field(default=1, ge=1)
    """Nodes."""


def run_example(tmp_path: Path, text: str, *arguments: str) -> tuple[Example, Modes]:
    """The settings and modes that a command gets of a file with `text`, and arguments."""
    got: list[Any] = []

    def run(settings: Example, modes: Modes) -> int:
        got.extend((settings, modes))
        return 7

    (tmp_path / "file.yaml").write_text(text)
    example = SettingsCommand(
        run,
        Example,
        arguments={"source": "IN", "target": "OUT"},
        modes=Modes,
        shortcuts={"depth": Shortcut(key="part.depth", help="Depth.", value=int)},
    )
    words = ["--config", str(tmp_path / "file.yaml"), *arguments]
    assert example.main(words, standalone_mode=False) == 7
    settings, modes = got
    return settings, modes


def test_options_win_over_words_and_words_over_the_file(tmp_path: Path) -> None:
    text = "{source: file, steps: 4, share: 0.5, fast: true, kind: b, only: [x], part: {depth: 2}}"
    settings, modes = run_example(tmp_path, text)
    assert settings == Example(
        source="file", steps=4, share=0.5, fast=True, kind="b", only=("x",), part=Part(depth=2)
    )
    assert modes == Modes()
    settings, _ = run_example(tmp_path, text, "steps=5", "share=null", "only=[y, z]", "part.depth=3")
    assert (settings.steps, settings.share, settings.only, settings.part.depth) == (5, None, ("y", "z"), 3)
    given = (
        "--steps 6 steps=5 --no-fast --compile --only p --only q --depth 9 IN part.depth=3 --plan --nodes 3"
    )
    settings, modes = run_example(tmp_path, text, *given.split())
    assert (settings.source, settings.steps, settings.fast, settings.compile) == ("IN", 6, False, True)
    assert (settings.only, settings.part.depth) == (("p", "q"), 9)
    assert modes == Modes(plan=True, nodes=3)


def test_a_word_is_a_setting_only_where_its_key_is_known(tmp_path: Path) -> None:
    settings, _ = run_example(tmp_path, "", "photo=1.jpg", "steps=5", "s3://bucket/year=2024/")
    assert (settings.source, settings.target, settings.steps) == ("photo=1.jpg", "s3://bucket/year=2024/", 5)
    settings, _ = run_example(tmp_path, "", "--", "-in", "./steps=5")
    assert (settings.source, settings.target) == ("-in", "./steps=5")


def test_a_file_of_no_settings_trains_as_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert yaml.safe_load(printed(capsys, "train"))["learning_rate"] == 8e-5


def test_the_config_may_be_the_first_word_of_train_and_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    quick = str(JOBS / "train-quick.yaml")
    assert yaml.safe_load(printed(capsys, "train", "seed=3", quick, "accumulate=2"))["name"] == "quick"
    assert printed(capsys, "train", "--config", quick) == printed(capsys, "train", quick)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["restor"], "there is no command 'restor': choose among restore, train"),
        (["--stepz"], "unknown option --stepz"),
        (["restore"], "IN is missing"),
        (["restore", "in"], "OUT is missing"),
        (["index", "root", "out"], "--layout is missing"),
        (["sweep", "--name", "x"], "grid is missing"),
        (
            ["restore", "in", "out", "--stepz", "1"],
            "unknown option --stepz; the nearest known one is --steps",
        ),
        (["restore", "in", "out", "--steps"], "option '--steps' requires an argument"),
        (["restore", "in", "out", "--steps", "0"], "the options: steps = '0': input should be greater"),
        (["restore", "in", "out", "--tile", "x"], "the options: tile = 'x': input should be a valid integer"),
        (["restore", "in", "out", "--plan", "--nodes", "0"], "the options: nodes = '0'"),
        (["restore", "in", "out", "steps=0"], "the settings: steps = 0: input should be greater"),
        (["restore", "in", "out", "stepz=1"], "unknown key 'stepz'; the nearest known one is 'steps'"),
        (["restore", "in", "out", "more"], "'more' is one argument too many"),
        (["restore", "in", "out", "source=x"], "source is given twice"),
        (["restore", "in", "out", "--config", "no.yaml"], "can't read the config no.yaml"),
        (["train", "no.yaml"], "can't read the config no.yaml"),
        (["train", "lerning_rate=1"], "unknown key 'lerning_rate'; the nearest known one is 'learning_rate'"),
        (["train", "data.cleen=[a]"], "the settings: unknown key 'data.cleen'; the nearest known one is"),
        (
            ["evaluate", "pairs", "--protocol", "y"],
            "protocol = 'y': input should be 'released-y', 'matlab-y', 'rgb-3d', 'rgb' or 'gray'",
        ),
        (["serve", "--port", "0"], "the options: port = '0'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(capsys, *arguments)


def test_a_mistake_in_a_file_names_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "restore.yaml"
    file.write_text("source: in\ntarget: out\nsteps: 0\n")
    assert f"{file}: steps = 0" in refused(capsys, "restore", "--config", str(file))
    assert "the options: quality = '0'" in refused(
        capsys, "restore", "--config", str(file), "--quality", "0", "steps=1"
    )
    assert "unknown key 'quallity'" in refused(
        capsys, "restore", "--config", str(file), "quallity=1", "steps=1"
    )


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: app([], standalone_mode=False)) == 2
    assert "Commands:" in capsys.readouterr().err


def test_shipped_files_are_taken_by_their_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for file in sorted(JOBS.glob("[rst]*.yaml")):
        name = file.stem.partition("-")[0]
        if name in COMMANDS:
            assert printed(capsys, name, "--config", str(file)), file
