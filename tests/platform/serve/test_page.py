"""The page at / in Chromium: a photo is dropped, the slider dragged, the result compared with the API's."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.photo_files import heic
from support.serving import Endpoint, stub_endpoint

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("DIFFUIR_SCREENSHOTS")
"""A folder for screenshots of the page."""
SIZE = (96, 64)
DROP = """([encoded, name]) => {
    const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], name, { type: "image/png" }));
    for (const kind of ["dragenter", "dragover", "drop"])
        document.getElementById("drop").dispatchEvent(
            new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: carried }));
}"""
PIXELS = """async (id) => {
    const image = document.getElementById(id);
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium, to test the page in a browser")
    with stub_endpoint(0.05) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(endpoint: Endpoint, browser: Browser) -> Iterator[Page]:
    """A fresh page, which loads everything from its own server and whose script does not fail."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    wrong: list[str] = []
    own = (endpoint.url, f"blob:{endpoint.url}", "data:")
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda sent: None if sent.url.startswith(own) else wrong.append(sent.url))
    page.goto(endpoint.url)
    expect(page.locator("#model option")).to_have_count(1)
    expect(page.locator("#examples li")).to_have_count(4)
    yield page
    page.close()
    assert wrong == []


@pytest.fixture
def photo() -> bytes:
    return a_photo(*SIZE)


def a_photo(width: int, height: int) -> bytes:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def drop(page: Page, photo: bytes, name: str = "mine.png") -> None:
    page.evaluate(DROP, [base64.b64encode(photo).decode(), name])
    expect(page.locator("#result")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("Done")


def pixels(page: Page, which: str) -> np.ndarray:
    shown = np.array(page.evaluate(PIXELS, which), dtype=np.uint8)
    return shown.reshape(SIZE[1], SIZE[0], 4)[..., :3]


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def keep(page: Page, name: str) -> None:
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"), full_page=True)


def test_a_dropped_photo_is_shown_as_the_api_restores_it(
    page: Page, endpoint: Endpoint, photo: bytes
) -> None:
    drop(page, photo)
    expected = requests.post(f"{endpoint.url}/v1/restore", data=photo, timeout=60).content
    assert np.array_equal(pixels(page, "after"), opened(expected))
    assert np.array_equal(pixels(page, "before"), opened(photo))
    with page.expect_download() as downloading:
        page.click("#download")
    assert downloading.value.suggested_filename == "mine-restored.png"
    assert Path(downloading.value.path()).read_bytes() == expected
    keep(page, "restored")


def test_the_slider_is_dragged_and_moved_by_keys(page: Page, photo: bytes) -> None:
    drop(page, photo)
    box = page.locator("#stage").bounding_box()
    handle = page.locator("#handle").bounding_box()
    assert box is not None
    assert handle is not None
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, handle["y"] + 20, steps=5)
    page.mouse.up()
    assert float(page.locator("#divide").input_value()) == pytest.approx(20, abs=1.5)
    # What lies to the right of the line is the result now, to the left the photo.
    clip = page.locator("#before").evaluate("e => getComputedStyle(e).clipPath")
    assert "inset" in clip
    page.focus("#divide")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert float(page.locator("#divide").input_value()) == pytest.approx(25, abs=1.5)


def test_a_photo_is_pasted_chosen_and_zoomed(page: Page, photo: bytes, tmp_path: Path) -> None:
    page.evaluate(
        DROP.replace('"dragenter", "dragover", "drop"', '"paste"').replace(
            "new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: carried })",
            "new ClipboardEvent(kind, { bubbles: true, clipboardData: carried })",
        ),
        [base64.b64encode(photo).decode(), "pasted.png"],
    )
    expect(page.locator("#status")).to_contain_text("Done")
    file = tmp_path / "chosen.png"
    file.write_bytes(photo)
    page.set_input_files("#file", str(file))
    expect(page.locator("#download")).to_have_attribute("download", "chosen-restored.png")
    page.click("#larger")
    page.click("#larger")
    expect(page.locator("#zoom")).to_have_text("200%")
    assert page.locator("#viewer").evaluate("e => e.scrollWidth > e.clientWidth")
    page.click("#fit")
    expect(page.locator("#zoom")).to_have_text("fit")


@pytest.mark.parametrize("viewport", [(1100, 900), (360, 740)], ids=["desktop", "phone"])
@pytest.mark.parametrize(
    "size", [(256, 256), (96, 200), (300, 100), (1, 300), (300, 1)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_the_whole_photo_is_seen_at_first_and_its_middle_when_it_is_enlarged(
    page: Page, size: tuple[int, int], viewport: tuple[int, int]
) -> None:
    page.set_viewport_size({"width": viewport[0], "height": viewport[1]})
    drop(page, a_photo(*size), f"{size[0]}x{size[1]}.png")
    keep(page, f"fit-{size[0]}x{size[1]}-{viewport[0]}")
    viewer, stage = page.locator("#viewer").bounding_box(), page.locator("#stage").bounding_box()
    assert viewer is not None
    assert stage is not None
    assert viewer["x"] <= stage["x"] < stage["x"] + stage["width"] <= viewer["x"] + viewer["width"]
    assert viewer["y"] <= stage["y"] < stage["y"] + stage["height"] <= viewer["y"] + viewer["height"] + 0.5
    assert viewer["height"] <= 0.75 * viewport[1] + 1
    assert stage["width"] / stage["height"] == pytest.approx(size[0] / size[1], rel=0.2)
    fits = stage["width"] >= viewer["width"] - 3 or stage["height"] >= 0.75 * viewport[1] - 12
    assert fits, "it is as large as there is room for"
    for _ in range(3):
        page.click("#larger")
    larger, viewer = page.locator("#stage").bounding_box(), page.locator("#viewer").bounding_box()
    assert larger is not None
    assert viewer is not None
    assert larger["width"] == pytest.approx(3 * stage["width"], rel=0.02)
    for start, length in (("x", "width"), ("y", "height")):
        if larger[length] > viewer[length]:
            middle = viewer[start] + viewer[length] / 2
            assert larger[start] + larger[length] / 2 == pytest.approx(middle, abs=12)  # a scrollbar's width


def test_a_file_can_be_chosen_again_after_an_error(page: Page, photo: bytes, tmp_path: Path) -> None:
    """A browser fires an event only for a change, and the field keeps its value."""
    file = tmp_path / "mine.png"
    file.write_bytes(b"no photo")
    page.set_input_files("#file", str(file))
    expect(page.locator("#status")).to_have_class("bad")
    assert page.locator("#file").input_value() == ""
    file.write_bytes(photo)
    page.set_input_files("#file", str(file))
    expect(page.locator("#status")).to_contain_text("Done")


@pytest.mark.parametrize("name", ["mine.heic", "mine.HIF", "mine"])
def test_what_the_browser_cannot_show_comes_back_as_a_png(page: Page, name: str) -> None:
    data = heic(np.full((SIZE[1], SIZE[0], 3), 99, np.uint8))
    page.evaluate(DROP.replace("image/png", ""), [base64.b64encode(data).decode(), name])
    expect(page.locator("#status")).to_contain_text("cannot show the original photo. The result is a PNG")
    expect(page.locator("#download")).to_have_attribute("download", "mine-restored.png")
    assert pixels(page, "after").shape == (SIZE[1], SIZE[0], 3)


def test_an_example_is_one_click(page: Page) -> None:
    page.click("#examples button >> nth=0")
    expect(page.locator("#status")).to_contain_text("Done")
    keep(page, "example")


def test_what_cannot_be_restored_is_said(page: Page) -> None:
    page.evaluate(DROP, [base64.b64encode(b"no photo").decode(), "text.png"])
    expect(page.locator("#status")).to_contain_text("Unsupported image format")
    expect(page.locator("#status")).to_have_class("bad")


def test_it_fits_a_phone_and_everything_has_a_name(page: Page, photo: bytes) -> None:
    drop(page, photo)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    keep(page, "phone")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, a, img, progress")]
            .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.hasAttribute("alt")))
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    small = page.evaluate(
        """() => [...document.querySelectorAll("main button, main select, main a, main input[type=number]")]
            .filter((e) => e.offsetHeight && e.offsetHeight < 44).map((e) => e.outerHTML)"""
    )
    assert small == []
