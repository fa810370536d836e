"""`report.html`, opened from disk with no server and no network."""

import pytest

from browser.conftest import SIZES
from browser.test_page_in_browser import CONTRAST

pytest.importorskip("playwright.sync_api")

GROUND = "getComputedStyle(document.body).backgroundColor"
MOST_BYTES = 6_000_000


@pytest.fixture
def opened(browser, runs):
    """Opens the report of a run; gives the tab, and what it asked for or complained about."""
    contexts = []

    def open_report(name, size="wide", **options):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        told = []
        page.on("request", lambda request: told.append(request.url))
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto((runs / name / "report.html").as_uri())
        return page, told

    yield open_report
    for context in contexts:
        context.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["first", "diverged"])
def test_it_fits_and_can_be_read(opened, runs, name, size):
    page, told = opened(name, size)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ratio, text = page.evaluate(CONTRAST)
        assert ratio >= 4.5, (scheme, text)
        grounds.add(page.evaluate(GROUND))
    assert len(grounds) == 2
    [own] = [line for line in told if not line.startswith("data:")]
    assert own == (runs / name / "report.html").as_uri()


@pytest.mark.parametrize("name", ["first", "diverged"])
def test_it_is_one_small_file_without_scripts(runs, opened, name):
    path = runs / name / "report.html"
    assert path.stat().st_size < MOST_BYTES
    page, _ = opened(name, java_script_enabled=True)
    assert page.locator("script").count() == 0
    pictures = page.locator("img").evaluate_all(
        "all => all.map((e) => [e.currentSrc.slice(0, 11), e.naturalWidth, e.alt])"
    )
    for source, width, words in pictures:
        assert source == "data:image/" and width > 0
        assert words  # what it shows, for those who do not see it
    assert page.locator("img").count() + page.locator("svg").count() > 0


def test_it_says_how_the_run_ended(opened):
    page, _ = opened("first")
    text = page.locator("body").inner_text()
    assert "first" in text and "overfitting" in text
    page, _ = opened("diverged")
    text = page.locator("body").inner_text()
    assert "gradient norm is nan" in text
    assert "learning rate" in text
