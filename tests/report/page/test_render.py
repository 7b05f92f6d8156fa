"""The page, in a real browser: it asks for nothing, says nothing on the console, sorts, fits a phone, and prints."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import RunCommand
from tests.report.figures.test_drawing import write_curves

pytestmark = pytest.mark.processes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# CI installs a browser; without it the page's HTML is still compared with what is pinned.
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="there is no Chromium here (Debian: chromium), or no playwright to drive it",
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def write_page(ragcun: RunCommand, root: Path, out: Path) -> Path:
    for seed in range(3):
        write_curves(out.parent / f"runs/isotropy-seed{seed}", seed)
    done = ragcun(
        "report", "page", "--results", root / "results", "--data-dir", root / "data", "--runs", out.parent / "runs",
        "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Browser, path: Path, width: int = 1200) -> tuple[Page, list[str], list[str]]:
    """The page, and what it said and asked for: both lists go on filling."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    return page, said, asked


@needs_browser
def test_in_a_browser(ragcun: RunCommand, scored: Path, tmp_path: Path, browser: Browser) -> None:
    path = write_page(ragcun, scored, tmp_path / "report.html")
    page, said, asked = opened(browser, path)
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    loaded = page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
    assert loaded
    assert page.locator("figure img").count() == 7

    scores = page.locator("section", has_text="Scores").locator("table").first
    names = scores.locator("tbody th")
    assert names.all_text_contents() == ["encoder (untouched)", "baseline", "isotropy", "frozen"]
    head = scores.locator("thead button", has_text="one")
    head.click()
    assert names.all_text_contents()[0] == "isotropy"
    assert scores.locator("thead th").nth(1).get_attribute("aria-sort") == "descending"
    head.click()
    assert names.all_text_contents()[-1] == "isotropy"
    scores.locator("thead button").first.click()
    assert names.all_text_contents() == ["baseline", "encoder (untouched)", "frozen", "isotropy"]

    folded = page.locator("details", has_text="largest wins of isotropy")
    assert not folded.locator(".example").first.is_visible()
    folded.locator("summary").click()
    assert folded.locator(".example").first.is_visible()
    assert folded.locator(".example").count() == 20
    assert said == []


@needs_browser
def test_missing_figures_sort_last(ragcun: RunCommand, copied: Path, tmp_path: Path, browser: Browser) -> None:
    (copied / "results/isotropy-seed1/two.json").unlink()
    page, _, _ = opened(browser, write_page(ragcun, copied, tmp_path / "out/report.html"))
    scores = page.locator("section", has_text="Scores").locator("table").first
    for _ in range(2):
        scores.locator("thead button", has_text="two").click()
        assert scores.locator("tbody th").all_text_contents()[-1] == "isotropy"


@needs_browser
def test_on_a_phone(ragcun: RunCommand, scored: Path, tmp_path: Path, browser: Browser) -> None:
    page, said, _ = opened(browser, write_page(ragcun, scored, tmp_path / "report.html"), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 14
    assert page.evaluate("document.querySelector('tbody th').offsetWidth") >= 100  # names are read, not spelt
    assert said == []


@needs_browser
def test_it_prints_what_is_folded_away(ragcun: RunCommand, scored: Path, tmp_path: Path, browser: Browser) -> None:
    page, _, _ = opened(browser, write_page(ragcun, scored, tmp_path / "report.html"))
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF-")
    assert (
        page.evaluate(
            "dispatchEvent(new Event('beforeprint')), document.querySelectorAll('details:not([open])').length"
        )
        == 0
    )
    assert (
        page.evaluate("dispatchEvent(new Event('afterprint')), document.querySelectorAll('details[open]').length") == 0
    )


def test_what_is_in_it(ragcun: RunCommand, scored: Path, tmp_path: Path) -> None:
    text = write_page(ragcun, scored, tmp_path / "report.html").read_text()
    order = [
        "What the results show", "Scores", "Each comparison in one sentence", "Figures",
        "The largest wins and losses", "Shape of the embeddings",
        "Smaller embeddings", "Cost", "Where this comes from", "What was expected",
    ]  # fmt: skip
    places = [text.index(f"<h2>{title}</h2>") for title in order]
    assert places == sorted(places)
    assert "isotropy against baseline on one (test, 40 queries), nDCG@10 x 100: 94.62" in text
    assert "nDCG@10 on 2 datasets: better on each." in text
    assert "sha256:isotropy-seed1" in text
    assert "never verified" in text
    for outside in ('src="http', 'href="http', "url(", "@import", '<link rel="stylesheet'):
        assert outside not in text


def test_examples_have_query_and_passages(ragcun: RunCommand, scored: Path, tmp_path: Path) -> None:
    from ragcun_cli.report.page.examples import find_extremes
    from ragcun_cli.report.tables import read_rows
    from ragcun_cli.report.verify_results import find_texts

    rows = {row.name: row for row in read_rows(scored / "results", ())}
    data = scored / "data"
    found = find_extremes(
        rows["isotropy"], rows["baseline"], ["one", "two"], "ndcg@10", lambda result: find_texts(result, data)
    )
    assert {each.dataset for each in found.wins} == {"one", "two"}  # equals are drawn by lot, not by name
    first = found.wins[0]
    assert [each.difference for each in found.wins] == sorted((each.difference for each in found.wins), reverse=True)
    assert len(found.wins) == 20
    assert found.losses == ()
    number = int(first.query_id.removeprefix("q"))
    assert first.text == str(60 + number)
    relevant = next(each for each in first.passages if each.relevant)
    assert (relevant.passage_id, relevant.text) == (f"p{number}", str(number))
    by_baseline, by_row = relevant.ranks
    assert by_row is not None
    assert by_baseline is None or by_row <= by_baseline


def test_texts_that_are_not_here_are_said_to_be_missing(ragcun: RunCommand, copied: Path, tmp_path: Path) -> None:
    from tests.report.test_collect import change

    for path in (copied / "results").glob("*/*.json"):
        if path.name in ("one.json", "two.json"):
            change(path, lambda content: content["dataset"].update(path="nowhere"))
    out = tmp_path / "a.html"
    done = ragcun("report", "page", "--results", copied / "results", "--data-dir", tmp_path, "--out", out)
    assert done.exit_code == 0
    assert "does not have the dataset as it was when scored" in done.stderr
    assert "(text not available)" in out.read_text()


def test_names_are_no_markup(ragcun: RunCommand, tmp_path: Path) -> None:
    from tests.report.scored import dataset_at, make_dataset, score_model

    data = [dataset_at(make_dataset(tmp_path / "data" / "one"))]
    score_model(tmp_path / "results", "<img src=x onerror=alert(1)>", data, 0.9)
    done = ragcun("report", "page", "--results", tmp_path / "results", "--out", tmp_path / "a.html")
    assert done.exit_code == 0, done.stderr
    assert "<img src=x" not in (tmp_path / "a.html").read_text()
    assert "claims: no arm trains the encoder without an isotropy term" in done.stderr


def test_nothing_is_written_when_something_is_wrong(ragcun: RunCommand, copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("the reading before")
    (copied / "results/encoder/one.queries.parquet").unlink()
    done = ragcun("report", "page", "--results", copied / "results", "--out", out)
    assert done.exit_code == 1
    assert out.read_text() == "the reading before"
