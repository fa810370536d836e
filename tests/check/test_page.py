import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from check.payloads import PAYLOADS, poisoned
from check.reports import BARE, FILE, FULL, LENGTHS, SMALL, place, view, views
from sft.check.page import MAX_VIEW_BYTES, render_page, write_page
from sft.check.report import AccountLine
from sft.curate.finding import DataFinding
from sft.data.template.pieces import Piece
from sft.errors import ConfigError
from sft.report.pictures import bar_heights
from sft.texts.safe import as_json, percent, visible

VOID = {"meta", "link", "input", "br", "img", "source"}


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and what stands in each section."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open, self.section = [], {}, [], "head"
        self.inline = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("a", "b", "code", "span", "strong", "text"):
            self.handle_data(" ")
        if tag == "section":
            self.section = dict(attrs)["id"]
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.inline.setdefault(self.open[-1], []).append(data)
        else:
            self.texts[self.section] = self.texts.get(self.section, "") + data

    def text(self, section):
        return " ".join(self.texts[section].split())

    @property
    def shape(self):
        """Tags and the names of their attributes, and the values that are ours; but no words."""
        return [
            (tag, sorted(attrs), attrs.get("id"), attrs.get("class"))
            for tag, attrs in self.tags
            if attrs.get("class") != "word"
        ]

    @property
    def rows(self):
        return json.loads(self.inline["script"][0])["rows"]


@pytest.fixture(scope="module")
def full():
    return Page(render_page(FULL))


def test_sections_stand_in_order_and_say_what_was_found(full):
    sections = [attrs["id"] for tag, attrs in full.tags if tag == "section"]
    order = "findings account lengths template estimate rows diversity usage suspicious notes"
    assert sections == order.split()
    head = full.text("head")
    assert f"{FILE} Mend this before you train: 2 errors, 3 warnings, 1 note." in head
    assert "rows read 1,000 trained on 937 validation 50 not used 13 errors 2" in head
    assert "Not measured" not in head
    assert "near duplicates warning 412 rows 412 rows (41 %) are near" in full.text("findings")
    assert "Fix --set data.deduplicate=true Copy" in full.text("findings")
    assert "8 edited, and trained on its opener 'Sure!' is taken off" in full.text("account")
    assert "59 % of the tokens are trained: 155,912 of 262,144." in full.text("lengths")
    assert "max_seq_len 2,048" in picture(full)["alt"]
    assert "it lies beyond this axis" in full.text("lengths")
    assert "stops by itself yes, generation_config.json" in full.text("template")
    assert "memory 5.1 GB at most" in full.text("estimate")
    assert "60 of 1,000 rows are in this page" in full.text("rows")
    assert "sft check … --row file:line" in full.text("rows")
    assert "parcel, delivered, tracking 388 39 %" in full.text("diversity")
    assert "10 of 40 usage prompts (25 %)" in full.text("usage")
    assert "devuelto, pedido 3 prompts usage.jsonl:8 ¿Cuándo llega" in full.text("usage")
    assert "system prompt: 100% of training rows" in full.text("usage")
    assert "AUC of 0.87" in full.text("usage")
    assert "3.42 3.21 1.24 88" in full.text("suspicious")
    assert "2 rows spell a special token" in full.text("notes")


def picture(page):
    """Attributes of the one picture of the page, the lengths on a wide screen."""
    (found,) = (attrs for tag, attrs in page.tags if tag == "img")
    return found


def test_what_was_not_measured_is_said():
    bare = Page(render_page(BARE))
    missing = "Not measured: lengths, template, estimate, diversity, usage coverage."
    assert missing in bare.text("head")
    for section in ("lengths", "template", "estimate", "diversity", "usage"):
        assert "Not measured." in bare.text(section), section
    assert "Not measured" in bare.text("suspicious")
    assert "No rows are embedded." in bare.text("rows")
    assert "Nothing wrong was found" in bare.text("head")


