"""The page of `sft check --html` in Chromium, opened from disk."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from check.payloads import PAYLOADS, poisoned, together
from check.reports import BARE, FILE, FULL, SMALL, place
from sft.check.page import write_page
from sft.data.template.pieces import Piece
from sft.texts.safe import visible

SIZES = {"wide": (1440, 900), "narrow": (390, 844)}

# Smallest contrast of a text with what is behind it (WCAG 2.2), and the text; of all that is shown.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const known = new Map();
  const rgba = (color) => {
    if (known.has(color)) return known.get(color);
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    known.set(color, [...canvas.getImageData(0, 0, 1, 1).data]);
    return known.get(color);
  };
  const light = (color) => {
    const [r, g, b] = rgba(color).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (rgba(color)[3] === 255) return color;
    }
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest(":disabled")) continue;
    const style = getComputedStyle(element);
    const color = element instanceof SVGElement ? style.fill : style.color;
    const [low, high] = [light(color), light(behind(element))].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), node.data.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0])[0];
}"""

# Searches for each text, turns all pages, and gives the texts of the rows found and all tags there.
SEARCH = """(texts) => texts.map((text) => {
  const query = document.getElementById("query"), next = document.getElementById("next");
  query.value = text;
  query.dispatchEvent(new Event("input"));
  const found = [], tags = new Set();
  for (let more = true, turns = 0; more && turns < 50; next.click(), turns += 1) {
    for (const row of document.querySelectorAll("#list .tokens")) found.push(row.textContent);
    for (const part of document.querySelectorAll("#list *")) tags.add(part.localName);
    more = !next.disabled;
  }
  return [found, [...tags]];
})"""


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the page of a report; gives the tab, and all that it asked for or complained about."""

    @contextmanager
    def open_page(report, size="wide", **options):
        path = tmp_path / "page #1.html"
        write_page(report, path)
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
        yield tab, told
        # Pictures are in the page itself.
        assert [line for line in told if not line.startswith("data:image/svg")] == [path.as_uri()]
        context.close()

    return open_page


def rows(tab):
    return tab.locator("#list article h3").all_inner_texts()


def test_text_of_the_data_runs_nothing_and_asks_for_nothing(opened):
    report = together([poisoned(SMALL, payload) for payload in PAYLOADS])
    with opened(report) as (tab, _):
        tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert tab.locator(".finding").count() == len(report.findings)
        assert tab.locator("#found").inner_text() == "126 of 126 rows"
        tab.locator("a[data-row]").last.click()
        drawn = tab.evaluate(SEARCH, [*map(visible, PAYLOADS), ""])
        for payload, (texts, tags) in zip((*PAYLOADS, ""), drawn, strict=True):
            assert visible(payload).strip() in texts[0]
            assert {*tags} <= {"article", "div", "h3", "header", "mark", "p", "span"}
        tab.locator(".copy").last.click()
        assert tab.evaluate("window.pwned") == 0


def test_a_policy_that_is_broken_is_noticed(opened):
    """What the test above relies on: a script that is not the page's own is refused, and told."""
    with pytest.raises(AssertionError, match="Content Security Policy"), opened(BARE) as (tab, _):
        tab.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), "
            "{textContent: 'pwn()'}))"
        )
        assert tab.evaluate("window.pwned") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_can_be_read(opened, tmp_path, scheme, size):
    for report in (FULL, BARE):
        with opened(report, size, color_scheme=scheme) as (tab, _):
            tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            assert tab.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
            ratio, text = tab.evaluate(CONTRAST)
            assert ratio >= 4.5, text
            shot = tmp_path / f"{report.num_rows}-{scheme}-{size}.png"
            tab.screenshot(path=shot, full_page=True)
            assert shot.stat().st_size > 20_000
            dark = (
                tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 25)"
            )
            assert dark == (scheme == "dark")


def test_long_words_do_not_widen_the_page(opened):
    with opened(poisoned(SMALL, "x" * 400), "narrow") as (tab, _):
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_rows_are_drawn_as_their_tokens(opened):
    with opened(FULL) as (tab, _):
        assert rows(tab) == [place(i) for i in range(1, 11)]
        first = tab.locator("#list article").first
        parts = first.locator(".t").evaluate_all(
            "all => all.map((e) => [e.textContent, e.className])"
        )
        for (text, name), piece in zip(parts, FULL.views[0].pieces, strict=True):
            assert text == piece.text
            assert name == f"t {piece.kind}" + " special" * piece.special
        assert first.locator(".nl").count() == sum(p.text.count("\n") for p in FULL.views[0].pieces)
        assert tab.locator(".served").all_inner_texts()[:3] == [
            "same tokens when serving",
            "served differently",
            "serving: not measured",
        ]
        assert "When serving: messages[1]: token 31" in tab.locator("#list").inner_text()


