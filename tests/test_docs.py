"""Every command, config, path, link and code block of the documentation is parsed here as its program would."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import click
import pytest
import yaml
from pydantic import ValidationError

from diffuir_core import UserError
from diffuir_platform.command_table import COMMANDS, app
from diffuir_platform.config import load_config
from diffuir_platform.data.layouts import find_layout
from diffuir_platform.restore.settings import RestoreJob
from diffuir_platform.serve import ServeSettings
from diffuir_platform.serve.schemas import RestoreQuery
from diffuir_platform.sweep import SweepConfig
from diffuir_platform.train import TrainConfig
from support.documents import Command, blocks, commands, links, named_paths, named_scripts
from support.paths import JOBS, ROOT
from support.structure import tracked_files

NUMBERS = {"N": "20", "P": "3"}
"""Placeholders of numbers."""
MODELS = {"train": TrainConfig, "sweep": SweepConfig, "restore": RestoreJob, "serve": ServeSettings}
"""First part of the name of a config in `jobs/` -> its model."""
CURL_OPTIONS = {
    "--fail": 0,
    "-sS": 0,
    "-D": 1,
    "--data-binary": 1,
    "-o": 1,
    "-F": 1,
    "-H": 1,
    "-d": 1,
    "-X": 1,
}
"""Option of curl -> number of its values."""


def diffuir(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Resolve the settings of a command line as --print-config does; where it only names options, parse those."""
    words = [NUMBERS.get(word, word) for word in words]
    if not words or words[0] in ("COMMAND", "--help", "--version"):
        return
    name, *arguments = words
    command = app.get_command(click.Context(app), name)  # type: ignore[attr-defined]
    if "--help" in arguments:
        return
    try:
        given = command.make_context(name, list(arguments)).params
    except click.BadOptionUsage as error:  # an option that a sentence names without its value
        if arguments[-1] != error.option_name:
            raise
        return
    if given["words"] or given["config"]:
        assert not app([name, *arguments, "--print-config"], standalone_mode=False)
        settings = yaml.safe_load(capsys.readouterr().out)
        if name == "index":
            find_layout(settings["layout"])


