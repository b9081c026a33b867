from __future__ import annotations

import re
import subprocess

from support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def tree() -> dict[str, str]:
    """Path -> line of the README's tree."""
    section = README.partition("## The tree")[2]
    entries, folder = {}, ""
    for line in section.splitlines():
        found = re.match(r"^    ( *)(\S+(?:  \S+\.py)*) {2,}(\S.*)$", line)
        if found is None:
            continue
        indent, names, text = found.groups()
        folder = names if not indent else folder
        for name in names.split():
            entries[folder + name if indent else name] = text
    return entries


def test_every_file_and_folder_of_the_tree_exists() -> None:
    entries = tree()
    assert len(entries) > 30
    assert [path for path in entries if not (ROOT / path).exists()] == []


def test_every_module_stands_in_the_tree() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        modules = [
            str(p.relative_to(ROOT))
            for top in ("diffuir_core", "platform")
            for p in (ROOT / top).rglob("*.py")
        ]
    else:
        modules = [name for name in listed.stdout.split() if not name.startswith("tests/")]
    described = tree()
    missing = [
        name
        for name in modules
        if not name.endswith("__init__.py")
        and not any(
            name == p or (p.endswith("/") and p.count("/") > 1 and name.startswith(p)) for p in described
        )
    ]
    assert missing == []


def test_files_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"`((?:tests|jobs|diffuir_core|platform|cluster)/[\w./-]+)`", README))
    named |= set(re.findall(r"\]\(((?!http)[^)]+)\)", README))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_first_two_commands_are_demo_and_test() -> None:
    commands = re.findall(r"^    (\S.*?)(?:\s+#.*)?$", README, flags=re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]
