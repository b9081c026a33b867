"""The ledger of an output: every row is read back, one for each input, in bounded memory."""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffuir_core import UserError
from diffuir_platform import storage
from diffuir_platform.restore import ledger as module
from diffuir_platform.restore.ledger import SCHEMA, Ledger, LedgerRow
from diffuir_platform.restore.names import as_text, from_text

NOT_TEXT = os.fsdecode(b"deep/\xff\xe4 b.jpg")
NAMES = ["a.jpg", "ä b/%41.jpg", "%raw/a%20b.jpg", NOT_TEXT, "line\nbreak\0.jpg", '\N{SNOWMAN}/it\'s "x".png']
FULL = LedgerRow(
    key="a.jpg", status="done", source="s3://bucket/a.jpg", target="a.jpg.png", reason="none", notes="in tiles",
    offset=2**40, source_bytes=2**35, source_version="etag", format="JPEG", width=4000, height=3000, bytes=123,
    sha256="0" * 64, seconds_read=0.25, seconds_restore=0.5, seconds_write=0.125, precision="bfloat16", attempt=3,
    finished=1_700_000_000_123, settings="0123456789abcdef",
)  # fmt: skip


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder of a local disk, or of S3."""
    if request.param == "local":
        return str(tmp_path)
    return request.getfixturevalue("s3").uri + "/out/_diffuir"


def row(key: str, finished: int = 1, **values: object) -> LedgerRow:
    return replace(
        LedgerRow(key=key, status="done", source=f"in/{key}", target=key, finished=finished), **values
    )


def failed(key: str, finished: int = 1) -> LedgerRow:
    return row(key, finished, status="failed", reason="it is no photo")


def add(ledger: Ledger, *rows: LedgerRow) -> None:
    for one in rows:
        ledger.add(one)
    ledger.flush()


def write_rows(folder: str, *rows: LedgerRow) -> None:
    with Ledger(folder) as ledger:
        add(ledger, *rows)


def loaded(folder: str) -> dict[str, LedgerRow]:
    with Ledger(folder) as ledger:
        assert ledger.load() == ledger.count()
        return {one.key: one for status in ("done", "failed") for one in ledger.rows(status)}


def compact(folder: str) -> None:
    with Ledger(folder) as ledger:
        ledger.load()
        ledger.compact()


def parts(folder: str) -> list[str]:
    return sorted(uri for uri, _ in storage.list_files(folder) if uri.endswith(".parquet"))


def keys_on_disk(folder: str) -> list[str]:
    found = []
    for part in parts(folder):
        file_system, path = storage.arrow_file_system(part)
        found += pq.read_table(path, filesystem=file_system, partitioning=None)["key"].to_pylist()
    return found


def test_every_column_of_a_row_is_read_back(folder: str) -> None:
    least = LedgerRow(key="b.jpg", status="failed", source="b.jpg", target="b.jpg")
    write_rows(folder, FULL, least)
    assert loaded(folder) == {"a.jpg": FULL, "b.jpg": least}


def test_every_name_is_read_back(folder: str) -> None:
    write_rows(folder, *(row(as_text(name)) for name in NAMES))
    found = loaded(folder)
    assert {from_text(key) for key in found} == set(NAMES)
    assert {from_text(one.target) for one in found.values()} == set(NAMES)


@given(
    st.builds(lambda begins, raw: os.fsdecode(begins + raw), st.sampled_from([b"", b"%raw/"]), st.binary())
)
def test_a_name_encoded_as_text_is_decoded_again(name: str) -> None:
    text = as_text(name)
    assert text.encode().decode() == text
    assert from_text(text) == name


def test_a_part_is_written_after_a_number_of_rows(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PART_ROWS", 3)
    monkeypatch.setattr(module, "FIRST_PART_SECONDS", module.MAX_PART_SECONDS)
    with Ledger(folder) as ledger:
        for number in range(7):
            ledger.add(row(f"{number}.jpg"))
        assert len(parts(folder)) == 2
        assert len(loaded(folder)) == ledger.count() == 6
        for _ in range(2):
            ledger.flush()
            assert len(parts(folder)) == 3
        assert len(loaded(folder)) == ledger.count() == 7


def test_a_part_is_written_after_some_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PART_SECONDS", module.MAX_PART_SECONDS)
    with Ledger(str(tmp_path)) as ledger:
        ledger.add(row("a.jpg"))
        assert not parts(str(tmp_path))
        monkeypatch.setattr(module, "MAX_PART_SECONDS", 0.01)
        time.sleep(0.02)
        ledger.add(row("b.jpg"))
        assert keys_on_disk(str(tmp_path)) == ["a.jpg", "b.jpg"]


def test_a_run_of_weeks_may_write_as_many_parts_as_it_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PART_ROWS", 1)
    with Ledger(str(tmp_path)) as ledger:
        for number in range(1_100):  # more than a double has powers of two
            ledger.add(row(f"{number}.jpg"))
        assert len(parts(str(tmp_path))) == ledger.count() == 1_100


def test_the_newest_row_of_an_input_counts_whatever_its_part(folder: str) -> None:
    for finished in (2, 4, 1, 3):
        write_rows(folder, row("a.jpg", finished, settings=str(finished)), row(f"{finished}.jpg"))
    assert len(parts(folder)) == 4
    found = loaded(folder)
    assert len(found) == 5
    assert found["a.jpg"].settings == "4"


def test_a_new_row_of_an_input_replaces_the_one_before(folder: str) -> None:
    write_rows(folder, failed("a.jpg"), failed("b.jpg"), failed("c.jpg"))
    with Ledger(folder) as ledger:
        ledger.load()
        for one in ledger.rows("failed"):
            add(ledger, row(one.key, finished=2, attempt=one.attempt + 1))
        assert (ledger.count("done"), ledger.count("failed")) == (3, 0)
    assert {(one.status, one.attempt) for one in loaded(folder).values()} == {("done", 2)}


def test_compacted_all_parts_are_one_sorted_set(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"{number:02}.jpg" for number in range(10)]
    for finished in (1, 2):
        write_rows(
            folder, *(row(key, finished) for key in random.Random(finished).sample(keys, 8)), row("ä.jpg")
        )
    before, old = loaded(folder), parts(folder)
    monkeypatch.setattr(module, "MAX_PART_ROWS", 4)
    compact(folder)
    assert keys_on_disk(folder) == sorted(before)
    assert len(parts(folder)) == -(-len(before) // 4)
    assert not set(old) & set(parts(folder))
    assert loaded(folder) == before


def test_compacted_a_single_part_is_sorted_and_has_one_row_for_each_input(tmp_path: Path) -> None:
    with Ledger(str(tmp_path)) as ledger:
        add(ledger, failed("b.jpg"), row("a.jpg"), row("b.jpg", 2))
        ledger.compact()
    assert keys_on_disk(str(tmp_path)) == ["a.jpg", "b.jpg"]


def test_killed_before_the_old_parts_are_removed_it_is_compacted_again(folder: str) -> None:
    write_rows(folder, row("a.jpg", 1), row("b.jpg", 2))
    write_rows(folder, row("b.jpg", 1), failed("c.jpg", 3))
    old = {part: storage.read_bytes(part) for part in parts(folder)}
    before = loaded(folder)
    for left in (old, dict(list(old.items())[1:])):
        compact(folder)
        for part, data in left.items():
            storage.write_bytes(part, data)
        assert loaded(folder) == before
    compact(folder)
    assert keys_on_disk(folder) == sorted(before)


def test_cleared_it_is_empty(folder: str) -> None:
    assert loaded(folder) == {}
    write_rows(folder, row("a.jpg"))
    with Ledger(folder) as ledger:
        ledger.load()
        ledger.clear()
        assert ledger.count() == 0
    assert loaded(folder) == {}


def test_the_first_input_with_a_key_and_a_target_has_them(tmp_path: Path) -> None:
    with Ledger(str(tmp_path)) as ledger:
        assert ledger.claim([("a", "x"), ("a", "x"), ("b", "x"), ("c", "z")]) == [True, False, False, True]
        assert ledger.claim([("a", "y"), ("d", "y"), ("c", "z")]) == [False, True, False]
        assert [ledger.is_listed(key) for key in "abcd"] == [True, False, True, True]


def test_rows_are_found_by_their_keys(tmp_path: Path) -> None:
    with Ledger(str(tmp_path)) as ledger:
        ledger.add(row("a.jpg"))
        ledger.add(failed("b.jpg"))
        assert ledger.rows_of(["a.jpg"]) == {}
        ledger.flush()
        assert ledger.rows_of(["b.jpg", "no.jpg"]) == {"b.jpg": failed("b.jpg")}


def test_a_result_is_present_where_its_size_is_that_of_its_row(tmp_path: Path) -> None:
    with Ledger(str(tmp_path)) as ledger:
        add(ledger, row("a.jpg", bytes=5), row("b.jpg", bytes=5), failed("c.jpg"))
        ledger.note_present([("a.jpg", 5), ("b.jpg", 4), ("other.jpg", 1), ("c.jpg", 1)])
        present = [row("a.jpg", bytes=5), row("b.jpg", bytes=5), row("no.jpg", bytes=5), row("a.jpg")]
        assert [ledger.is_present(one) for one in present] == [True, False, False, False]
        assert ledger.count_unknown() == 2


def test_failures_of_inputs_that_are_gone_are_forgotten(folder: str) -> None:
    write_rows(folder, row("done.jpg"), failed("gone.jpg"), failed("still.jpg"))
    with Ledger(folder) as ledger:
        ledger.load()
        ledger.claim([("still.jpg", "still.jpg"), ("new.jpg", "new.jpg")])
        ledger.add(row("new.jpg"))
        ledger.forget_unlisted_failures()
        ledger.compact()
    assert sorted(loaded(folder)) == ["done.jpg", "new.jpg", "still.jpg"]


def test_failures_that_are_forgotten_stay_so_where_nothing_was_done(tmp_path: Path) -> None:
    write_rows(str(tmp_path), row("done.jpg"), failed("gone.jpg"))
    with Ledger(str(tmp_path)) as ledger:
        ledger.load()
        ledger.compact()
    with Ledger(str(tmp_path)) as ledger:
        ledger.load()
        ledger.forget_unlisted_failures()
        ledger.compact()
    assert list(loaded(str(tmp_path))) == ["done.jpg"]


def test_slowest_failed_and_totals(tmp_path: Path) -> None:
    with Ledger(str(tmp_path)) as ledger:
        assert ledger.totals() == dict.fromkeys(ledger.totals(), 0.0)
        assert ledger.throughput(0, 2) == [(0.0, 0), (0.001, 0)]
        for second in range(10):
            times = {"seconds_read": second / 2, "seconds_restore": 1.0, "seconds_write": (second % 3) / 4}
            size = {"width": 1000, "height": 500, "bytes": 10, "source_bytes": 20}
            ledger.add(row(f"{second}.jpg", second * 1000, **times, **size))
        add(ledger, *(failed(f"bad{number}.jpg", finished=9_999) for number in (2, 1, 0)))
        assert [one.key for one in ledger.slowest(3)] == ["8.jpg", "9.jpg", "7.jpg"]
        assert [one.key for one in ledger.failures(2)] == ["bad0.jpg", "bad1.jpg"]
        assert len({one.key for one in ledger.sample(4) if one.status == "done"}) == 4
        assert list(ledger.totals()) == ["megapixels", "source_bytes", "bytes", *times]
        assert list(ledger.totals().values()) == pytest.approx([5.0, 200, 100, 22.5, 10.0, 2.25])
        assert ledger.throughput(0, 5) == [(0.0, 2), (2.0, 2), (4.0, 2), (6.0, 2), (8.0, 5)]
        assert ledger.throughput(8000, 2) == [(0.0, 1), (1.0, 4)]


@pytest.mark.parametrize("what", ["nonsense", "nothing", "another table", "other types", "half a part"])
def test_a_file_that_is_not_a_part_of_a_ledger_is_named(folder: str, what: str) -> None:
    write_rows(folder, FULL)
    (part,) = parts(folder)
    columns = {"another table": ["key"], "other types": SCHEMA.names}
    data = {"nonsense": b"nonsense", "nothing": b"", "half a part": storage.read_bytes(part)[:-100]}
    with storage.writing(part) as temporary:
        if what in columns:
            pq.write_table(pa.table({name: ["a.jpg"] for name in columns[what]}), temporary)
        else:
            temporary.write_bytes(data[what])
    with Ledger(folder) as ledger, pytest.raises(UserError, match="is not a ledger") as raised:
        ledger.load()
    assert str(raised.value).startswith(f"{part} is not a ledger (")


def test_its_folder_is_a_parquet_data_set_to_other_programs(tmp_path: Path) -> None:
    write_rows(str(tmp_path), FULL)
    write_rows(str(tmp_path), failed("b.jpg"))
    folder = tmp_path / module.FOLDER
    assert pa.dataset.dataset(folder).to_table().schema.equals(SCHEMA)
    assert pq.read_table(folder).sort_by("key")["key"].to_pylist() == ["a.jpg", "b.jpg"]
    frame = pandas.read_parquet(folder)
    assert list(frame.columns) == SCHEMA.names
    assert frame.set_index("key").loc["a.jpg", "finished"].timestamp() == 1_700_000_000.123


def test_many_rows_need_the_memory_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PART_ROWS", 10_000)
    tracemalloc.start()
    try:
        with Ledger(str(tmp_path)) as ledger:
            for number in range(100_000):
                ledger.add(replace(FULL, key=f"{number * 7919 % 100_000:06}.jpg"))
            ledger.compact()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6
    assert len(parts(str(tmp_path))) == 10
