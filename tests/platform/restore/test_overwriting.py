"""Guarantee 10: a file that a restore did not make, or that was changed since, stays and its photo fails."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffuir_core import UserError
from diffuir_core.imaging import decode
from diffuir_platform import storage
from diffuir_platform.restore import RestoreOptions, journal, restore
from diffuir_platform.restore.writing import REMEDY, write_result
from support.album import photo, put, results_below
from support.command import diffuir_here
from support.restoring import Cheap, run
from support.trees import make_tar

MINE = b"a file of somebody's"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(3):
        put(tmp_path / f"in/{seed}.png", photo(seed=seed))
    return tmp_path / "in"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An output that does not exist yet, on a local disk or on S3."""
    return str(tmp_path / "out") if request.param == "local" else request.getfixturevalue("s3").uri + "/out"


def contents(out: str) -> dict[str, bytes]:
    found = (uri for uri, _ in storage.list_files(out) if "/_diffuir/" not in uri)
    return {uri.removeprefix(f"{out}/"): storage.read_bytes(uri) for uri in found}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def again(source: object, out: str, **more: Any) -> tuple[int, dict[str, str], dict[str, bytes]]:
    """Restore; returns the number of photos done, the reasons of those that failed, and the content of OUT."""
    summary = run(str(source), out, None, 1, **more)
    assert summary.exit_code == (1 if summary.failed else 0)
    return summary.done, summary.failed, contents(out)


def test_a_strangers_file_stays_until_it_is_moved_or_overwritten(photos: Path, out: str) -> None:
    for name in ("1.png", "2.png"):
        storage.write_bytes(f"{out}/{name}", MINE)
    done, failed, found = again(photos, out)
    reason = f"a file that this command did not make is in the way ({out}/%s): {REMEDY}"
    assert (done, failed) == (1, {name: reason % name for name in ("1.png", "2.png")})
    assert found == {"0.png": found["0.png"], "1.png": MINE, "2.png": MINE}
    storage.remove_file(f"{out}/1.png")
    done, failed, found = again(photos, out)
    assert (done, list(failed), found["2.png"]) == (1, ["2.png"], MINE)
    done, failed, last = again(photos, out, changes={"overwrite": True})
    assert (done, failed) == (1, {})
    assert last == {**found, "2.png": last["2.png"]}
    assert decode(last["2.png"]).format == "PNG"


def test_a_changed_result_stays_and_that_of_a_changed_photo_is_replaced(photos: Path, out: str) -> None:
    first = again(photos, out)[2]
    edited = {"0.png": MINE, "1.png": first["1.png"] + b"\n", "2.png": first["2.png"]}
    for name, data in edited.items():
        storage.write_bytes(f"{out}/{name}", data)
    for name in ("0.png", "1.png"):
        put(photos / name, photo(seed=9))  # so that the result would be another one
    put(photos / "2.png", b"no photo, for a while")
    done, failed, found = again(photos, out)
    assert (done, set(failed), found) == (0, {"0.png", "1.png", "2.png"}, edited)
    assert failed["0.png"] == f"its result was changed since it was made ({out}/0.png): {REMEDY}"
    put(photos / "2.png", photo(seed=9))
    done, failed, found = again(photos, out, retry_failed=True)
    assert (done, set(failed)) == (1, {"0.png", "1.png"})
    assert found == {**edited, "2.png": found["2.png"]}
    assert found["2.png"] != first["2.png"]
    done, failed, last = again(photos, out, restart=True)
    assert (done, set(failed), last) == (1, {"0.png", "1.png"}, found)


