"""The screens of `sft watch` in Chromium, served by the command itself."""

import re
import time

import pytest

from browser.conftest import SIZES
from browser.runs import STATES
from browser.served import SCREENS, serving, settled, show, width
from browser.test_page_in_browser import CONTRAST

expect = pytest.importorskip("playwright.sync_api").expect

# What must be on each screen of a finished run.
MAIN = {
    "": ("step 12 of 12", "Loss", "What to watch", "overfitting", "val"),
    "/guards": ("overfitting", "format collapse", "forgetting", "health"),
    "/samples": ("It is", "the base model", "It is France."),
    "/data": ("60", "rows.jsonl", "usage"),
    "/config": ("optim.learning_rate", "0.003", "sft train"),
    "/events": ("finished", "evaluation"),
}


def addresses(site):
    """All screens, each once; those of a run show the finished one."""
    rows = site.rows()
    both = f"{rows['first']['id']},{rows['second']['id']}"
    yield from ((name or "/run", site.screen("first", name)) for name in SCREENS)
    yield "/compare", f"{site.url}/#/compare?runs={both}"
    yield "/runs", f"{site.url}/#/"


@pytest.mark.parametrize("size", SIZES)
def test_every_screen_fits_and_can_be_read(tab, site, size):
    with tab(site, size) as page:
        for name, address in addresses(site):
            show(page, address)
            assert width(page) <= SIZES[size][0], name
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                expect(page.locator("html")).to_have_attribute("data-theme", scheme)
                settled(page)
                ratio, text = page.evaluate(CONTRAST)
                assert ratio >= 4.5, (name, scheme, text)
                assert (sum(page.evaluate(GROUND)) < 200) == (scheme == "dark")


