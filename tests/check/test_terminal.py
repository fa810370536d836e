import io
import json
import os
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from sft import load_config
from sft.check.terminal import MASKED, PARTLY, TRAINED, token_text
from sft.check.views import row_view
from sft.cli import main
from sft.terminal.console import Console
from sft.training.tokens import prepare_data
from trained import NUM_ROWS, Outcome, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "two", "train": False},
        {"role": "user", "content": "three\x1b[2J?"},
        {"role": "assistant", "content": "four"},
        {"role": "user", "content": "[bold]five?"},
        {"role": "assistant", "content": "fox <|im_end|> dog"},
    ]
    (folder / "talk.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    return folder


@pytest.fixture(autouse=True)
def here(world, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def check(*args):
    return Outcome("check", *args, "--model", "llama")


def spans(text):
    """The pieces of a rich text after its heading, of one colour together."""
    found = [(text.plain[s.start : s.end], s.style.split(" underline")[0]) for s in text.spans]
    return [
        ("".join(p for p, _ in same), style) for style, same in groupby(found[1:], itemgetter(1))
    ]


def examples(**data):
    values = {"data.train": ["talk.jsonl"], "data.val_fraction": 0, "model.name": "llama"}
    config = load_config({}, {**values, **{f"data.{key}": value for key, value in data.items()}})
    tokens = prepare_data(config, Console(io.StringIO()))
    return [row_view(each, tokens.tokenizer.tokenizer) for each in tokens.data.train]


def test_trained_tokens_are_green_and_only_those():
    (view,) = examples()
    text = token_text(view)
    found = spans(text)
    assert [piece for piece, style in found if style == TRAINED] == [
        "four<|im_end|>",
        "fox <|im_end|> dog<|im_end|>",
    ]
    masked = "".join(piece for piece, style in found if style == MASKED)
    assert {style for _, style in found} == {TRAINED, MASKED}
    assert masked.startswith("<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\none?")
    assert "two<|im_end|>" in masked and "[bold]five?" in masked
    assert "\x1b" not in text.plain and "three�[2J?" in text.plain
    heading = text.plain.splitlines()[1]
    assert heading == f"talk.jsonl:1  {view.num_tokens} tokens, {view.num_trained} trained"


def test_tokens_of_a_weight_below_one_are_yellow():
    (view,) = examples(prompt_weight=0.25)
    found = spans(token_text(view))
    assert {style for _, style in found} == {TRAINED, PARTLY, MASKED}
    assert [p for p, style in found if style == MASKED] == ["<|im_start|>"]  # nothing predicts it
    assert next(p for p, style in found if style == TRAINED) == "four<|im_end|>"


def test_a_terminal_gets_the_colours():
    (view,) = examples()
    out = RichConsole(record=True, force_terminal=True, color_system="standard", file=io.StringIO())
    out.print(token_text(view), soft_wrap=True)
    shown = out.export_text(styles=True)
    assert "\x1b[1;32mfour\x1b[0m\x1b[1;4;32m<|im_end|>\x1b[0m" in shown
    assert "\x1b[4;90m<|im_start|>\x1b[0m\x1b[90msystem" in shown


def test_check_shows_account_lengths_plan_and_rows(world):
    before = sorted(os.listdir(world))
    done = check("rows.jsonl", "--rows", "2")
    assert done.code == 0
    assert f"{NUM_ROWS} rows read" in done.out
    for part in ("48", "used", "12", "val", "Tokens per example", "median", "distribution"):
        assert part in done.out
    for part in ("the model's tokenizer, sha256 ", "'<|im_end|>' (4), trained at the end of every"):
        assert part in done.out
    assert "12 of 8 examples, 2.00 times each row" in done.out
    assert "mask methods       prefix differences, and message spans" in done.out
    assert "validation         12 rows" in done.out
    assert done.out.count(" trained\n<|im_start|>user\n") == 2
    assert "rows.jsonl:1  " in done.out
    assert "\x1b" not in done.out
    assert sorted(os.listdir(world)) == before  # it writes nothing


def test_force_color_colours_the_rows(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    done = check("rows.jsonl", "--rows", "1")
    line = next(text for text in done.out.splitlines() if "It is" in text)
    assert line.startswith("\x1b[1;32mIt is ") and line.endswith("\x1b[1;4;32m<|im_end|>\x1b[0m")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_bars_and_boxes_gets_something_else(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    main(["check", "rows.jsonl", "--model", "llama"])
    sys.stdout.flush()
    assert b"60 rows read" in written.getvalue() and b"It is " in written.getvalue()


def test_rows_can_be_none_and_one_can_be_named():
    assert "Tokens: " not in check("rows.jsonl", "--rows", "0").out
    line = Path("rows.jsonl").read_text().splitlines()[16]
    row = json.loads(line)["messages"][0]["content"]
    for name in ("17", "rows.jsonl:17"):
        done = check("rows.jsonl", "--row", name)
        assert "rows.jsonl:17  " in done.out
        assert done.out.count("<|im_start|>user\n") == 1 and row in done.out


def test_a_row_that_is_not_there():
    done = check("rows.jsonl", "--row", "rows.jsonl:61")
    assert done.code == 2
    assert done.err.endswith(
        "error: --row rows.jsonl:61: no such example. Did you mean 'rows.jsonl:6'?\n"
    )


def test_reasons_are_grouped_with_their_places(world):
    folder = world / "odd["
    folder.mkdir(exist_ok=True)
    path = folder / "bold]x.jsonl"  # `odd[/bold]x.jsonl` would close a tag of rich's markup
    path.write_text((world / "rows.jsonl").read_text() + '{"messages": []}\n' * 4)
    done = check(
        "odd[/bold]x.jsonl", "--set", "data.on_bad_row=skip", "--set", "data.max_seq_len=26"
    )
    assert done.code == 0
    text = " ".join(done.out.replace("│", " ").split())
    assert "4 x messages: ends before its first message" in text
    assert "x # tokens, max_seq_len is 26 (" in text
    assert "odd[/bold]x.jsonl:61, " in text.replace("x.jsonl: 61", "x.jsonl:61")
    assert "note: 4 unusable rows were skipped" in text


def test_a_config_file_works_as_for_train(world):
    (world / "run.yaml").write_text("model: {name: llama}\ndata: {train: rows.jsonl}\n")
    first = Outcome("check", "run.yaml", "--max-steps", "5")
    assert first.code == 0 and "5 of 8 examples, 0.83 times each row" in first.out


def test_bad_data_is_told_as_for_train():
    done = check("row.jsonl")
    assert (done.code, done.error()) == (
        2,
        "row.jsonl: no such file. Did you mean 'rows.jsonl'?\n",
    )
