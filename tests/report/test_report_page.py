import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from report.poison import poisoned_run
from report.run_folders import finished_run, unfinished_run
from sft.report.html import render
from sft.report.report_json import report_json
from sft.runs.run_records import read_run
from sft.texts.safe import visible

VOID = {"meta", "link", "img", "source", "br"}
UNDRAWN = {"smoothing": 0.9, "marks_words": [], "lines": {}}


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and what stands in each section."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open, self.section, self.style = [], {}, [], "head", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("a", "b", "code", "span", "strong"):
            self.handle_data(" ")
        if tag == "section":
            self.section = dict(attrs)["id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style.append(data)
        else:
            self.texts[self.section] = self.texts.get(self.section, "") + data

    def text(self, section):
        return " ".join(self.texts[section].split())

    @property
    def shape(self):
        """Tags and the names of their attributes; but no words."""
        return [
            (tag, sorted(attrs), attrs.get("id"), attrs.get("class")) for tag, attrs in self.tags
        ]


def told(run):
    return report_json(read_run(run))


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return render(told(finished_run(tmp_path_factory.mktemp("run") / "mine", evaluated=True)))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_answer_comes_first_and_sections_stand_in_order(page):
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    order = "answer verdicts curves watch samples data incidents settings again missing"
    assert sections == order.split()
    head = page.text("head")
    title, _, rest = head.partition("Better than the base model on held-out rows")
    assert "Training report: mine" in title and "On 12 validation rows" in rest
    assert "best of 3 evaluations on these same validation rows" in head
    assert "12 of 12 steps" in head.replace("steps 12 of 12", "12 of 12 steps")


def test_each_section_says_what_was_found(page):
    assert "validation rows: loss scores.jsonl:" in page.text("answer")
    assert "\N{MINUS SIGN}1.005" in page.text("answer") and "< 0.001" in page.text("answer")
    assert "within the budget (0.05)" in page.text("answer")
    assert "field accuracy 10.0 % 70.0 % 57.0 % to 80.0 % +60.0 points better" in page.text(
        "answer"
    )
    assert "overfitting watch 12 rows the overfitting said so at 12" in page.text("verdicts")
    assert "At step 8, whose weights the model has: nothing seen." in page.text("verdicts")
    assert "Remedy do this about it" in page.text("verdicts")
    assert "First watch: overfitting at step 12." in page.text("curves")
    assert "val_loss rises watch by 0.1" in page.text("watch")
    assert "Base model answer of step 0 cut: it did not end, 6 tokens" in page.text("samples")
    assert "Trained answer of step 8 ended by itself, 6 tokens" in page.text("samples")
    assert "49 of 64 rows were trained on." in page.text("data")
    assert "2 left out a copy tickets/train.jsonl:61, tickets/train.jsonl:62" in page.text("data")
    assert "38 % of the tokens are trained: 300 of 800." in page.text("data")
    assert "2 of 20 usage prompts" in page.text("data")
    assert "2026-03-01 12:00:02 UTC 4 interrupted" in page.text("incidents")
    assert "optim.learning_rate 0.0001 auto flag" in page.text("settings")
    assert "eval.every 4 auto auto about 3 evaluations in 12 steps" in page.text("settings")
    assert "--run" in page.text("again") and "ab" * 32 in page.text("again")
    assert "Other seeds: this is one run." in page.text("missing")


def test_the_page_is_one_file_that_asks_for_nothing_and_runs_nothing(page, html):
    assert len(html.encode()) < 6_000_000
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "form", "object")]
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "style"], tag
        for name in ("src", "href", "srcset", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs[name][:40])
    (style,) = page.style
    assert not re.search(r"url\(|@import|http", style)
    (policy,) = (a["content"] for _, a in page.tags if a.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def test_every_picture_says_in_words_and_numbers_what_it_shows(page):
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 8
    for attrs in pictures:
        assert re.search(r"\d", attrs["alt"]) and len(attrs["alt"]) > 40
    for tag, attrs in page.tags:
        if tag == "source":
            assert attrs["media"].startswith("screen and")  # paper is light


def svgs(page):
    for tag, attrs in page.tags:
        if tag in ("img", "source"):
            address = attrs.get("src") or attrs["srcset"]
            yield base64.b64decode(address.partition("base64,")[2]).decode()


def test_pictures_hold_no_date_no_script_and_no_address(page):
    for svg in svgs(page):
        assert "<script" not in svg and 'xlink:href="http' not in svg
        assert "dc:date" not in svg and "Matplotlib v" not in svg


def test_the_same_folder_gives_the_same_bytes(tmp_path, html):
    again = finished_run(tmp_path / "mine", evaluated=True)
    other = render(told(again)).replace(str(tmp_path), "HERE")
    assert other == re.sub(r"[^ ]{1,200}/mine\b", "HERE/mine", html)


def test_an_old_run_says_what_was_not_recorded(tmp_path):
    run = finished_run(tmp_path / "old", best={"guards": [], "indicators": []})
    for path in (run.events, run.examples, run.findings, run.samples, run.preflight):
        path.unlink()
    page = Page(render(told(run)))
    assert "kept no events.jsonl" in page.text("incidents")
    assert "Lengths are in examples.json" in page.text("data")
    assert page.text("verdicts").count("not measured") >= 5
    assert "No completions were recorded" in page.text("samples")
    assert "What could not be read" not in page.text("missing")


def test_a_run_that_did_not_finish_claims_nothing(tmp_path):
    page = Page(render(told(unfinished_run(tmp_path / "half", steps=4))))
    assert "Not finished: the run was interrupted after step 4 of 12" in page.text("head")
    assert "The run did not finish: these are figures on the way." in page.text("answer")
    assert "Continue this run sft train" in page.text("again")
    assert "better" not in page.text("head").lower()


def undrawn(found):
    """Without the pictures, which take the time and hold no text of the folder."""
    return {**found, "curves": UNDRAWN, "data": {**found["data"], "lengths": None}}


@pytest.mark.parametrize("offset", range(0, 42, 7))
def test_text_of_the_folder_never_becomes_a_tag_or_an_attribute(tmp_path, offset):
    found = told(poisoned_run(tmp_path / "bad", offset))
    same = told(poisoned_run(tmp_path / "good", offset, harmless=True))
    assert found["problems"] == [] == same["problems"]
    pages = [Page(render(undrawn(each))) for each in (found, same)]
    assert pages[0].shape == pages[1].shape
    assert pages[0].style == pages[1].style
    assert visible(found["samples"]["rows"][0]["id"]).split()[0] in pages[0].text("samples")


def test_pictures_show_no_text_of_the_folder(tmp_path):
    page = Page(render(told(poisoned_run(tmp_path, 7))))
    drawn = list(svgs(page))
    assert len(drawn) == 2 * 8 + 2 * 3  # light and dark; three of them narrow, too
    assert not any("pwn" in svg or "evil" in svg for svg in drawn)
