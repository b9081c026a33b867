"""A run resumes with moved indexes; with other content of indexes or other folders it is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffuir_core import UserError
from diffuir_platform import storage
from diffuir_platform.data import DataConfig, file_versions, fingerprint, list_sources
from diffuir_platform.data.building import build_index
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.train import TrainConfig
from diffuir_platform.train.record import open_record
from support.store import Store
from support.trees import make_tree, tree_of_pairs


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder with photos, two indexes of pairs of the same names and sizes, and a run begun with the first."""
    make_tree(tmp_path / "photos", ["a.png", "b.png"])
    tree_of_pairs(tmp_path / "pairs", 3)
    for dataset in ("first", "second"):
        index(tmp_path, dataset, dataset=dataset)
    resume(tmp_path)
    state = tmp_path / "run" / "checkpoint_2026-01-01_10-00-00.000000" / "state.pt"
    state.parent.mkdir()
    state.write_bytes(b"state")
    return tmp_path


def index(place: Path, name: str, **options: Any) -> None:
    """Make the index `name`.parquet of the folder `pairs`."""
    whole = IndexOptions(layout="pairs", task="rain", **options)
    build_index(str(place / "pairs"), str(place / f"{name}.parquet"), whole)


def resume(place: Path, **data: Any) -> dict[str, Any]:
    """Open the record of the run in `place`/run with these changes to its `data`."""
    settings = {
        "clean": [str(place / "photos")],
        "index": [str(place / "first.parquet")],
        "pairs": {"rain": [{"path": str(place / "pairs"), "repeat": 2}]},
    }
    config = TrainConfig.model_validate({"name": "run", "data": settings | data})
    sources = list_sources(config.data)
    return open_record(config, str(place / "run"), fingerprint(sources), file_versions(sources))


def test_a_run_resumes_with_a_moved_index_and_other_spellings_of_its_folders(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(begun / "first.parquet", begun / "copy.parquet")
    record = resume(begun, index=[str(begun / "copy.parquet")])
    assert record["settings"]["data"]["index"] == [str(begun / "first.parquet")]
    monkeypatch.chdir(begun)
    pairs = {"rain": [{"path": "./pairs", "repeat": 2}]}
    resume(begun, index=["./first.parquet"], clean=["photos"], pairs=pairs)


def test_other_data_is_refused(begun: Path) -> None:
    other = "was begun with other images than there are now"
    with pytest.raises(UserError, match=other):
        resume(begun, index=[str(begun / "second.parquet")])
    with pytest.raises(UserError, match=other):
        resume(begun, index=[])
    make_tree(begun / "photos", ["c.png"])
    with pytest.raises(UserError, match=other):
        resume(begun)
    (begun / "photos" / "c.png").unlink()
    shutil.copytree(begun / "photos", begun / "of_the_same_names")
    with pytest.raises(UserError, match="was begun with data = "):
        resume(begun, clean=[str(begun / "of_the_same_names")])
    with pytest.raises(UserError, match="was begun with data = "):
        resume(begun, datasets=["first"])
    with pytest.raises(UserError, match="was begun with data = "):
        resume(begun, pairs={"rain": [{"path": str(begun / "pairs"), "repeat": 3}]})
    index(begun, "both", dataset="first", split="test")
    with pytest.raises(UserError, match="was begun with data = "):
        resume(begun, index=[str(begun / "both.parquet")], split="test")


def test_photos_that_changed_under_their_names_are_noticed(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = begun / "photos" / "a.png"
    content = photo.read_bytes()
    photo.write_bytes(content + b"more")
    with pytest.raises(
        UserError, match="were changed under their names since it was begun: bring the earlier"
    ):
        resume(begun)
    photo.write_bytes(content)
    capsys.readouterr()
    resume(begun)
    assert "the run takes them for copies of the same" in capsys.readouterr().out


def test_a_start_that_made_no_checkpoint_leaves_the_name_free(begun: Path) -> None:
    with pytest.raises(UserError, match="was begun with data = "):
        resume(begun, datasets=["first"])
    shutil.rmtree(begun / "run" / "checkpoint_2026-01-01_10-00-00.000000")
    assert resume(begun, datasets=["first"])["settings"]["data"]["datasets"] == ["first"]
    (begun / "run" / "run.json").write_bytes(b'{"sett')
    assert resume(begun)["settings"]["data"]["datasets"] == []


def test_files_in_a_bucket_are_looked_at_by_their_folders(s3: Store, tmp_path: Path) -> None:
    make_tree(tmp_path / "photos", ["a.png", "deep/b.png"])
    for file in (tmp_path / "photos").rglob("*.png"):
        name = file.relative_to(tmp_path / "photos").as_posix()
        storage.write_bytes(f"{s3.uri}/photos/{name}", file.read_bytes())
    build_index(f"{s3.uri}/photos", str(tmp_path / "i.parquet"), IndexOptions(layout="clean"))
    sources = list_sources(DataConfig(index=(str(tmp_path / "i.parquet"),)))
    first, again = file_versions(sources), file_versions(sources)
    assert first == again
    storage.write_bytes(f"{s3.uri}/photos/deep/b.png", b"other")
    assert file_versions(sources).sizes != first.sizes


def test_a_run_begun_before_settings_within_others_existed_goes_on_with_their_defaults(begun: Path) -> None:
    file = begun / "run" / "run.json"
    record = json.loads(file.read_text())
    del record["settings"]["data"]["max_pixels"]
    del record["settings"]["stages"][0]["whole"]
    file.write_text(json.dumps(record))
    resume(begun)
    with pytest.raises(UserError, match="was begun with data = "):
        resume(begun, max_pixels=10**6)
    record["settings"]["ema"]["a setting of before"] = 1
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match="was begun with "):
        resume(begun)
