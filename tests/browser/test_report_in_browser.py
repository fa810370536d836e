"""The report of a run in Chromium, opened from disk and printed."""

import re
from contextlib import contextmanager

import pytest

from report.poison import poisoned_run
from report.run_folders import finished_run
from sft.report.write import write_report

SIZES = {"wide": (1440, 900), "narrow": (390, 844)}
# What is wider than the page, and not in a box that scrolls.
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll")
    && !e.closest(".skip") && e.checkVisibility())
  .map((e) => e.outerHTML.slice(0, 80))"""
# Pictures that were loaded, by the width they are shown in.
PICTURES = """() => [...document.images].map((i) => [i.complete && i.naturalWidth > 0,
  i.currentSrc.slice(0, 26), i.currentSrc === i.src])"""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    run = finished_run(tmp_path_factory.mktemp("good") / "mine", evaluated=True)
    return write_report(run)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    return write_report(poisoned_run(tmp_path_factory.mktemp("bad")))


@contextmanager
def opened(browser, path, size="wide", **options):
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    tab = context.new_page()
    told = []
    tab.on("request", lambda request: told.append(request.url))
    tab.on("console", lambda message: told.append(message.text))
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    tab.add_init_script("window.pwned = 0; window.pwn = () => { window.pwned += 1; };")
    tab.goto(path.as_uri())
    yield tab
    told = [url for url in told if not url.startswith("data:image/svg+xml;base64,")]
    assert [url for url in told if url not in (path.as_uri(), "data:,")] == []
    context.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_all_pictures_are_shown(browser, good, size, scheme):
    with opened(browser, good, size, color_scheme=scheme) as tab:
        assert tab.evaluate(TOO_WIDE) == []
        pictures = tab.evaluate(PICTURES)
        assert len(pictures) == 8
        assert all(loaded for loaded, *_ in pictures)
        # Light and wide is the `img` itself; whatever else is one of the sources.
        plain = [same for *_, same in pictures]
        assert all(plain) if (size, scheme) == ("wide", "light") else not all(plain)
        if scheme == "dark":
            assert not any(plain)


def test_hostile_text_runs_nothing_and_asks_for_nothing(browser, bad):
    for size in SIZES:
        with opened(browser, bad, size) as tab:
            for summary in tab.query_selector_all("summary"):
                summary.click()
            assert tab.evaluate("window.pwned") == 0
            assert tab.evaluate("document.scripts.length") == 0
            assert tab.evaluate(TOO_WIDE) == []


def test_on_paper_what_is_folded_is_open_and_nothing_is_cut(browser, good):
    with opened(browser, good, color_scheme="dark") as tab:
        tab.set_viewport_size({"width": 680, "height": 1000})  # A4 less its margins
        tab.emulate_media(media="print", color_scheme="dark")
        assert tab.evaluate(TOO_WIDE) == []
        cut = """() => [...document.querySelectorAll(".scroll, .answer-text, .tokens")]
          .filter((e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
          .map((e) => e.outerHTML.slice(0, 80))"""
        assert tab.evaluate(cut) == []
        folded = """() => [...document.querySelectorAll("details > :not(summary)")]
          .map((e) => e.getBoundingClientRect().height > 20)"""
        opened_all = tab.evaluate(folded)
        assert opened_all and all(opened_all)
        assert all(same for *_, same in tab.evaluate(PICTURES))  # light, though the screen is dark
        back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == "rgb(255, 255, 255)"
        pdf = tab.pdf(prefer_css_page_size=True)
        boxes = set(re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf))
        assert {(round(float(w)), round(float(h))) for w, h in boxes} == {(595, 842)}  # A4