def test_rows_are_found_by_place_by_text_and_by_kind(opened):
    with opened(FULL) as (tab, _):
        query, choice = tab.locator("#query"), tab.locator("#filter")
        query.fill("ticket 37)")
        assert rows(tab) == [place(37)]
        assert tab.locator("mark").all_inner_texts() == ["ticket 37)"]
        query.fill(place(3))  # and not 30 to 39
        assert rows(tab) == [place(3)]
        query.fill("KÜNDIGE")
        assert tab.locator("#found").inner_text() == "15 of 60 rows"
        query.fill("nowhere")
        assert "--row file:line" in tab.locator("#found").inner_text()
        assert rows(tab) == []
        query.fill("")
        choice.select_option("differs")
        assert rows(tab) == [place(2)]
        choice.select_option("partly")
        assert rows(tab) == [place(line) for line in (7, 14, 21, 28, 35, 42, 49, 56)]
        choice.select_option("named")
        assert tab.locator("#found").inner_text() == "32 of 60 rows"


def test_pages_of_rows_are_turned_with_the_keyboard(opened):
    with opened(FULL) as (tab, _):
        assert tab.locator("#previous").is_disabled()
        for _ in range(5):
            tab.locator("#next").focus()
            tab.keyboard.press("Enter")
        assert rows(tab) == [place(i) for i in range(51, 61)]
        assert tab.locator("#page").inner_text() == "51 to 60"
        assert tab.locator("#next").is_disabled()
        tab.locator("#previous").focus()
        tab.keyboard.press("Space")
        assert rows(tab)[0] == place(41)


def test_the_keyboard_reaches_findings_and_the_search(opened):
    with opened(SMALL) as (tab, _):
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.textContent") == "Skip to the findings"
        tab.keyboard.press("Enter")
        seen = []
        while seen[-1:] != ["query"] and len(seen) < 80:
            tab.keyboard.press("Tab")
            seen.append(
                tab.evaluate("document.activeElement.id || document.activeElement.localName")
            )
            if seen[-1] == "summary":
                tab.keyboard.press("Enter")
        assert {"button", "summary", "a", "query"} <= {*seen}
        assert tab.locator("#findings details[open]").count() == 5
        tab.keyboard.type("ticket 2)")
        assert rows(tab) == [place(2)]


def test_a_place_in_a_finding_leads_to_its_row(opened):
    with opened(FULL) as (tab, _):
        tab.locator("#findings details").nth(1).locator("summary").click()
        tab.locator("#findings a", has_text="45").first.click()
        assert rows(tab) == [place(45)]
        assert tab.locator("#list article").first.is_visible()
        assert "Named by: leaks, near duplicates" in tab.locator("#list").inner_text()


def test_a_fix_is_copied_as_it_is(opened):
    with opened(FULL, permissions=["clipboard-read", "clipboard-write"]) as (tab, _):
        button = tab.locator(".copy").nth(3)
        button.click()
        assert tab.evaluate("navigator.clipboard.readText()") == FULL.findings[3].fix
        assert button.inner_text() == "Copied"


def test_without_scripts_all_but_the_rows_is_there(opened):
    with opened(FULL, java_script_enabled=False) as (tab, _):
        text = tab.locator("body").inner_text()
        for part in (FILE, "412 rows (41 %)", "its opener 'Sure!'", "59 % of the tokens", "sha256"):
            assert part in text, part
        assert "Rows are drawn by a script" in text
        assert not tab.locator("#search").is_visible()
        assert not tab.locator(".copy").first.is_visible()
        tab.locator("summary").first.click()
        assert tab.locator(".places").first.is_visible()


def test_print_is_dark_on_white_with_what_is_folded_and_no_controls(opened):
    with opened(FULL, color_scheme="dark") as (tab, _):
        assert not tab.locator("#findings .places").first.is_visible()
        tab.emulate_media(media="print")
        assert tab.locator("#findings .places").first.is_visible()
        assert not tab.locator("nav").is_visible()
        assert not tab.locator("#query").is_visible()
        assert tab.locator("#list .tokens").first.is_visible()
        ratio, text = tab.evaluate(CONTRAST)
        assert ratio >= 4.5, text
        assert (
            tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert tab.pdf().startswith(b"%PDF")


def test_characters_that_hide_are_seen(opened):
    view = replace(FULL.views[0], pieces=(Piece("a\u202eb\u200b\x07\t\r\n", "trained"),))
    with opened(replace(BARE, views=(view,))) as (tab, _):
        text = tab.locator(".t.trained").last.evaluate("e => e.textContent")
        assert text == "a⟨U+202E⟩b⟨U+200B⟩⟨U+0007⟩\t⟨U+000D⟩\n"
        assert tab.locator("#list .tab").count() == 1
