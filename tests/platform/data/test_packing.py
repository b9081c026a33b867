"""Packed files, which an index points into."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from diffuir_core import UserError
from diffuir_core.imaging import decode
from diffuir_platform import storage
from diffuir_platform.data.building import build_index
from diffuir_platform.data.index import open_index, read_image
from diffuir_platform.data.packing import _Place, _Writer, pack
from diffuir_platform.data.settings import IndexOptions
from support.trees import built, make_mat, make_tree, photo, tree_of_pairs


@pytest.mark.parametrize("store", ["local", "s3"])
def test_packed_photos_are_the_same_bytes(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tree = tree_of_pairs(tmp_path / "set", 12)
    folder = f"{request.getfixturevalue('s3').uri}/packed" if store == "s3" else str(tmp_path / "packed")
    loose, loose_rows = built(tree)
    packed, packed_rows = built(tree, pack=folder)
    assert packed.fingerprint == loose.fingerprint
    assert len(list(storage.list_files(folder))) == 1
    for before, after in zip(loose_rows, packed_rows, strict=True):
        for side in ("degraded", "clean"):
            uri, offset, length = (getattr(after, f"{side}_{what}") for what in ("uri", "offset", "length"))
            assert uri.startswith(f"{folder}/")
            assert read_image(uri, offset, length) == read_image(getattr(before, f"{side}_uri"))


def test_packed_files_have_the_given_size_and_hold_nothing_twice(tmp_path: Path) -> None:
    hazy = {f"OTS/hazy/{n}_{beta}.png": (20, 20) for n in range(4) for beta in range(5)}
    tree = make_tree(tmp_path / "set", hazy | {f"OTS/clear/{n}.png": (20, 20) for n in range(4)})
    build_index(str(tree), str(tmp_path / "i"), IndexOptions(layout="reside"))
    loose = list(open_index(str(tmp_path / "i")).rows())
    packed = list(pack(loose, str(tmp_path / "packed"), shard_bytes=5_000))
    shards = list((tmp_path / "packed").iterdir())
    assert len(shards) > 3
    photos = [path.read_bytes() for path in tree.rglob("*.png")]
    assert sum(path.stat().st_size for path in shards) == sum(map(len, photos))
    assert all(path.stat().st_size < 5_000 + 2 * max(map(len, photos)) for path in shards)
    assert [row.key for row in packed] == [row.key for row in loose]
    once_more = list(pack(packed, str(tmp_path / "repacked"), shard_bytes=10**9))
    for before, after in zip(loose, once_more, strict=True):
        data = read_image(str(after.clean_uri), after.clean_offset, after.clean_length)
        assert data == read_image(str(before.clean_uri))


def test_packing_again_keeps_the_files_of_an_older_index(tmp_path: Path) -> None:
    tree = tree_of_pairs(tmp_path / "set", 3)
    _, (first, *_) = built(tree, pack=str(tmp_path / "packed"))
    kept = read_image(str(first.degraded_uri), first.degraded_offset, first.degraded_length)
    photo(seed=99).save(tree / "degraded" / "0.png")
    built(tree, pack=str(tmp_path / "packed"))
    assert read_image(str(first.degraded_uri), first.degraded_offset, first.degraded_length) == kept


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    data: Future[bytes] = Future()
    data.set_result(b"of a photo")
    writer = _Writer(Path("/dev/full"))
    writer.append(_Place(data))
    with pytest.raises(UserError, match="no space is left on the disk of /dev: free some"):
        writer.finish(str(tmp_path))


def test_photos_of_a_challenge_file_are_packed_as_png(tmp_path: Path) -> None:
    degraded = make_mat(tmp_path / "toled_val_display.mat", "val_display", 3, seed=1)
    make_mat(tmp_path / "toled_val_gt.mat", "val_gt", 3, seed=2)
    options = IndexOptions(layout="udc", pack=str(tmp_path / "packed"))
    build_index(str(tmp_path), str(tmp_path / "i"), options)
    for row, pixels in zip(open_index(str(tmp_path / "i")).rows(), degraded, strict=True):
        data = read_image(str(row.degraded_uri), row.degraded_offset, row.degraded_length)
        assert (decode(data).pixels == pixels).all()