def python(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    script, *arguments = words
    if script == "-m":
        module, *rest = arguments
        if module != "pip":
            assert (ROOT / "platform" / module.replace(".", "/")).exists(), f"there is no module {module}"
        else:
            assert rest[0] in ("wheel", "install")
        return
    assert (ROOT / script).is_file(), f"there is no {script}"
    if script.startswith("jobs/"):
        name = Path(script).stem
        as_file = ["--config"] if name == "restore" else []
        diffuir([name, *as_file, *arguments], capsys)
        return
    source = (ROOT / script).read_text(encoding="utf-8")
    for option in arguments:
        if option.startswith("--"):
            assert f'"{option}"' in source, f"{script} has no option {option}"


def make(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            assert f"$({name})" in (ROOT / "Makefile").read_text(encoding="utf-8"), f"make has no {name}"
            assert (ROOT / re.split("::| ", value)[0]).exists(), f"there is no {value}"
        else:
            assert word in targets, f"there is no target {word}"


def pytest_(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for word in words:
        if "/" in word:
            assert (ROOT / word.partition("::")[0]).exists(), f"there is no {word}"


def local_cluster(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    source = (ROOT / "cluster" / "local.py").read_text(encoding="utf-8")
    for word in words:
        assert word.isdigit() or f'"{word}"' in source, f"cluster/local.sh knows no {word}"


def curl(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    left = list(words)
    urls = []
    while left:
        word = left.pop(0)
        if word.startswith("-"):
            del left[: CURL_OPTIONS[word]]
        else:
            urls.append(urlsplit(word))
    (url,) = urls
    assert url.path in ("/v1/restore", "/v1/models", "/healthz", "/readyz", "/openapi.json")
    if url.path == "/v1/restore":
        RestoreQuery.model_validate({name: values[-1] for name, values in parse_qs(url.query).items()})


def ray(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from ray.scripts.scripts import cli

    if "--" in words:
        place = words.index("--")
        program, *rest = words[place + 1 :]
        assert program == "python"
        python(rest, capsys)
        words = [*words[:place], "--", "true"]
    _parse(cli, words)


def serve(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from ray.serve.scripts import cli

    _parse(cli, words)


def mlflow(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from mlflow.cli import cli

    _parse(cli, words)


def _parse(command: click.Command, words: list[str]) -> None:
    """Parse the options of a command line of somebody else's program."""
    context = click.Context(command)
    while words and isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
        context = click.Context(command, parent=context)
    if words:
        command.make_context(command.name, list(words), resilient_parsing=False)


def unchecked(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Programs of the system."""


PARSERS: dict[str, Callable[[list[str], pytest.CaptureFixture[str]], None]] = {
    "diffuir": diffuir,
    "python": python,
    "make": make,
    "pytest": pytest_,
    "cluster/local.sh": local_cluster,
    "curl": curl,
    "ray": ray,
    "serve": serve,
    "mlflow": mlflow,
    ".ci/run": unchecked,
    "apt-get": unchecked,
    "eval": unchecked,
    "pip": unchecked,
    "source": unchecked,
}


@lru_cache
def found() -> list[Command]:
    return commands()


def test_the_documentation_is_found() -> None:
    pages = {command.page for command in found()}
    assert {"README.md", "cluster/README.md", "jobs/train.py", "jobs/train-pretrained.yaml"} <= pages
    assert len(found()) > 80
    lines = " ".join(" ".join(command.words) for command in found())
    for name in COMMANDS.keys() - {"demo"}:
        assert f"diffuir {name} " in lines
    for name in ("train", "sweep", "restore"):
        assert f"python jobs/{name}.py jobs/" in lines


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_documented_command_is_understood(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    program, *words = command.words
    assert program in PARSERS, f"say in {Path(__file__).name} how {program} is parsed"
    try:
        PARSERS[program](words, capsys)
    except (UserError, click.ClickException) as error:
        pytest.fail(f"{command}: {error}")


@pytest.mark.parametrize("file", sorted(JOBS.glob("*.yaml")), ids=lambda file: file.name)
def test_a_shipped_config_is_one_of_its_model(file: Path) -> None:
    if file.name == "runtime-env.yaml":
        assert set(yaml.safe_load(file.read_text())) == {"env_vars", "excludes"}
        return
    load_config(MODELS[file.stem.partition("-")[0]], file)


def test_quick_starts_name_photos_that_ship() -> None:
    train = load_config(TrainConfig, JOBS / "train-quick.yaml")
    sweep = load_config(SweepConfig, JOBS / "sweep-quick.yaml").train
    folders = [*train.data.clean, *sweep.data.clean]
    folders += [folder for each in sweep.validation.pairs.values() for folder in each]
    assert folders
    for folder in folders:
        assert not folder.is_absolute()
        assert (ROOT / folder).is_dir()


def test_paths_that_are_named_exist() -> None:
    missing = [
        f"{page}: {path}"
        for page, path in named_paths()
        if not any(ROOT.glob(path.rstrip("/"))) and not (ROOT / path).exists()
    ]
    assert missing == []


def test_scripts_and_modules_that_are_named_exist() -> None:
    there = [f"/{file.relative_to(ROOT).as_posix()}" for file in tracked_files(ROOT)]
    missing = [
        f"{page}: {name}"
        for page, name in named_scripts()
        if not (ROOT / page).parent.joinpath(name).exists()
        and not any(path.endswith(f"/{name}") for path in there)
    ]
    assert missing == []


def test_links_lead_to_files() -> None:
    assert [f"{page}: {os.path.relpath(file, ROOT)}" for page, file in links() if not file.exists()] == []


@pytest.mark.parametrize(
    "block",
    [
        b
        for b in blocks()
        if b.language == "python" or (b.language == "" and re.match("from |import ", b.text))
    ],
    ids=lambda block: f"{block.page}: {block.text.splitlines()[0]}",
)
def test_python_compiles(block: object) -> None:
    compile(block.text, block.page, "exec")  # type: ignore[attr-defined]


@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "yaml"], ids=lambda block: block.page)
def test_yaml_is_yaml(block: object) -> None:
    assert yaml.safe_load(block.text)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        "diffuir restor IN OUT",
        "diffuir restore IN OUT --strenght 0.5",
        "diffuir restore IN OUT strenght=0.5",
        "diffuir restore IN OUT --steps 0",
        "diffuir restore --strenght",
        "diffuir train jobs/train-slow.yaml",
        "diffuir train jobs/train-quick.yaml data.cleen=[FOLDER]",
        "diffuir index FOLDER OUT --layout rain13",
        "python jobs/train.py jobs/train-quick.yaml lerning_rate=1",
        "python tests/benchmarks/restorer.py --tuns 3",
        "make tests",
        "make test TEST=tests",
        "curl --fail http://127.0.0.1:8000/v1/restored",
        "curl --fail http://127.0.0.1:8000/v1/restore?stepps=3",
        "ray job submit --adress http://HEAD:8265 -- python jobs/train.py jobs/train-quick.yaml",
        "serve deploi serve.yaml",
        "mlflow ui --backend sqlite:///x",
        "cluster/local.sh start",
    ],
)
def test_a_command_that_is_not_one_is_noticed(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    program, *words = line.split()
    with pytest.raises((AssertionError, KeyError, UserError, ValidationError, click.ClickException)):
        PARSERS[program](words, capsys)
