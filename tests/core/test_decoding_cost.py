"""Small files that would take minutes to decode are refused at once; harmless ones that resemble them are not."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from test_imaging import png, saved, smooth

from diffuir_core.imaging import ImageError, decode, inspect
from diffuir_core.imaging.decoding_cost import MAX_RUN_LENGTH_BYTES, MAX_SCANS, MAX_STRIPS

AT_ONCE = 1.0
"""Most CPU time of a refusal, seconds; decoding these files took 5 to 300."""
MIB = 2**20


def segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def progressive(scans: int, between: bytes = b"") -> bytes:
    """A grey 512x512 JPEG: a scan of its means, then scans in which every block is empty."""
    tables = segment(0xDB, b"\0" + bytes([16] * 64)) + segment(
        0xC2, struct.pack(">BHHB", 8, 512, 512, 1) + bytes([1, 0x11, 0])
    )
    codes = segment(0xC4, b"\x00\x01" + bytes(16)) + segment(0xC4, b"\x10\x01" + bytes(15) + b"\xe0")
    means = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(512)
    empty = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b"\x3f\xff"  # one code for 4,096 blocks and more
    return b"\xff\xd8" + tables + codes + means + (between + empty) * (scans - 1) + b"\xff\xd9"


def run_length_coded(pixels: bytes, height: int = 100, width: int = 1100) -> bytes:
    """An 8-bit BMP with run-length coded `pixels`."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 2835, 2835, 256, 0)
    start = 14 + len(info) + 1024
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + info + bytes(1024) + pixels


def tiff(strips: int, rows: int = 1, side: int = 64) -> bytes:
    """A grey TIFF with `rows` rows in each strip; all strips share one place in the file."""
    after = 10 + 9 * 12 + 4
    entries = (
        (256, 3, 1, side), (257, 3, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, strips, after), (277, 3, 1, 1), (278, 3, 1, rows), (279, 4, strips, after + 4 * strips),
    )  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in entries)
    values = struct.pack("<I", 8) * strips + struct.pack("<I", rows * side) * strips
    return struct.pack("<2sHI", b"II", 42, 8) + directory + bytes(4) + values + bytes(rows * side)


BEFORE_IDAT = png(64, 64, bytes(64 * 193), 8, 2, *[(b"abCd", b"")] * 200_000)
HOSTILE = {
    "scans": progressive(100_000),
    "scans behind markers without a length": progressive(100_000, between=b"\xff\x01"),
    "segments": b"\xff\xd8" + segment(0xFE) * (8 * MIB) + b"\xff\xd9",
    "segments behind an end": b"\xff\xd8\xff\xd9" + segment(0xFE) * MIB + progressive(2)[2:],
    "filling": b"\xff\xd8" + b"\xff" * (32 * MIB) + progressive(2)[2:],
    "junk": b"\xff\xd8" + b"\xff\xf0\xff\xff" + bytes(32 * MIB) + progressive(2)[2:],
    "chunks": BEFORE_IDAT,
    "empty chunks of pixels": BEFORE_IDAT.replace(b"abCd\xff", b"IDAT\xff").replace(b"abCd", b"IDAT"),
    "run lengths": run_length_coded(b"\x00\x02\x00\x00" * (8 * MIB)),
    "strips": tiff(MIB),
    "strips over each other": tiff(2000, rows=2048, side=4096),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_would_take_minutes_to_decode_is_refused_at_once(name: str) -> None:
    for read in (inspect, decode):
        began = time.process_time()
        with pytest.raises(ImageError) as refused:
            read(HOSTILE[name])
        assert time.process_time() - began < AT_ONCE
        assert len(str(refused.value).splitlines()) == 1


def test_a_jpeg_may_have_as_many_scans_as_libtiff_allows() -> None:
    assert decode(progressive(MAX_SCANS)).pixels.shape == (512, 512, 3)
    with pytest.raises(ImageError, match="scans"):
        decode(progressive(MAX_SCANS + 1))


def test_bytes_like_scans_in_metadata_or_after_the_picture_are_ignored() -> None:
    """Examples: a preview in a maker's note, the second picture of an MPO, the film of a motion photo."""
    looks_so = b"\xff\xda\x00\x02" * 5000
    plain = saved(Image.fromarray(smooth()), "JPEG", progressive=True)
    noted = plain[:2] + segment(0xE1, looks_so) + segment(0xED, looks_so) + plain[2:]
    assert np.array_equal(decode(noted + looks_so).pixels, decode(plain).pixels)
    assert inspect(noted + looks_so) == inspect(plain)


def test_a_jpeg_of_much_metadata_is_taken() -> None:
    plain = saved(Image.fromarray(smooth()), "JPEG")
    long = plain[:2] + segment(0xE1, bytes(65_000)) * 500 + b"\xff" * 100 + plain[2:]
    assert np.array_equal(decode(long).pixels, decode(plain).pixels)


def test_a_png_in_small_chunks_is_taken() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    chunks = ((b"IDAT", body[at : at + 256]) for at in range(0, len(body), 256))
    assert np.array_equal(decode(png(800, 600, b"", 8, 2, *chunks)).pixels, pixels)


def test_a_run_length_coded_bmp_is_taken_up_to_its_bytes() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (1000, 254), dtype=np.uint8)
    rows = b"".join(b"\x00\xfe" + row.tobytes() + b"\x00\x00" for row in photo)
    assert decode(run_length_coded(rows + b"\x00\x01", 1000, 254)).pixels.shape == (1000, 254, 3)
    with pytest.raises(ImageError, match="store it uncompressed"):
        decode(run_length_coded(bytes(MAX_RUN_LENGTH_BYTES)))


def test_a_tiff_may_have_a_strip_for_each_row() -> None:
    picture = Image.fromarray(smooth())
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF", strip_size=1)
    assert np.array_equal(decode(buffer.getvalue()).pixels, smooth())
    with pytest.raises(ImageError, match=r"strips or tiles$"):
        decode(tiff(MAX_STRIPS + 1))


def test_a_tiff_may_have_a_plane_for_each_sample() -> None:
    planes = [np.full((64, 64), value, np.uint8) for value in (10, 20, 30)]
    after = 10 + 10 * 12 + 4
    first = after + 6 + 24
    entries = (
        (256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 3, after), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 3, after + 6), (277, 3, 1, 3), (278, 3, 1, 64), (279, 4, 3, after + 18), (284, 3, 1, 2),
    )  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in entries)
    values = struct.pack("<3H6I", 8, 8, 8, *(first + 4096 * plane for plane in range(3)), *[4096] * 3)
    data = struct.pack("<2sHI", b"II", 42, 8) + directory + bytes(4) + values + b"".join(map(bytes, planes))
    assert np.array_equal(decode(data).pixels, np.stack(planes, -1))


def test_counting_a_large_photo_costs_little() -> None:
    plain = saved(Image.fromarray(smooth()), "JPEG")
    coded = random.Random(0).randbytes(16 * MIB).replace(b"\xff", b"\xff\x00")
    began = time.process_time()
    assert inspect(plain[:-2] + coded + plain[-2:]).format == "JPEG"
    assert time.process_time() - began < 0.2
