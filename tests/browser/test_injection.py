"""Hostile text in every field of a run: on every screen, in the report, in the model's card."""

import re

import pytest

from browser.poison import groups, poison_run
from browser.served import SCREENS, serving, show
from check.payloads import PAYLOADS
from sft.runs.events import EventLog
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore

pytest.importorskip("playwright.sync_api")

GROUPS = groups(PAYLOADS, 4)
# What only a payload can have brought into a page of ours: elements that load or run something,
# handlers, addresses that run a script or lead away.
BROUGHT = """() => [...document.querySelectorAll("*")].flatMap((e) => {
  const found = [];
  const bad = /^(iframe|object|embed|base|form|link|meta|script|style|math|animate|foreignobject)$/;
  if (bad.test(e.localName) && !e.closest("head")) found.push(e.localName);
  for (const {name, value} of e.attributes) {
    if (/^on/i.test(name)) found.push(`${e.localName} ${name}`);
    if (/^(href|src|action|data|srcdoc|xlink:href)$/i.test(name)
        && !/^(#|\\/|data:,|data:image\\/(png|svg)|mailto:)/.test(value)
        && !value.startsWith(location.origin) && !/^https?:\\/\\/(?!evil)/.test(value))
      found.push(`${e.localName} ${name}=${value.slice(0, 60)}`);
  }
  return found;
})"""


ANSWER = {"step": 12, "probe": "usage", "reference": "x", "stop_reason": "stop", "tokens": 3}
# What is folded is made when it is opened.
UNFOLD = """() => new Promise((done) => {
  for (const fold of document.querySelectorAll("#main details")) fold.open = true;
  setTimeout(done, 50);
})"""


@pytest.fixture(scope="module")
def hostile(runs, tmp_path_factory):
    """One run for each group of payloads; in the last, words that decide are hostile too."""
    folder = tmp_path_factory.mktemp("hostile")
    last = len(GROUPS) - 1
    return [
        poison_run(runs / "first", folder, text, number, everything=number == last)
        for number, text in enumerate(GROUPS)
    ]


@pytest.fixture(scope="module")
def site(hostile):
    with serving(hostile[0].parent) as started:
        yield started


def assert_harmless(page):
    assert page.evaluate("window.pwned") == 0
    assert page.evaluate(BROUGHT) == []


@pytest.mark.parametrize("number", range(len(GROUPS)))
def test_on_every_screen_it_is_text(tab, site, hostile, number):
    with tab(site) as page:
        for screen in SCREENS:
            show(page, site.screen(hostile[number].name, screen))
            page.evaluate(UNFOLD)
            assert_harmless(page)
            if number < len(GROUPS) - 1 or screen == "/samples":  # it is there, and not left out
                assert "pwn()" in page.locator("#main").inner_text(), screen
        show(page, site.screen(hostile[number].name, "/samples"))
        shown = " ".join(page.locator("#main").text_content().split())
        for payload in PAYLOADS:
            if payload in GROUPS[number] and payload.isprintable():
                assert " ".join(payload.split()) in shown, payload


def test_a_page_that_takes_it_for_html_is_noticed(tab, site, hostile):
    """What the tests here rely on."""
    for payload in PAYLOADS[5:8]:
        with pytest.raises(AssertionError), tab(site) as page:
            show(page, site.screen(hostile[0].name, "/config"))
            page.evaluate("(t) => { document.getElementById('main').innerHTML = t; }", payload)
            page.wait_for_timeout(50)
            assert page.evaluate(BROUGHT) != []


def test_in_lists_and_comparisons_it_is_text(tab, site, hostile):
    rows = site.rows()
    with tab(site) as page:
        show(page, f"{site.url}/#/")
        assert page.locator("tbody tr").count() == len(hostile)
        assert_harmless(page)
        show(page, f"{site.url}/#/compare?runs={','.join(row['id'] for row in rows.values())}")
        assert_harmless(page)
        page.keyboard.press("?")
        assert_harmless(page)


def test_a_text_opened_in_full_is_text(tab, site, hostile):
    with tab(site) as page:
        for run in hostile:
            show(page, site.screen(run.name, "/samples"))
            page.locator("#main .sample button.id").first.click()
            page.locator("dialog[open]").wait_for()
            assert_harmless(page)
            page.keyboard.press("Escape")


def test_in_the_address_it_is_text(tab, site):
    with tab(site, quiet=False) as page:
        for payload in PAYLOADS:
            page.goto(f"{site.url}/#/run/{payload.encode('utf-8', 'replace').decode()}")
        page.locator("#main [role=alert]").wait_for()
        page.evaluate("(texts) => { for (const t of texts) location.hash = '#/' + t; }", PAYLOADS)
        page.evaluate(
            "(texts) => { for (const t of texts) location.hash = '#/compare?runs=' + t; }", PAYLOADS
        )
        page.wait_for_timeout(300)
        assert_harmless(page)


def test_in_the_report_it_is_text(tab, site, hostile):
    for run in hostile:
        with tab(site) as page:  # served, under its own policy, which allows no script at all
            page.goto(f"{site.url}/runs/{site.rows()[run.name]['id']}/report.html")
            assert page.evaluate(BROUGHT) == []
            assert "pwn()" in page.locator("body").inner_text()
    for run in hostile:
        allowed, requests = opened_file(tab, site, run / "report.html")
        assert allowed == (0, []) and requests == 1


def opened_file(tab, site, path):
    """A file opened from disk: what ran and what came in, and how much was asked for."""
    requests = []
    with tab(site, quiet=False) as page:
        context = page.context
        own = context.new_page()
        own.add_init_script("window.pwned = 0; window.pwn = () => { window.pwned += 1; };")
        own.on("request", lambda request: requests.append(request.url))
        own.goto(path.as_uri())
        found = own.evaluate("window.pwned"), own.evaluate(BROUGHT)
    outside = [url for url in requests if not url.startswith("data:")]
    return found, len(outside)


def test_in_the_card_of_the_model_it_is_text(tab, site, hostile, tmp_path):
    """Rendered with raw HTML allowed: the worst that a hub or an editor could do."""
    from markdown_it import MarkdownIt

    for number, run in enumerate(hostile):
        text = (run / "model" / "README.md").read_text(encoding="utf-8")
        body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        assert "pwn" in body
        page = tmp_path / f"card-{number}.html"
        made = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
        page.write_text(f"<!doctype html><meta charset=utf-8><body>{made}", encoding="utf-8")
        allowed, requests = opened_file(tab, site, page)
        assert allowed == (0, []), run.name
        assert requests == 1


def test_what_arrives_while_the_page_is_open_is_text(tab, site, hostile):
    """Events, alarms and answers that come through the stream, not with the page."""
    run = RunDir(hostile[0])
    log = EventLog(run.events)
    with tab(site) as page:
        for number, screen in enumerate(("/events", "", "/samples")):
            show(page, site.screen(hostile[0].name, screen))
            for text in PAYLOADS:
                log.add("alarm", text, level="error", step=6, guard=text, signal=text)
            log.add("note", f"the end of all {number}", level="warning")
            with RecordStore(run.samples) as samples:
                samples.append({**ANSWER, **dict.fromkeys(("id", "prompt", "answer"), GROUPS[1])})
            if screen == "/events":
                page.get_by_text(f"the end of all {number}").first.wait_for()
            if screen == "/samples":
                page.locator(".sample").nth(4).wait_for()
            page.wait_for_timeout(400)
            assert_harmless(page)
