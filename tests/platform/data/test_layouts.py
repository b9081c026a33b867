"""Layouts: each finds its pairs in a tree with traps, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffuir_core import UserError
from diffuir_core.imaging import decode
from diffuir_platform import storage
from diffuir_platform.data.building import build_index
from diffuir_platform.data.index import IndexRow, open_index, read_image
from diffuir_platform.data.layouts import LAYOUTS, describe_layouts, find_layout, key_of, with_names
from diffuir_platform.data.layouts.weather import before_underscore
from diffuir_platform.data.settings import IndexOptions
from support.published_trees import CASES, J, Twins, scene
from support.store import Store
from support.trees import SIZE, STRAY, make_mat, make_tree, upload


def index_of(root: str, options: IndexOptions) -> tuple[list[IndexRow], list[str]]:
    """Build an index of `root`; returns its rows and the paths that did not match."""
    out = f"{root}/out/index.parquet"
    summary = build_index(root, out, options)
    mismatches = storage.read_bytes(summary.mismatches_uri).decode().splitlines()
    return list(open_index(out).rows()), [json.loads(line)["path"] for line in mismatches]


IN_A_BUCKET = (
    "rain: names",
    "low light: LOL",
    "snow: masks",
    "haze: many",
    "HIDE",
    "RealBlur: lists",
    "any pairs",
)


@pytest.mark.parametrize(
    ("name", "store"),
    [(name, "local") for name in CASES] + [(name, "s3") for name in CASES if name.startswith(IN_A_BUCKET)],
)
def test_a_layout_finds_its_pairs(
    name: str, store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    case = CASES[name]
    tree = make_tree(tmp_path / case.root, case.files)
    for folder in (tree, min(path for path in tree.rglob("*") if path.is_file()).parent):
        make_tree(folder, STRAY)
    root = str(tree)
    if store == "s3":
        root = upload(tree, f"{request.getfixturevalue('s3').uri}/data/{case.root}")
    rows, mismatched = index_of(root, IndexOptions(layout=case.layout, mismatched=1, **case.options))
    found: dict[tuple[str, str], dict[str, Twins]] = {}
    for row in rows:
        places = [uri and uri.removeprefix(f"{root}/") for uri in (row.degraded_uri, row.clean_uri)]
        found.setdefault((row.dataset, row.split), {})[row.key] = (places[0], places[1])
    assert found == case.found
    assert [(row.dataset, row.split, row.key) for row in rows] == [
        (*split, key) for split, keys in case.found.items() for key in keys
    ]
    assert sorted(mismatched) == sorted(case.mismatched)
    assert {(row.task, row.width, row.height) for row in rows} == {(case.task, *SIZE)}


def test_every_layout_has_a_case() -> None:
    assert {case.layout for case in CASES.values()} == {layout.name for layout in LAYOUTS}


@pytest.mark.parametrize("store", ["local", "s3"])
def test_the_challenge_files_are_indexed_by_number(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    degraded = make_mat(tmp_path / "poled" / "poled_test_display.mat", "test_display", 12, seed=1)
    clean = make_mat(tmp_path / "poled" / "poled_test_gt.mat", "test_gt", 12, seed=2)
    root = str(tmp_path)
    if store == "s3":
        root = upload(tmp_path, f"{request.getfixturevalue('s3').uri}/udc")
    rows, mismatched = index_of(root, IndexOptions(layout="udc"))
    assert [row.key for row in rows] == [f"{number:04d}" for number in range(12)]
    assert not mismatched
    assert {(row.task, row.dataset, row.split, row.width, row.height) for row in rows} == {
        ("udc", "POLED", "test", 8, 6)
    }
    for number in (0, 10):
        for uri, photos in ((rows[number].degraded_uri, degraded), (rows[number].clean_uri, clean)):
            assert (decode(read_image(str(uri))).pixels == photos[number]).all()


def test_a_challenge_file_with_another_array_is_named(tmp_path: Path) -> None:
    make_mat(tmp_path / "toled_val_display.mat", "display", 2)
    with pytest.raises(
        UserError, match=r"toled_val_display\.mat holds display and not the array val_display"
    ):
        index_of(str(tmp_path), IndexOptions(layout="udc"))


def test_a_damaged_challenge_file_is_named(tmp_path: Path) -> None:
    make_tree(tmp_path, {"toled_val_gt.mat": b"nothing of the kind"})
    with pytest.raises(UserError, match=r"toled_val_gt\.mat is damaged or not a MATLAB file"):
        index_of(str(tmp_path), IndexOptions(layout="udc"))


def test_a_list_that_pairs_the_wrong_files_is_refused(tmp_path: Path) -> None:
    line = f"{J}/gt/gt_1.png {J}/blur/blur_2.png"
    make_tree(tmp_path, {"RealBlur_J_train_list.txt": f"\n{line}\n".encode()})
    with pytest.raises(
        UserError, match=r"line 2 of \S+RealBlur_J_train_list\.txt is not a pair of RealBlur-J"
    ):
        index_of(str(tmp_path), IndexOptions(layout="realblur"))


def test_scenes_without_their_lists_are_refused(tmp_path: Path) -> None:
    make_tree(tmp_path, scene(J, 1))
    with pytest.raises(UserError, match=r"it needs RealBlur_J_test_list\.txt"):
        index_of(str(tmp_path), IndexOptions(layout="realblur"))


@given(st.text(st.characters(codec="utf-8", exclude_characters="/_"), min_size=1), st.floats(0, 1))
def test_the_clean_key_of_haze_is_its_id_and_nothing_shorter(name: str, airlight: float) -> None:
    assert before_underscore(f"{name}_{airlight}_0.2") == name


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1), min_size=1))
def test_a_template_that_matches_gives_the_key(names: list[str]) -> None:
    path = "/".join(names)
    assert key_of("degraded/{path}", f"degraded/{path}") == path
    assert key_of("{name}", path) == (path if len(names) == 1 else None)
    assert key_of("**/x/{name}", f"{path}/x/{names[0]}") == names[0]
    assert key_of("x*/{name}", f"x{names[0]}/{names[0]}") == names[0]


def test_an_unknown_layout_is_refused_with_all_names() -> None:
    with pytest.raises(UserError, match=r"no layout 'rain': choose among rain13k, "):
        find_layout("rain")


@pytest.mark.parametrize(
    ("layout", "names", "says"),
    [
        ("pairs", (None, None, None), "needs --task: choose among haze"),
        ("unpaired", ("fog", None, None), "has no task 'fog'"),
        ("clean", ("haze", None, None), "serve any task: leave out --task"),
        ("lol", ("low_light", None, None), "sets its own task: leave out --task"),
        ("lol", (None, "LOL", None), "sets its own dataset"),
        ("lol", (None, None, "test"), "sets its own split"),
    ],
)
def test_names_are_given_by_the_layout_or_by_the_command(
    layout: str, names: tuple[str | None, ...], says: str
) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        with_names(find_layout(layout), *names)


def test_layouts_are_described_with_their_places() -> None:
    text = describe_layouts()
    for layout in LAYOUTS:
        assert f"  {layout.name}\n" in text
        assert all(template in text for part in layout.parts for _, template in part.sides)


def test_a_bucket_that_holds_nothing_of_the_layout_is_refused(s3: Store) -> None:
    with pytest.raises(UserError, match=r"no photo below s3://\S+/nothing is where the layout 'lol' looks"):
        index_of(f"{s3.uri}/nothing", IndexOptions(layout="lol"))
