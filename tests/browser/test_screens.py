"""Guards, Samples, Data, Compare, Config and Events: what each lets a reader do."""

import json
import re
import shutil
from datetime import UTC, datetime

import pytest

from browser.served import serving, show
from sft.runs.events import EventLog

expect = pytest.importorskip("playwright.sync_api").expect


@pytest.fixture
def call(tab, site):
    """Calls a function of one of the page's modules."""
    with tab(site) as page:
        show(page, f"{site.url}/#/")

        def run(module, expression):
            return page.evaluate(f"async () => {{ const m = await import('/static/{module}'); "
                                 f"return {expression}; }}")  # fmt: skip

        yield run


def changed(parts):
    return [part["text"] for part in parts if part["changed"]]


# ------------------------------------------------------------------ pure functions


def test_words_that_differ_are_found_and_texts_stay_whole(call):
    before, after = "a quick brown fox jumps", "a slow brown fox leaps over"
    found = call("diff.js", f"m.diffWords({before!r}, {after!r})")
    assert found["kind"] == "some"
    assert changed(found["before"]) == ["quick", "jumps"]
    assert changed(found["after"]) == ["slow", "leaps over"]
    assert "".join(part["text"] for part in found["before"]) == before
    assert "".join(part["text"] for part in found["after"]) == after
    assert call("diff.js", "m.diffWords('one two', 'one two').kind") == "same"
    assert call("diff.js", "m.diffWords('one two', 'three four').kind") == "new"
    assert call("diff.js", "m.diffWords('a '.repeat(900), 'b a '.repeat(900)).kind") == "long"


def test_what_prompts_share_is_folded_at_lines_and_control_tokens(call):
    prompts = [f"<|s|>system\nBe short.<|e|>\nuser\n{ask}?<|e|>\n" for ask in ("Who is", "Where")]
    head, tail = call("prose.js", f"m.sharedEnds({prompts})")
    assert [one[head : len(one) - tail] for one in prompts] == ["Who is?", "Where?"]
    assert call("prose.js", "m.sharedEnds(['alone'])") == [0, 0]


def test_commands_of_a_remedy_name_the_run(call):
    text = "blend (`sft blend RUN`: free), or strip (--set data.openers=strip), or `data.replay`"
    found = call("prose.js", f'm.commandsOf({text!r}, "/my runs/it\'s")')
    assert found == ["sft blend '/my runs/it'\\''s'", "--set data.openers=strip"]


@pytest.mark.parametrize(
    ("signal", "point", "value"),
    [
        ("forgetting.retention", {"threshold": 0.05, "mde": 0.1}, 0.15),
        ("distribution_mismatch.coverage", {"threshold": 0.2, "mde": 0.3}, 0.3),
        ("distribution_mismatch.transfer", {"threshold": 0.25, "mde": 0.1}, 0.15),
        ("format_collapse.opener", {"threshold": 1.0, "mde": 0.1}, None),
        ("forgetting.retention", {"threshold": 0.05, "mde": None}, None),
        ("overfitting.gap", {"threshold": 0.02, "mde": 0.1}, None),
    ],
)
def test_what_would_have_been_seen(call, signal, point, value):
    found = call("signals.js", f"m.detectable({signal!r}, {json.dumps(point)})")
    assert found == (value if value is None else pytest.approx(value))


def test_missing_figures_sort_last_both_ways(call):
    rows = "[{v: 2}, {v: null}, {v: 10}, {v: 1}]"
    for down, order in (("false", [1, 2, 10, None]), ("true", [10, 2, 1, None])):
        script = f"m.sorted({rows}, (row) => row.v, {down}).map((row) => row.v)"
        assert call("run_table.js", script) == order


def test_values_are_written_as_in_a_configuration(call):
    plain = '[{path: "a.jsonl", weight: 1, format: "auto"}, {path: "b.jsonl", weight: 2}]'
    assert call("format.js", f"m.valueText({plain})") == "a.jsonl; b.jsonl, weight: 2"
    assert call("format.js", "[null, '', 'x', 1e-4, [1]].map(m.valueText)") == [
        "null", '""', "x", "0.0001", "[1]"
    ]  # fmt: skip


# ------------------------------------------------------------------ screens


def test_a_guard_that_measured_nothing_evals_different_from_one_that_passed(tab, site):
    with tab(site) as page:
        show(page, site.screen("first", "/guards"))
        cards = page.locator(".verdict-card")
        expect(cards).to_have_count(5)
        for card in cards.all():
            verdict = card.locator("header .badge").get_attribute("data-value")
            assert verdict in card.get_attribute("class")
            if verdict == "not_measured":
                assert "not a pass" in card.inner_text()
            assert "guards." in card.locator(".action").inner_text()
        card = page.locator("#guard-overfitting")
        names = card.locator("select option").all_inner_texts()
        card.locator("select").select_option(label=names[-1])
        card.get_by_text("All signals").click()
        expect(card.locator(".signals .figures").first).to_be_visible()


