"""Names of results: a different one for each key, always below the output, and ordinary keys unchanged."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffuir_core.imaging import FORMATS
from diffuir_platform.restore.names import is_photo, result_name, safe_path
from diffuir_platform.storage import is_hidden
from diffuir_platform.text import one_line

ANY_FORMAT = (None, *FORMATS)
SPECIAL = ["", ".", "..", "_diffuir", "%dot", "%%dotdot", "%empty", "%_diffuir", "%raw"]
PHOTOS = ["a.jpg", "a.png", "a.jpg.png", "a.txt.png", "%dot.png", "ä b.PNG"]
PARTS = st.sampled_from([*SPECIAL, *PHOTOS, "a", "ä b"])
KEYS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
KEYS_OF_PHOTOS = st.tuples(st.just("") | KEYS.map(lambda key: f"{key}/"), st.sampled_from(PHOTOS)).map(
    "".join
)


def is_inside(name: str) -> bool:
    """Whether a result of that name is below its output, and outside its `_diffuir`."""
    path = os.path.normpath(os.path.join("OUT", name))
    return path.startswith("OUT/") and not f"{path}/".startswith("OUT/_diffuir/")


def are_different(names: Sequence[str]) -> bool:
    return len({os.path.normpath(name) for name in names}) == len(names)


@given(st.sets(KEYS))
def test_no_two_keys_are_one_path(keys: set[str]) -> None:
    assert are_different([safe_path(key) for key in keys])


@given(st.sets(KEYS_OF_PHOTOS))
def test_no_two_photos_give_one_name_in_any_format(keys: set[str]) -> None:
    for format in ANY_FORMAT:
        assert are_different([result_name(format, key) for key in keys])


@given(KEYS | st.text(alphabet="./%_diffuirdotempty", max_size=12))
def test_a_result_lies_below_its_output_and_not_among_its_records(key: str) -> None:
    assert is_inside(safe_path(key))
    for format in ANY_FORMAT:
        assert is_inside(result_name(format, key))


@pytest.mark.parametrize(
    "key",
    [
        "a.jpg",
        "deep/er/ä b.webp",
        ".hidden/x.png",
        "%raw/x.png",
        "a%20b",
        "...",
        "..a/b..",
        "_diffuir2/a",
        "%",
    ],
)
def test_an_ordinary_key_is_its_own_name(key: str) -> None:
    assert safe_path(key) == result_name(None, key) == key


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("../a.jpg", "%dotdot/a.jpg"),
        ("/a.jpg", "%empty/a.jpg"),
        ("a//b.jpg", "a/%empty/b.jpg"),
        ("_diffuir/a.jpg", "%_diffuir/a.jpg"),
        ("%dot/./a.jpg", "%%dot/%dot/a.jpg"),
    ],
)
def test_a_part_that_would_lead_elsewhere_gets_a_name(key: str, name: str) -> None:
    assert safe_path(key) == name


def test_hidden_names_begin_with_a_dot_or_are_those_of_programs() -> None:
    assert all(map(is_hidden, [".a.jpg", "...", "_diffuir", "__MACOSX", "a/.b/c.jpg", "a/__MACOSX/b.jpg"]))
    assert not any(map(is_hidden, ["a.jpg", ".", "..", "_diffuir2", "", "__MACOSX.jpg", "a/b..jpg"]))


def test_a_photo_is_known_by_its_ending_and_not_hidden() -> None:
    assert all(map(is_photo, ["a.jpg", "a.b.JPEG", "ä b.Tif", "a.png.webp"]))
    assert not any(map(is_photo, [".a.jpg", ".jpg", "jpg", "a.jpg.txt", "a.jpg/", "a.gif", ""]))


def test_what_is_no_text_is_printed_as_one_line() -> None:
    assert one_line("deep/ä b.jpg") == "deep/ä b.jpg"
    assert one_line("a\nb\tc\x1b[1m.jpg") == "a�b�c�[1m.jpg"
    assert one_line(os.fsdecode(b"\xe4.jpg")) == "�.jpg"


@given(st.binary().map(os.fsdecode))
def test_every_name_on_disk_is_one_line(name: str) -> None:
    text = one_line(name)
    assert text.isprintable()
    assert text.encode().decode() == text
