"""Commands, code blocks, paths and links that the pages and `jobs/` have their readers use."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.paths import JOBS, ROOT
from support.structure import tracked_files

PROGRAMS = (
    *("diffuir", "make", "python", "pytest", "pip", "cluster/local.sh", ".ci/run"),
    *("ray", "serve", "mlflow", "curl", "apt-get", "source", "eval"),
)
"""First words by which a line of a code block, or inline code, is known for a command."""
TOP_FOLDERS = ("diffuir_core", "platform", "jobs", "cluster", "tests", ".ci", ".github")
"""Folders at the root: inline code that begins with one of them is a path."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)*^ {4}.*\n?", re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A code block, or one piece of inline code."""

    page: str
    """Path of the page below the root."""
    language: str
    """Text behind the fence; "" for an indented block, "inline" for inline code."""
    text: str


@dataclass(frozen=True)
class Command:
    """A command as a page has it."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def pages() -> list[Path]:
    """Every Markdown page of the repository."""
    return [file for file in tracked_files(ROOT) if file.suffix == ".md"]


def texts() -> dict[str, str]:
    """Path below the root -> Markdown, of every page, of the comments in `jobs/*.yaml` and of the docstrings of
    `jobs/*.py`."""
    found = {file: file.read_text(encoding="utf-8") for file in pages()}
    for file in sorted(JOBS.glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        comments = (re.sub(r"^ *# ?", "", line) for line in lines if line.lstrip().startswith("#"))
        found[file] = "\n".join(comments) + "\n"
    for file in sorted(JOBS.glob("*.py")):
        found[file] = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "") + "\n"
    return {file.relative_to(ROOT).as_posix(): text for file, text in found.items()}


def blocks() -> Iterator[Block]:
    """Every code block and piece of inline code."""
    for page, text in texts().items():
        for language, code in _FENCE.findall(text):
            yield Block(page, language, code)
        rest = _FENCE.sub("", text)
        for code in _INDENTED.findall(rest):
            yield Block(page, "", re.sub(r"^ {4}", "", code, flags=re.MULTILINE))
        for code in _INLINE.findall(_INDENTED.sub("", rest)):
            yield Block(page, "inline", " ".join(code.split()))


def commands() -> list[Command]:
    """Every command of the documentation, once per page."""
    found = (command for block in blocks() for command in _commands_in(block))
    return list(dict.fromkeys(found))


def _commands_in(block: Block) -> Iterator[Command]:
    if block.language not in ("", "inline", "console", "sh", "bash"):
        return
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    if block.language == "console":  # what has no prompt is output
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    variables: dict[str, str] = {}
    for line in lines:
        if assignment := re.fullmatch(r"(\w+)=(\S+)", line):
            variables[assignment[1]] = assignment[2]
            continue
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        words = _words(line)
        if words and (words[0] in PROGRAMS or block.language == "console"):
            yield Command(block.page, tuple(words))


def _words(line: str) -> list[str]:
    """The words of a command without comment, redirection, background sign, variables before it and folder."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # prose, with an apostrophe
        return []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    for end in (">", "|", "&", "&&"):
        if end in words:
            words = words[: words.index(end)]
    if words:
        words[0] = words[0].removeprefix(".venv/bin/")
    return words


def named_paths() -> Iterator[tuple[str, str]]:
    """(page, path from the root) of inline code that is a path of this repository; * and {} may be in it."""
    for block in blocks():
        if (
            block.language == "inline"
            and block.text.partition("/")[0] in TOP_FOLDERS
            and " " not in block.text
        ):
            path = block.text.partition("::")[0]
            if "/" in path and not re.search(r"[<>=(]", path):
                yield block.page, path


def named_scripts() -> Iterator[tuple[str, str]]:
    """(page, name) of inline code that is the name of a script or module, from any folder on."""
    for block in blocks():
        if block.language == "inline" and re.fullmatch(r"[\w./-]+\.(?:py|sh|jinja)", block.text):
            yield block.page, block.text


def links() -> Iterator[tuple[str, Path]]:
    """(page, file) of each link to a file."""
    for file in pages():
        text = _FENCE.sub("", file.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:|#", target):
                yield (
                    file.relative_to(ROOT).as_posix(),
                    Path(os.path.normpath(file.parent / target.partition("#")[0])),
                )
