"""The shape of the repository: rooms import downwards only, no circles, no way out, no module too long to read.

Each rule is tried on a small tree that breaks it, too: a rule that can't fail shows nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.paths import ROOT
from support.structure import (
    INSIDE_SERVE,
    ROOMS,
    Import,
    circles,
    find_imports,
    find_modules,
    foreign_to_the_core,
    fragments,
    long_modules,
    paths_out,
    tracked_files,
    unplaced,
    upward_imports,
)

SERVE = "diffuir_platform.serve."


@pytest.fixture(scope="module")
def modules() -> dict[str, Path]:
    return find_modules(ROOT)


@pytest.fixture(scope="module")
def imports(modules: dict[str, Path]) -> list[Import]:
    return find_imports(modules)


def test_no_import_circle_is_executed_when_modules_are_imported(imports: list[Import]) -> None:
    assert circles(one for one in imports if not one.deferred) == []


def test_no_import_circle_hides_in_functions(imports: list[Import]) -> None:
    assert circles(imports) == []


def test_no_room_imports_a_higher_one(modules: dict[str, Path], imports: list[Import]) -> None:
    assert unplaced(modules, ROOMS, "") == ["diffuir_platform has no place in the layers of structure.py"]
    assert modules["diffuir_platform"].read_text() == ""
    assert upward_imports(imports, ROOMS) == []


def test_no_part_of_serve_imports_a_higher_one(modules: dict[str, Path], imports: list[Import]) -> None:
    assert unplaced(modules, INSIDE_SERVE, SERVE) == []
    assert upward_imports(imports, INSIDE_SERVE, SERVE) == []


def test_the_core_needs_no_platform_and_no_server(imports: list[Import]) -> None:
    assert foreign_to_the_core(imports) == []


def test_the_platform_folder_is_no_package() -> None:
    """With an __init__.py it would hide Python's own `platform` module."""
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_nothing_names_a_place_outside_the_repository() -> None:
    assert paths_out(ROOT, tracked_files(ROOT)) == []


def test_every_module_can_be_read_in_one_sitting() -> None:
    assert long_modules(ROOT, tracked_files(ROOT)) == []