GROUND = """() => {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.fillStyle = getComputedStyle(document.documentElement).backgroundColor;
  canvas.fillRect(0, 0, 1, 1);
  canvas.fillStyle = getComputedStyle(document.body).backgroundColor;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


def test_every_screen_tells_what_it_is_for(tab, site):
    with tab(site) as page:
        for screen, texts in MAIN.items():
            show(page, site.screen("first", screen))
            shown = page.locator("body").inner_text()
            for text in texts:
                assert text.lower() in shown.lower(), (screen, text)
        *_, (_, compare), (_, runs) = addresses(site)
        show(page, compare)
        shown = page.locator("#main").inner_text()
        assert "first" in shown and "second" in shown
        assert "optim.learning_rate" in shown
        show(page, runs)
        for name in STATES:
            assert name in page.locator("#main").inner_text()


@pytest.mark.parametrize("name", [name for name in STATES if name != "second"])
def test_a_run_in_every_state_is_shown_as_what_it_is(tab, site, name):
    assert site.rows()[name]["state"] == STATES[name]
    with tab(site) as page:
        for screen in SCREENS:
            show(page, site.screen(name, screen))
            assert page.locator("#state").inner_text().strip() == STATES[name]
            assert page.locator("#main").inner_text().strip() != ""
            assert page.locator("#main .notice.error", has_text="cannot be shown").count() == 0


def test_what_a_run_has_not_measured_is_not_shown_as_passed(tab, site):
    with tab(site) as page:
        show(page, site.screen("beginning"))
        assert page.locator("[data-value=pass]").count() == 0
        assert "not measured" in page.locator("#main").inner_text().lower()


def test_a_folder_without_runs_says_what_to_do(tab, tmp_path):
    with serving(tmp_path) as empty, tab(empty) as page:
        show(page, f"{empty.url}/#/")
        assert "sft train" in page.locator("#main").inner_text()


def test_a_run_that_is_not_there_is_told(tab, site):
    with tab(site, quiet=False) as page:
        page.goto(f"{site.url}/#/run/0123456789ab")
        expect(page.locator("#main [role=alert]")).to_contain_text("cannot be shown")
        assert page.locator("#main a", has_text="All runs").count() == 1


def test_keys(tab, site):
    with tab(site) as page:
        show(page, site.screen("first"))
        for number, screen in enumerate(("run", *(name[1:] for name in SCREENS[1:])), start=1):
            page.keyboard.press(str(number))
            expect(page.locator(f"#main > [data-screen={screen}]")).to_have_count(1)
            expect(page.locator("#tabs [aria-current=page]")).to_have_text(re.compile(screen, re.I))
        page.keyboard.press("3")
        search = page.locator("#main input[type=search]")
        expect(search).to_have_count(1)
        page.keyboard.press("/")
        expect(search).to_be_focused()
        page.keyboard.type("12")  # into the search, and no tab
        assert search.input_value() == "12"
        page.keyboard.press("Escape")
        expect(search).not_to_be_focused()
        page.keyboard.press("?")
        expect(page.locator("#help")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#help")).not_to_be_visible()
        page.keyboard.press("0")
        expect(page.locator("#main > [data-screen=runs]")).to_have_count(1)


def test_a_chart_tells_values_zooms_and_comes_back(tab, site):
    """The pointer moves the cursor of all charts, brushing zooms them, a double click goes back."""
    with tab(site) as page:
        show(page, site.screen("first"))
        chart = page.locator("#loss-chart")
        box = chart.bounding_box()
        left, right, y = box["x"] + 60, box["x"] + box["width"] - 20, box["y"] + box["height"] / 2
        page.mouse.move(left, y)
        page.mouse.move(left + 5, y)
        readout = page.locator("#readout")
        expect(readout).to_contain_text("step 1 ")
        expect(page.locator("#panels .cursor:visible").first).to_be_visible()
        page.mouse.move(right, y)
        expect(readout).to_contain_text("step 12")
        ends = "document.querySelector('#loss-chart .plot').layout.xaxis.range.map(Math.round)"
        assert page.evaluate(ends) == [0, 12]
        page.mouse.move((left + right) / 2, y)
        page.mouse.down()
        page.mouse.move(right, y, steps=4)
        page.mouse.up()
        expect(page.locator("#zoom-out")).to_be_visible()
        settled(page)
        low, high = page.evaluate(ends)
        assert 4 <= low <= 8 and high >= 11
        page.mouse.dblclick((left + right) / 2, y)
        expect(page.locator("#zoom-out")).not_to_be_visible()
        chart.focus()
        page.keyboard.press("Home")
        expect(readout).to_contain_text("step 1 ")
        page.keyboard.press("ArrowRight")
        expect(readout).to_contain_text("step 2 ")
        page.keyboard.press("+")
        expect(page.locator("#zoom-out")).to_be_visible()
        page.locator("#x-axis").select_option("time")
        expect(page.locator("#zoom-out")).not_to_be_visible()
        with page.expect_download() as picture:
            page.locator("#save-png").click()
        assert picture.value.suggested_filename == "first-loss.png"


def test_the_keyboard_reaches_every_control_of_the_run(tab, site):
    """Tab walks through the page and comes to its end; what has the focus can be seen."""
    with tab(site) as page:
        show(page, site.screen("first"))
        seen = []
        for _ in range(80):
            page.keyboard.press("Tab")
            seen.append(
                page.evaluate("document.activeElement.id || document.activeElement.tagName")
            )
            if seen[-1] == "BODY":
                break
        assert {"skip", "theme", "keys", "log", "clip", "x-axis", "smooth", "save-png"} <= {*seen}
        assert seen[-1] == "BODY" or len(seen) == len({*seen})


def test_a_theme_that_was_chosen_stays(tab, site):
    with tab(site, color_scheme="dark") as page:
        show(page, f"{site.url}/#/")
        dark = page.evaluate(GROUND)
        button = page.locator("#theme")
        while "light" not in (button.get_attribute("aria-label") or ""):
            button.click()
        light = page.evaluate(GROUND)
        assert sum(light) > sum(dark)
        page.reload()
        assert page.evaluate(GROUND) == light


def test_the_first_paint_does_not_wait_for_the_records(tab, site):
    with tab(site) as page:
        began = time.monotonic()
        show(page, site.screen("first"))
        paints = page.evaluate(
            "performance.getEntriesByName('first-contentful-paint').map((e) => e.startTime)"
        )
        assert paints and paints[0] < 1000 * (time.monotonic() - began)
        assert page.evaluate(
            "performance.getEntriesByType('resource').every((e) => !e.name.includes('plotly') "
            "|| e.startTime > performance.getEntriesByName('first-contentful-paint')[0].startTime)"
        )