def test_a_restart_removes_what_it_made_and_says_what_it_keeps(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    made = again(photos, out)[2]
    (tmp_path / "empty").mkdir()
    for source, more, says in (
        ("empty", {}, "no photos"),
        ("in", {"retry_failed": True}, "nothing to retry"),
    ):
        with pytest.raises(UserError, match=says):
            again(tmp_path / source, out, restart=True, **more)
        assert contents(out) == made, "a run that is refused removes nothing"
    storage.write_bytes(f"{out}/0.png", MINE)
    summary = run(str(photos), out, None, 1, changes={"format": "bmp"}, restart=True)
    assert (summary.done, summary.exit_code) == (3, 0)
    assert set(contents(out)) == {"0.png", "0.png.bmp", "1.png.bmp", "2.png.bmp"}
    assert contents(out)["0.png"] == MINE
    assert "note: 0.png: its result was changed since an earlier run made it, and stays" in summary.lines()


@pytest.mark.parametrize("restart", [False, True])
def test_results_of_a_killed_run_are_known_whatever_became_of_their_photos(
    photos: Path, out: str, restart: bool
) -> None:
    """A run that is killed has written results and the journal, and not yet the rows of the ledger."""
    results = {
        "0.png": b"a result",
        "1.png": b"another result",
        "gone.png": b"the result of a photo that is gone",
    }
    for name, data in results.items():
        storage.write_bytes(f"{out}/{name}", data)
    journal.note(out, {name: sha256(data) for name, data in results.items()})
    storage.write_bytes(f"{out}/1.png", MINE)
    done, failed, found = again(photos, out, restart=restart)
    assert (done, list(failed)) == (2, ["1.png"])
    assert set(found) == {"0.png", "1.png", "2.png"} | ({"gone.png"} - {"gone.png" if restart else ""})
    assert found["1.png"] == MINE
    assert decode(found["0.png"]).format == "PNG"
    assert journal.noted(out) == {}


@pytest.mark.slow
def test_a_run_of_some_photos_keeps_what_is_known_of_the_others(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    journal.note(out, {"1.png": "1"})
    again(photos, out, changes={"include": ("0.*",)})
    assert journal.noted(out) == {"1.png": {"1"}}


@pytest.mark.parametrize("kind", ["tar", "list"])
def test_a_list_and_a_tar_leave_strangers_alone_too(photos: Path, tmp_path: Path, kind: str) -> None:
    source, out = f"{tmp_path}/0.{'txt' if kind == 'list' else kind}", f"{tmp_path}/out"
    name = "0.tar/a.png" if kind == "tar" else f"{photos}/0.png"[1:]
    if kind == "tar":
        make_tar(source, {"a.png": (photos / "0.png").read_bytes()})
    else:
        Path(source).write_text(f"{photos}/0.png\n")
    storage.write_bytes(f"{out}/{name}", MINE)
    done, failed, found = again(source, out)
    assert (done, len(failed), found) == (0, 1, {name: MINE})


def test_one_photo_never_replaces_a_file_unasked(photos: Path, out: str, tmp_path: Path) -> None:
    source, target = photos / "0.png", f"{out}/x.png"
    one = RestoreOptions()
    assert restore(str(source), target, one, restorer=Cheap).exit_code == 0
    made = storage.read_bytes(target)
    refusal = f"{target} is there already: choose another OUT, or give --overwrite to replace it"
    for content in (made, MINE):
        storage.write_bytes(target, content)
        with pytest.raises(UserError) as raised:
            restore(str(source), target, one, restorer=Cheap)
        assert str(raised.value) == refusal
        assert storage.read_bytes(target) == content
    assert restore(str(source), target, RestoreOptions(overwrite=True), restorer=Cheap).done == 1
    assert storage.read_bytes(target) == made


def test_the_command_is_refused_before_the_work(photos: Path, tmp_path: Path) -> None:
    put(tmp_path / "out/0.png", MINE)
    done = diffuir_here("restore", photos / "0.png", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path}/out/0.png is there already: choose another OUT, or give --overwrite to replace it\n"
    )
    assert results_below(tmp_path / "out") == {"0.png"}


@pytest.fixture(params=["links", "no links", "s3"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A folder on a disk with hard links, on one that has none (exFAT, most SMB shares), and on S3."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)
    if request.param == "s3":
        return request.getfixturevalue("s3").uri + "/some"
    return str(tmp_path)


def written(uri: str, data: bytes, replaces: bytes | None = None, noted: bytes | None = None) -> str | None:
    """Write a result; returns the reason where it is refused."""
    earlier = None if replaces is None else sha256(replaces)
    named = {"a": {sha256(noted)}} if noted is not None else {}
    try:
        write_result(uri, data, replaces=earlier, noted=lambda: named, name="a")
    except UserError as error:
        return str(error)
    return None


def test_a_result_replaces_nothing_but_an_earlier_one(disk: str) -> None:
    uri = f"{disk}/deep/a.png"
    assert written(uri, b"first") is None
    assert written(uri, b"first") is None
    assert written(uri, b"second", replaces=b"first") is None
    assert written(uri, b"third", noted=b"second") is None
    for replaces, noted in ((None, None), (b"first", None), (None, b"first"), (b"first", b"second")):
        assert str(written(uri, b"fourth", replaces, noted)).endswith(REMEDY)
    assert storage.read_bytes(uri) == b"third"
    assert [entry.uri for entry in storage.list_entries(disk)] == [uri]


def test_the_start_of_a_result_is_replaced_by_the_whole(disk: str) -> None:
    """A machine that went down may leave a result cut off; so may a kill on a disk without links, empty."""
    for start in (b"", b"res"):
        storage.write_bytes(f"{disk}/a.png", start)
        assert str(written(f"{disk}/a.png", b"result")).endswith(REMEDY), "nothing is known of a result"
        assert written(f"{disk}/a.png", b"result", replaces=b"older") is None
        storage.write_bytes(f"{disk}/a.png", start)
        assert written(f"{disk}/a.png", b"result", noted=b"older") is None


@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.symlink("nowhere", path), os.mkfifo])
def test_what_is_no_file_is_in_the_way(tmp_path: Path, make: Callable[[str], None]) -> None:
    make(f"{tmp_path}/a.png")
    before = os.lstat(tmp_path / "a.png")
    assert str(written(f"{tmp_path}/a.png", b"result", replaces=b"", noted=b"")).endswith(REMEDY)
    assert os.lstat(tmp_path / "a.png") == before


def test_a_link_to_an_original_is_never_written_through(photos: Path, tmp_path: Path) -> None:
    original = (photos / "0.png").read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/0.png").symlink_to(photos / "0.png")
    done, failed, _ = again(photos, str(tmp_path / "out"), changes={"overwrite": True})
    assert (done, list(failed)) == (2, ["0.png"])
    assert "it would replace its photo" in failed["0.png"]
    assert (photos / "0.png").read_bytes() == original


def test_the_journal_takes_any_name(disk: str) -> None:
    name = os.fsdecode(b"d\xff/\xe4 \n.png")
    entry = journal.note(disk, {name: "1", "b": "2"})
    journal.note(disk, {name: "3"})
    assert journal.noted(disk) == {name: {"1", "3"}, "b": {"2"}}
    journal.forget([entry])
    assert journal.noted(disk) == {name: {"3"}}
    journal.clear(disk)
    journal.forget([entry])
    assert journal.noted(disk) == {}
