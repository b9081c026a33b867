"""No module but `runtime/private.py` reaches into private parts of Ray or uvicorn."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffuir_platform

PACKAGE = Path(diffuir_platform.__file__).parent
LIBRARIES = ("ray", "uvicorn")
PARTS = ("._private", "._internal", "._raylet")
"""Parts of strings that name a private module, as a logger's name does."""


def private_uses(tree: ast.AST) -> Iterator[str]:
    """Lines of a module that reach into private parts of LIBRARIES."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in LIBRARIES:
                    names.add((alias.asname or alias.name).partition(".")[0])
                    if is_private(alias.name):
                        yield f"line {node.lineno}: import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = str(node.module)
            if module.partition(".")[0] in LIBRARIES:
                for alias in node.names:
                    names.add(alias.asname or alias.name)
                    if is_private(module) or alias.name.startswith("_"):
                        yield f"line {node.lineno}: from {module} import {alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_hidden(node.attr) and root_of(node) in names:
            yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg is not None and is_hidden(keyword.arg):
                    yield f"line {node.lineno}: {ast.unparse(node.func)}({keyword.arg}=...)"
        elif isinstance(node, ast.Constant) and any(part in str(node.value) for part in PARTS):
            yield f"line {node.lineno}: {node.value!r}"


def is_hidden(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_private(module: str) -> bool:
    """Whether a module is private by its name, or has no documented names."""
    return any(map(is_hidden, module.split("."))) or module.startswith(
        ("ray.dashboard", "ray.serve.context", "ray.train.v2", "uvicorn.config", "uvicorn.protocols")
    )


def root_of(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def test_no_other_module_reaches_into_private_parts() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}, {use}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file != PACKAGE / "runtime" / "private.py"
        for use in private_uses(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == [], "move it into runtime/private.py and test it here"


@pytest.mark.parametrize(
    "line",
    [
        "import ray._private.services",
        "from ray._raylet import Config",
        "from ray.serve.context import _get_global_client",
        "from ray.data._internal import x",
        "from uvicorn.config import HTTP_PROTOCOLS",
        "import ray\nray._private.worker",
        "from ray import serve\nserve.delete('a', _blocking=False)",
        "logging.getLogger('ray._private.runtime_env')",
    ],
)
def test_the_search_for_private_parts_finds_them(line: str) -> None:
    assert list(private_uses(ast.parse(line)))


@pytest.mark.parametrize(
    "line", ["import ray\nray.init()", "from ray import serve", "self._loop", "a._replace()"]
)
def test_the_search_for_private_parts_passes_public_ones(line: str) -> None:
    assert not list(private_uses(ast.parse(line)))
