"""The shape of the repository, as far as code can check it: rooms, import circles, paths, sizes, words.

Each function returns what breaks its rule, one line each; an empty list is a pass.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {"diffuir_core": "diffuir_core", "diffuir_platform": "platform/diffuir_platform"}
"""Package -> its folder in the repository."""

Layers = Sequence[Sequence[str]]
"""Names from the bottom up. A name may import those of earlier lines, and none of its own line or a later one."""

ROOMS: Layers = (
    ("diffuir_core",),
    ("diffuir_platform.text", "diffuir_platform.config", "diffuir_platform.stopping"),
    ("diffuir_platform.command_line",),
    ("diffuir_platform.storage", "diffuir_platform.runtime", "diffuir_platform.tracking"),
    ("diffuir_platform.inference", "diffuir_platform.data"),
    ("diffuir_platform.train", "diffuir_platform.restore"),
    ("diffuir_platform.sweep", "diffuir_platform.evaluate"),
    ("diffuir_platform.analysis",),
    ("diffuir_platform.serve",),
    ("diffuir_platform.command_table",),
    ("diffuir_platform.cli",),
)
INSIDE_SERVE: Layers = (
    ("settings", "schemas", "problems", "client"),
    ("catalogue", "transport"),
    ("model",),
    ("gateway",),
    ("api",),
    ("app",),
    ("commands",),
)

IN_THE_CORE = {
    *("PIL", "imagecodecs", "numpy", "psutil", "safetensors", "scipy", "skimage", "tifffile", "torch"),
    *("pillow_jxl", "rawpy", "spandrel"),  # of the extras `formats` and `spandrel`, within functions
}
"""Packages that the core may import; none of a platform or a server."""

MOST_LINES = 400
SHORT_DOCSTRING = 60
"""Length up to which a docstring of one line is taken for a fragment, if it begins as one."""

OUTSIDE = re.compile(  # which must not find itself
    r"\.\./shared\b"  # the folder beside the checkout of those who develop it
    r"|(?<![\w.])/wor[k]/"
    r"|(?<![\w.:/])/(?:home|Users)/\w+|(?<![\w.:/])/roo[t]/"
)
MAY_NAME_SHARED = "tests/conftest.py"
"""The one file that looks for the folder beside the checkout, and skips what needs it where there is none."""
LINK = re.compile(r"""\]\(\s*<?([^)<>\s]+)|\b(?:src|href)=["']([^"']+)""")
FRAGMENT = re.compile(r"(Of|That|What|How|As)\b")


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str
    """A module of ours, or the top-level name of somebody else's package."""
    line: int
    deferred: bool
    """Whether it is inside a function or for type checkers only, and so not executed by importing the module."""

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.imported}"