def test_no_two_test_files_have_the_same_name() -> None:
    """Pytest imports them by their names alone."""
    names = [file.name for file in tracked_files(ROOT / "tests") if file.match("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_docstrings_are_phrases_that_stand_alone(modules: dict[str, Path]) -> None:
    assert fragments(ROOT, modules) == []


def write(folder: Path, files: dict[str, str]) -> dict[str, Path]:
    """The modules of a package `p` of these files, path -> text."""
    for name, text in files.items():
        file = folder / "p" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return find_modules(folder, {"p": "p"})


def found(folder: Path, files: dict[str, str]) -> list[Import]:
    return find_imports(write(folder, files))


MANY_WAYS = """
import os.path, p.a.b
from . import c
from .a import y
from p import d
def f():
    from .c import z
if TYPE_CHECKING:
    import ray
"""


def test_imports_are_found_however_they_are_written(tmp_path: Path) -> None:
    files = {"a/__init__.py": "from .b import x", "a/b.py": "", "c.py": "", "d.py": MANY_WAYS}
    imports = found(tmp_path, {"__init__.py": "", "e/f.py": "from ..c import z", **files})
    assert {(one.importer, one.imported, one.deferred) for one in imports} == {
        ("p.a", "p.a.b", False),
        ("p.d", "os", False),
        ("p.d", "p.a", False),
        ("p.d", "p.a.b", False),
        ("p.d", "p.c", False),
        ("p.d", "p.d", False),
        ("p.d", "p.c", True),
        ("p.d", "ray", True),
        ("p.e.f", "p.c", False),
    }


def test_a_circle_is_named_once_with_all_that_are_in_it(tmp_path: Path) -> None:
    deferred = "def f():\n    from .a import x"
    imports = found(
        tmp_path, {"a.py": "import p.b", "b.py": "from . import c", "c.py": deferred, "d.py": "import p.a"}
    )
    assert circles(imports) == ["p.a and p.b and p.c"]
    assert circles(one for one in imports if not one.deferred) == []


def test_a_module_that_imports_from_its_own_package_which_imports_it_is_a_circle(tmp_path: Path) -> None:
    imports = found(tmp_path, {"a/__init__.py": "from .b import x", "a/b.py": "from . import y"})
    assert circles(imports) == ["p.a and p.a.b"]


def test_an_import_upwards_or_sideways_is_named(tmp_path: Path) -> None:
    layers = (("low",), ("left", "right"), ("high",))
    files = {"left.py": "import p.right, p.low", "right.py": "", "high/a.py": "import p.left, p.high.b"}
    imports = found(tmp_path, {"low.py": "def f():\n    import p.high.a", "high/b.py": "", **files})
    assert upward_imports(imports, layers, "p.") == [
        "p.left, line 1, imports p.right, which is not below it",
        "p.low, line 2, imports p.high.a, which is not below it",
    ]


def test_a_room_that_no_layer_names_is_told(tmp_path: Path) -> None:
    modules = write(tmp_path, {"low.py": "", "lower.py": ""})
    assert unplaced(modules, (("low",),), "p.") == ["p.lower has no place in the layers of structure.py"]


@pytest.mark.parametrize("name", ["ray", "mlflow", "pyarrow.parquet", "fastapi", "diffuir_platform.storage"])
def test_a_package_that_is_foreign_to_the_core_is_named(name: str) -> None:
    one = Import("diffuir_core.unet", name, 3, deferred=True)
    assert foreign_to_the_core([one]) == [f"diffuir_core.unet, line 3, imports {name}"]
    assert foreign_to_the_core([Import("diffuir_platform.data", name, 3, False)]) == []
    assert foreign_to_the_core([Import("diffuir_core.unet", "torch", 3, False)]) == []


# Put together here, or the rule would find them in this file.
SHARED, CHECKOUT, HOME = "/".join(["..", "shared"]), "/".join(["", "work", ""]), "/".join(["", "home", "me"])


@pytest.mark.parametrize(
    ("name", "text", "out"),
    [
        ("a.yaml", f"data: {SHARED}/photos", SHARED),
        ("docs/a.md", f"see `../{SHARED}/photos`", SHARED),
        ("a.sh", f"cd {CHECKOUT}main", CHECKOUT),
        ("a.py", f'open("{HOME}/x")', HOME),
        ("a.py", f'"s3://bucket{HOME}"', None),
        ("tests/conftest.py", f'"no {SHARED}"', None),
        ("docs/a.md", "[the core](../core.md#top) and [a page](https://x.org/../..)", None),
        ("docs/a.md", "[away](../../x.md)", "../../x.md"),
        ("docs/a.md", '<img src="../../x.png">', "../../x.png"),
    ],
)
def test_a_way_out_is_named(tmp_path: Path, name: str, text: str, out: str | None) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"first\n{text}\n")
    (tmp_path / "x.bin").write_bytes(b"\xff\xfe")
    expected = [] if out is None else [f"{name}, line 2: {out}"]
    assert paths_out(tmp_path, tracked_files(tmp_path)) == expected


def test_a_long_module_is_named(tmp_path: Path) -> None:
    modules = write(tmp_path, {"a.py": "x = 1\n" * 3, "b.py": "x = 1\n" * 4})
    assert long_modules(tmp_path, modules.values(), most=3) == ["p/b.py has 4 lines"]


def test_half_a_sentence_is_named(tmp_path: Path) -> None:
    text = '"""That is waited for."""\nx = 1\n"""Office hours, seconds."""\ndef f():\n    """Of each."""\n'
    long = "Of the " + "very " * 12 + "long kind."
    modules = write(tmp_path, {"a.py": f'{text}y = 1\n"""{long}"""\nz = "Of each."\n'})
    assert fragments(tmp_path, modules) == [
        'p/a.py, line 1: "That is waited for."',
        'p/a.py, line 5: "Of each."',
    ]