@pytest.mark.parametrize(
    "severity, verdict",
    [
        ("error", "Mend this before you train: 1 error."),
        ("warning", "Look at this before you train: 1 warning."),
        ("info", "Nothing stands in the way: 1 note."),
    ],
)
def test_the_worst_finding_decides_the_headline(severity, verdict):
    finding = DataFinding("x", severity, 1, ("a:1",), "x")
    assert verdict in Page(render_page(replace(BARE, findings=(finding,)))).text("head")


def test_two_hundred_rows_are_listed_and_the_others_counted(full):
    shown = full.text("findings")
    assert "Show 200 of 412 rows" in shown and "and 212 more" in shown
    assert f"{FILE} 1 3 5 7" in shown and " 399 and 212 more" in shown
    # A check may know fewer places than it counts.
    finding = DataFinding("x", "error", 9, ("a:1", "b:2"), "x")
    shown = Page(render_page(replace(BARE, findings=(finding,)))).text("findings")
    assert "Show 2 of 9 rows a 1 b 2 and 7 more" in shown


def test_only_rows_in_the_page_are_links(full):
    links = {attrs["data-row"] for tag, attrs in full.tags if "data-row" in attrs}
    assert place(1) in links and place(59) in links
    assert place(61) not in links and place(640) not in links
    assert {attrs["href"] for tag, attrs in full.tags if "data-row" in attrs} == {"#rows"}


def test_a_turn_of_a_row_is_found_under_the_place_of_the_row():
    finding = DataFinding("echo_es", "info", 1, (place(7),), "x")
    parts = tuple(replace(view(7, "q", "a"), id=f"{place(7)}#{turn}") for turn in (1, 2))
    page = Page(render_page(replace(BARE, findings=(finding,), views=parts)))
    assert [row["named"] for row in page.rows] == [["echo es"], ["echo es"]]
    assert {attrs["data-row"] for _, attrs in page.tags if "data-row" in attrs} == {place(7)}


def test_rows_are_embedded_as_they_are(full):
    for row, made in zip(full.rows, FULL.views, strict=True):
        assert row["pieces"] == [[p.text, p.kind, int(p.special)] for p in made.pieces]
        assert (row["id"], row["serving"]) == (made.id, made.serving)
    assert full.rows[0]["named"] == ["near duplicates"]


def test_five_hundred_rows_and_a_full_report_stay_below_five_megabytes(tmp_path):
    many = tuple(replace(v, id=place(i)) for i, v in enumerate(views(600)))
    text = render_page(replace(FULL, views=many))
    page = Page(text)
    assert len(page.rows) == 500
    assert "500 of 1,000 rows are in this page; 100 more were chosen" in page.text("rows")
    long = tuple(
        replace(v, pieces=(*v.pieces, Piece("日本語 <b>&\u2028" * 1500, "masked")))
        for v in many[:100]
    )
    text = render_page(replace(FULL, views=long))
    assert MAX_VIEW_BYTES < len(text.encode()) < 5_000_000
    assert 50 < text.count('{"id":') < 100


def test_a_row_that_is_too_large_leaves_room_for_the_others():
    huge = replace(FULL.views[0], pieces=(Piece("x" * MAX_VIEW_BYTES, "masked"),))
    page = Page(render_page(replace(FULL, views=(huge, *FULL.views[1:3]))))
    assert [row["id"] for row in page.rows] == [place(2), place(3)]
    assert "1 more were chosen" in page.text("rows")


def test_the_page_is_one_file_that_asks_for_nothing(full):
    for tag, attrs in full.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "style"], tag
        for name in ("src", "href", "action", "srcset", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:image/svg")) or attrs == {
                "rel": "icon",
                "href": "data:,",
            }
    assert "http" not in "".join(full.inline["style"])
    assert not re.search(r"url\(|@import", "".join(full.inline["style"]))


