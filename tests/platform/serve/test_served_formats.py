"""The endpoint takes HEIC, AVIF, JPEG XL and RAW photos, sends their formats back, and tells its own limits."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from test_api import Served

from diffuir_core.imaging import PHOTO_SUFFIXES, RAW_SUFFIXES, decode
from diffuir_platform.serve.gateway.access import KEYS
from support.photo_files import dng, heic, jxl

PIXELS = np.full((64, 96, 3), 99, np.uint8)
PAGE = Path(__file__).parents[3] / "platform/diffuir_platform/serve/api/page/page.html"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.delenv(KEYS, raising=False)
    return Served()


def test_a_photo_comes_back_in_its_format(served: Served) -> None:
    raw = dng(np.full((64, 96), 9000, np.uint16))
    for photo, media_type in ((heic(PIXELS), "image/heic"), (jxl(PIXELS), "image/jxl"), (raw, "image/tiff")):
        answer = served.restore(photo)
        assert (answer.status, answer.headers["content-type"]) == (200, media_type)
        assert decode(answer.body).pixels.shape == PIXELS.shape
    described = served.app.openapi()["paths"]["/v1/restore"]["post"]
    for content in (described["requestBody"]["content"], described["responses"]["200"]["content"]):
        assert {"image/heic", "image/avif", "image/jxl"} <= set(content)


@pytest.mark.parametrize("format", ["heic", "avif", "jxl"])
def test_a_result_is_sent_in_the_format_asked_for(served: Served, format: str) -> None:
    answer = served.restore(heic(PIXELS), ("format", format))
    assert (answer.status, answer.headers["content-type"]) == (200, f"image/{format}")
    assert decode(answer.body).format == format.upper()


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + b"\x08\2\0\0\0")
        + chunk(b"IDAT", b"")
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("width", "height", "limit"),
    [(60_000, 60_000, "16,384"), (8000, 8000, "33,554,432"), (17_000, 2, "16,384")],
)
def test_a_bomb_is_413_with_the_limit_of_this_server(
    served: Served, width: int, height: int, limit: str
) -> None:
    answer = served.restore(bomb(width, height))
    assert answer.problem == (413, "too-large")
    assert f"it is {width}x{height} pixels" in answer.detail
    assert answer.detail.endswith(f"the limit of {limit}")
    assert served.models.asked == []


def test_a_larger_limit_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS, raising=False)
    answer = Served(max_pixels=200_000_000, max_side=65_535).restore(bomb(14_000, 15_000))
    assert answer.detail.endswith("the limit of 200,000,000")


def test_without_a_library_a_request_is_415(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = heic(PIXELS)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    answer = served.restore(photo)
    assert answer.problem == (415, "unknown-format")
    assert answer.detail == "this server has no support for HEIC: use another format"


def test_the_page_offers_every_ending() -> None:
    page = PAGE.read_text()
    accepted = page.partition('accept="')[2].partition('"')[0].split(",")
    assert "image/*" in accepted
    assert set(RAW_SUFFIXES) | {".heic", ".heif", ".hif", ".avif", ".jxl"} <= set(accepted)
    assert set(accepted) - {"image/*"} <= set(PHOTO_SUFFIXES)