def test_a_sample_opens_by_key_and_gives_the_focus_back(tab, site):
    with tab(site) as page:
        show(page, site.screen("first", "/samples"))
        total = page.locator(".sample").count()
        opener = page.locator(".sample .id").first
        opener.focus()
        page.keyboard.press("Enter")
        dialog = page.locator(".full-text")
        expect(dialog).to_be_visible()
        assert "Reference" in dialog.inner_text()
        page.keyboard.press("5")  # a key of the page, which waits behind the dialog
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(dialog).not_to_be_visible()
        expect(opener).to_be_focused()
        page.locator("input[type=search]").fill("no such words")
        expect(page.locator(".sample")).to_have_count(0)
        page.locator("input[type=search]").fill("")
        expect(page.locator(".sample")).to_have_count(total)


def test_tokens_show_what_is_trained_and_keys_turn_the_rows(tab, site):
    with tab(site) as page:
        show(page, site.screen("first", "/data"))
        first = page.locator(".token-head .id").inner_text()
        for kind in ("trained", "masked"):
            assert page.locator(f".tokens .t.{kind}").count() > 0
        assert "It is" in "".join(page.locator(".tokens .t.trained").all_text_contents())
        page.keyboard.press("]")
        second = page.locator(".token-head .id").inner_text()
        assert second != first
        page.keyboard.press("[")
        assert page.locator(".token-head .id").inner_text() == first
        page.locator(".token-views input[type=search]").fill(second)
        expect(page.locator(".token-head .id")).to_have_text(second)
        page.locator(".token-views input[type=search]").fill("no such row")
        expect(page.locator(".tokens .t")).to_have_count(0)


def test_an_address_opens_a_row_or_says_that_it_is_not_kept(tab, site):
    with tab(site) as page:
        show(page, site.screen("first", "/data"))
        wanted = page.locator(".token-turn option").nth(3).inner_text()
    with tab(site) as page:
        show(page, site.screen("first", f"/data?row={wanted}"))
        expect(page.locator(".token-head .id")).to_have_text(wanted)
    with tab(site) as page:
        show(page, site.screen("first", "/data?row=nowhere.jsonl:1"))
        expect(page.locator("#data-rows .missing")).to_contain_text("nowhere.jsonl:1")


def test_runs_are_chosen_compared_and_kept_in_the_address(tab, site):
    with tab(site) as page:
        show(page, f"{site.url}/#/compare")
        assert "two to six" in page.locator(".compared").inner_text()
        for name in ("first", "second"):
            page.get_by_label(f"Compare {name}", exact=True).check()
        expect(page.locator(".paired .figures")).to_have_count(1)
        rate = page.locator(".settings-diff tbody tr", has_text="optim.learning_rate")
        expect(rate).to_have_count(1)
        assert "optim.epochs" not in page.locator(".settings-diff").inner_text()
        page.get_by_label("also those that are the same").check()
        assert "optim.epochs" in page.locator(".settings-diff").inner_text()
        rows = site.rows()
        assert page.url.endswith(f"runs={rows['first']['id']},{rows['second']['id']}")
        page.get_by_role("button", name="run", exact=True).click()
        names = page.locator(".runs tbody th a").all_inner_texts()
        assert names == sorted(rows)
        expect(page.locator(".runs th[aria-sort=ascending]")).to_have_text("run")


def test_settings_are_found_by_source_and_text(tab, site):
    with tab(site) as page:
        show(page, site.screen("first", "/config"))
        total = page.locator(".setting").count()
        page.get_by_role("button", name=re.compile("^auto")).click()
        autos = page.locator(".setting")
        assert 0 < autos.count() < total
        assert {text for text in autos.locator(".source").all_inner_texts()} == {"auto"}
        page.get_by_role("button", name=re.compile("^auto")).click()
        page.locator("input[type=search]").fill("learning_rate")
        expect(page.locator(".setting")).to_have_count(1)
        assert "0.003" in page.locator(".setting").inner_text()


def test_events_follow_what_is_written_until_paused(tab, runs, tmp_path):
    run = tmp_path / "live"
    shutil.copytree(runs / "first", run, ignore=shutil.ignore_patterns("checkpoints", "model"))
    log = EventLog(run / "events.jsonl")
    for number in range(60):
        log.add("note", f"old line {number}")
    with serving(tmp_path) as own, tab(own) as page:
        show(page, own.screen("live", "/events"))
        log.add("note", "told live")
        expect(page.get_by_text("told live")).to_be_in_viewport()
        page.locator(".event-box").evaluate("(box) => { box.scrollTop = 0; }")
        follow = page.locator(".controls button", has_text="follow")
        expect(follow).to_have_attribute("aria-pressed", "false")
        log.add("watch", "told while paused", level="warning")
        expect(follow).to_contain_text("1 new")
        page.keyboard.press("f")
        expect(page.get_by_text("told while paused")).to_be_in_viewport()
        page.get_by_role("button", name="warning").click()
        times = page.locator(".event time")
        expect(times.last).to_have_attribute("title", re.compile(f"^{datetime.now(UTC).year}"))
        assert all("warning" in e.get_attribute("class") for e in page.locator(".event").all())