def test_the_policy_allows_this_script_and_this_style_only(full):
    (policy,) = (a["content"] for _, a in full.tags if a.get("http-equiv"))
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))

    def digest(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    data, script = full.inline["script"]
    (style,) = full.inline["style"]
    assert rules == {
        "default-src": "'none'",
        "style-src": digest(style),
        "script-src": digest(script),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    banned = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|setAttribute\(.on"
    assert not re.search(banned, script)
    assert json.loads(data)["rows"]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_of_the_data_never_becomes_a_tag_or_an_attribute(full, payload):
    undrawn = replace(SMALL, lengths=None)  # the picture takes the time and holds no text
    page = Page(render_page(poisoned(undrawn, payload)))
    same = re.sub(r"[^\s:#]", "x", visible(payload))  # the page parts a place at these
    harmless = Page(render_page(poisoned(undrawn, same)))
    assert page.shape == harmless.shape
    assert page.inline["script"][1:] == full.inline["script"][1:]
    assert page.inline["style"] == full.inline["style"]
    assert visible(payload) in page.rows[0]["pieces"][1][0]
    assert visible(payload).split()[0] in page.text("notes")


def test_a_status_that_is_not_known_is_shown():
    line = AccountLine(3, "<i>odd", "why", ())
    page = Page(render_page(replace(BARE, account=(line,))))
    assert "3 <i>odd why" in page.text("account")


def test_hidden_characters_are_made_visible():
    assert visible("a\u202eb\x1b\r\u200b\ud800\U000e0041") == (
        "a⟨U+202E⟩b⟨U+001B⟩⟨U+000D⟩⟨U+200B⟩⟨U+D800⟩⟨U+E0041⟩"
    )
    kept = "tab\t line\n 👩\u200d👧 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 日本語"
    assert visible(kept) == kept


def test_json_cannot_end_its_block():
    value = ["</script><!--]]>&\u2028\u2029", {"é": None}]
    text = as_json(value)
    assert not re.search("[<>&\u2028\u2029]", text) and "é" in text
    assert json.loads(text) == value


@pytest.mark.parametrize(
    "share, text",
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.5, "50 %"),
        (0.004, "0.4 %"),
        (0.0001, "< 0.1 %"),
        (0.998, "99.8 %"),
        (0.99999, "> 99.9 %"),
        (0.0449, "4 %"),
    ],
)
def test_a_share_is_0_or_100_only_when_it_is(share, text):
    assert percent(share) == text


def drawn(page):
    return base64.b64decode(picture(page)["src"].partition("base64,")[2]).decode()


def test_a_limit_that_is_near_is_drawn_to_scale(full):
    near = Page(render_page(replace(FULL, lengths=replace(LENGTHS, max_seq_len=1200))))
    assert "max_seq_len 1,200" in drawn(near) and "→" not in drawn(near)
    assert "beyond this axis" not in near.text("lengths")
    assert "max_seq_len 2,048 →" in drawn(full)
    lines = [svg.count("stroke: #a5231b") for svg in (drawn(near), drawn(full))]
    assert lines == [1, 0]


def test_a_row_among_thousands_is_seen_too():
    assert bar_heights([0, 1, 5000]) == [0.0, 90.0, 5000]
    assert bar_heights([0]) == [0.0]


def test_lengths_of_a_single_empty_row_do_not_divide_by_zero():
    none = replace(
        LENGTHS,
        edges=(0.0, 1.0),
        all_counts=(0,),
        trained_counts=(0,),
        all_quantiles=(0, 0, 0, 0),
        trained_quantiles=(0, 0, 0, 0),
        num_tokens=0,
        num_trained=0,
    )
    assert "0 % of the tokens" in Page(render_page(replace(FULL, lengths=none))).text("lengths")


def test_the_same_report_gives_the_same_bytes(tmp_path):
    for name in ("a.html", "b.html"):
        write_page(FULL, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_a_page_needs_a_place(tmp_path):
    with pytest.raises(ConfigError, match="is a folder; give the name of a file"):
        write_page(FULL, tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        write_page(FULL, tmp_path / "none" / "page.html")