def find_modules(root: Path, packages: Mapping[str, str] = PACKAGES) -> dict[str, Path]:
    """Dotted name -> file, of every module of the packages."""
    found = {}
    for package, folder in packages.items():
        for file in sorted((root / folder).rglob("*.py")):
            parts = (package, *file.relative_to(root / folder).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


def find_imports(modules: Mapping[str, Path]) -> list[Import]:
    """Every import of every module, also those of packages whose `__init__` another import executes first."""
    found = []
    for name, file in modules.items():
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        for node, deferred in _import_statements(ast.parse(file.read_text(encoding="utf-8"))):
            for target in _targets(node, package, modules):
                parts = target.split(".")
                executed = {".".join(parts[: n + 1]) for n in range(len(parts))} & modules.keys()
                # A package that holds the importer is being executed already.
                above = {one for one in executed - {target} if f"{name}.".startswith(f"{one}.")}
                for one in sorted(executed - above) or [parts[0]]:
                    found.append(Import(name, one, node.lineno, deferred))
    return found


def _import_statements(tree: ast.AST, deferred: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, deferred
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield from _import_statements(child, deferred or inside)


def _targets(node: ast.stmt, package: str, modules: Mapping[str, Path]) -> Iterator[str]:
    """Dotted names that a statement imports: a module, where it names one, else the module that holds the name."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".") if node.level else []
        base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
        for alias in node.names:
            yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base


def circles(imports: Iterable[Import]) -> list[str]:
    """Groups of modules of which each imports, directly or through others, each of the others."""
    graph: dict[str, set[str]] = {}
    for one in imports:
        graph.setdefault(one.importer, set()).add(one.imported)
    reached = {name: _reachable(name, graph) for name in graph}
    found = {
        tuple(sorted(other for other in reached[name] if name in reached.get(other, ())))
        for name in graph
        if name in reached[name]
    }
    return [" and ".join(group) for group in sorted(found)]


def _reachable(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph.get(name, ())
    return seen


def upward_imports(imports: Iterable[Import], layers: Layers, prefix: str = "") -> list[str]:
    """Imports of a layer that is not below the importer's; only between names that begin with `prefix`."""
    ranks = {prefix + name: rank for rank, layer in enumerate(layers) for name in layer}

    def room(module: str) -> str | None:
        return next((name for name in ranks if f"{module}.".startswith(f"{name}.")), None)

    found = []
    for one in imports:
        importer, imported = room(one.importer), room(one.imported)
        if importer is None or imported is None or importer == imported:
            continue
        if ranks[imported] >= ranks[importer]:
            found.append(f"{one}, which is not below it")
    return found


def unplaced(modules: Iterable[str], layers: Layers, prefix: str = "") -> list[str]:
    """Modules below `prefix` that no layer names, but for the package itself."""
    placed = [f"{prefix}{name}." for layer in layers for name in layer]
    return [
        f"{name} has no place in the layers of {Path(__file__).name}"
        for name in modules
        if name.startswith(prefix) and not any(f"{name}.".startswith(one) for one in placed)
    ]


def foreign_to_the_core(imports: Iterable[Import]) -> list[str]:
    allowed = {*IN_THE_CORE, *sys.stdlib_module_names, "diffuir_core"}
    return [
        str(one)
        for one in imports
        if one.importer.partition(".")[0] == "diffuir_core" and one.imported.partition(".")[0] not in allowed
    ]


def tracked_files(root: Path) -> list[Path]:
    """Files that git tracks or would add; every file where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        found = [path for path in root.rglob("*") if ".venv" not in path.parts]
    else:
        found = [root / name for name in listed.stdout.split("\0") if name]
    return [path for path in sorted(set(found)) if path.is_file() and not path.is_symlink()]


def paths_out(root: Path, files: Iterable[Path]) -> list[str]:
    """Places in texts that name a folder outside the repository, and links of Markdown that lead out of it."""
    found = []
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:  # no text
            continue
        where = file.relative_to(root).as_posix()
        for number, line in enumerate(lines, start=1):
            for match in OUTSIDE.finditer(line):
                if not (where == MAY_NAME_SHARED and match[0].startswith("..")):
                    found.append(f"{where}, line {number}: {match[0]}")
            if file.suffix == ".md":
                links = (match[1] or match[2] for match in LINK.finditer(line))
                found += [f"{where}, line {number}: {link}" for link in links if _leaves(file, link, root)]
    return found


def _leaves(file: Path, link: str, root: Path) -> bool:
    if re.match(r"[a-z][a-z0-9+.-]*:|//|#", link):
        return False
    return not (file.parent / link.partition("#")[0]).resolve().is_relative_to(root.resolve())


def long_modules(root: Path, files: Iterable[Path], most: int = MOST_LINES) -> list[str]:
    counts = {
        file: len(file.read_text(encoding="utf-8").splitlines()) for file in files if file.suffix == ".py"
    }
    return [f"{file.relative_to(root)} has {count} lines" for file, count in counts.items() if count > most]


def fragments(root: Path, modules: Mapping[str, Path]) -> list[str]:
    """Short docstrings that begin as half a sentence: "Of each.", "That is waited for."."""
    found = []
    for file in modules.values():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                continue
            text = node.value.value
            if isinstance(text, str) and len(text) <= SHORT_DOCSTRING and FRAGMENT.match(text):
                found.append(f'{file.relative_to(root)}, line {node.lineno}: "{text}"')
    return found
