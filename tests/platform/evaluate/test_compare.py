"""Two evaluations compared: paired differences, a sign test, the page; and the page of one evaluation."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright
from scipy import stats

from diffuir_core.errors import UserError
from diffuir_platform.evaluate import evaluate, write_report
from diffuir_platform.evaluate.compare import Comparison, compare, write_comparison
from diffuir_platform.evaluate.overview import write_page
from diffuir_platform.evaluate.staging import load, save_png
from support.command import diffuir_here
from support.evaluating import SETTINGS, brighten, keep, make_pair

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def spoil(source: Path, target: Path) -> dict[str, str]:
    """Restore as `brighten` does, but for a mark in the corner of those with an odd number."""
    brighten(source, target)
    for path in target.rglob("*.png"):
        if int(path.stem) % 2:
            pixels = load(path).copy()
            pixels[:6, :6] = 255
            save_png(path, pixels)
    return {}


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    for stem in range(5):
        make_pair(tmp_path / "pairs" / "dark", str(stem), seed=stem)
    for name, restore in (("a", brighten), ("b", spoil)):
        report = evaluate(tmp_path / "pairs", restore, SETTINGS, tmp_path / name)
        write_report(report, tmp_path / name)
        write_page(report, tmp_path / name, ())
    return tmp_path / "a", tmp_path / "b"


def row(found: Comparison, metric: str) -> dict[str, str]:
    table = found.table()
    (cells,) = (cells for cells in table.rows if cells[1] == metric)
    return dict(zip(table.headings, cells, strict=True))


def check_page(text: str, pictures: int) -> None:
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text), "it needs another file"
    assert text.count("data:image/jpeg") == pictures


def test_differences_are_paired_and_a_sign_test_says_how_sure_they_are(both: tuple[Path, Path]) -> None:
    found = compare(*both)
    values = {
        name: [image["psnr_after"] for image in json.loads((folder / "results.json").read_text())["images"]]
        for name, folder in zip("ab", both, strict=True)
    }
    differences = np.subtract(values["b"], values["a"])
    psnr = row(found, "PSNR")
    assert float(psnr["difference"].split()[0]) == pytest.approx(differences.mean(), abs=0.01)
    assert (psnr["images"], psnr["better"], psnr["worse"], psnr["equal"]) == ("5", "0", "2", "3")
    assert float(psnr["p"]) == pytest.approx(stats.binomtest(0, 2).pvalue)
    same = row(compare(both[0], both[0]), "SSIM")
    assert (same["better"], same["worse"], same["equal"], same["p"]) == ("0", "0", "5", "1")


def test_the_images_that_differ_most_come_first_on_a_page_that_needs_no_other_file(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    found = compare(*both)
    assert {int(pair[0].key) % 2 for pair in found.most_different()[:2]} == {1}
    done = diffuir_here("evaluate", "--compare", *both, "--out", tmp_path / "page")
    assert done.returncode == 0, done.stderr
    assert "Paired differences" in done.stdout
    page = (tmp_path / "page" / "compare.html").read_text()
    check_page(page, pictures=5 * 8)
    assert page.count("<article") == 5
    for label in ("degraded", "A", "B", "truth"):
        assert f"<option>{label}</option>" in page or f"<option selected>{label}</option>" in page


def test_what_can_not_be_compared_is_left_out_and_named(both: tuple[Path, Path], tmp_path: Path) -> None:
    make_pair(tmp_path / "pairs" / "dark", "5", seed=5)
    make_pair(tmp_path / "pairs" / "dark", "0", seed=77)
    report = evaluate(tmp_path / "pairs", keep, SETTINGS, tmp_path / "c")
    write_report(report, tmp_path / "c")
    found = compare(both[0], tmp_path / "c")
    assert found.left_out == {
        "dark/0": "its photos are others in A than in B",
        "dark/5": "only B measured it",
    }
    assert row(found, "PSNR")["images"] == "4"
    assert "Left out: 2 images, first dark/0" in write_comparison(found, tmp_path).read_text()


def test_folders_that_hold_no_finished_evaluation_are_refused(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds no finished evaluation: name what"):
        compare(both[0], tmp_path)
    make_pair(tmp_path / "others" / "dusk", "1", seed=9)
    write_report(evaluate(tmp_path / "others", keep, SETTINGS, tmp_path / "d"), tmp_path / "d")
    with pytest.raises(UserError, match="have no image in common"):
        compare(both[0], tmp_path / "d")
    done = diffuir_here("evaluate", "--compare", both[0])
    assert (done.returncode, "write --compare A B" in done.stderr) == (2, True)


def test_photos_that_were_moved_since_are_named_on_the_page(both: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "pairs" / "dark" / "clean" / "1.png").unlink()
    (both[1] / "restored" / "dark" / "2.png").unlink()
    page = write_comparison(compare(*both), tmp_path).read_text()
    assert page.count("<article") == 5
    assert page.count("data:image/jpeg") == 3 * 8
    assert "clean/1.png" in page


def test_an_evaluation_has_a_page_of_what_gained_most_and_least(both: tuple[Path, Path]) -> None:
    page = (both[1] / "report.html").read_text()
    check_page(page, pictures=2 * 6)
    assert "<h3>dark/" in page


def test_names_are_escaped(tmp_path: Path) -> None:
    make_pair(tmp_path / "pairs" / "<b>dark", "1")
    report = evaluate(tmp_path / "pairs", keep, SETTINGS, tmp_path / "out")
    write_page(report, tmp_path / "out", ())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>dark" not in page
    assert "&lt;b&gt;dark/1" in page


def test_the_slider_and_the_names_choose_what_is_seen(both: tuple[Path, Path], tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium, to test the page in a browser")
    page_file = write_comparison(compare(*both), tmp_path)
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda sent: None if sent.url.startswith(("file:", "data:")) else wrong.append(sent.url),
        )
        page.goto(page_file.as_uri())
        first = page.locator(".stack").first
        shown = "(stack) => [...stack.querySelectorAll('img')].map((photo) => photo.className).join()"
        assert first.evaluate(shown) == ",left,right,"
        first.locator(".of-left").select_option("truth")
        assert first.evaluate(shown) == ",,right,left"
        first.locator("input").press("ArrowRight")
        assert first.evaluate("(stack) => stack.style.getPropertyValue('--x')") == "50.5%"
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        browser.close()
    assert wrong == []
