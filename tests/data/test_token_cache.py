"""Tokenised rows from the cache are the rows; what changed is named; damage is repaired."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

import tiny
from sft.config import DataConfig
from sft.data.account import account
from sft.data.dataset import load_data
from sft.data.parallel import TokenOptions
from sft.data.rows.problems import BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.token_cache import TokenCache, tokenizer_fingerprint
from sft.data.token_store import NotStorable, StoreWriter
from sft.data.tokenize import Example, fingerprint, tokenize

OPTIONS = TokenOptions(max_seq_len=40, overflow="drop", prompt_weight=0.0)
FILES = {"rows.jsonl": "1" * 64}
ARRAYS = ("input_ids", "labels", "weights")


@pytest.fixture(scope="module")
def template():
    return ChatTemplate(tiny.tokenizer())


@pytest.fixture(scope="module")
def rows(talk):
    texts = ["one", "\ue0f0", "two " * 40, "<|im_end|>", "three"]
    return [talk(("user", t), ("assistant", "Yes"), line=i) for i, t in enumerate(texts, 1)]


@pytest.fixture
def use(tmp_path, template, rows):
    """Asks the cache for rows: examples, fates, bad rows, what was said, and how often made."""

    def ask(rows=rows, template=template, options=OPTIONS, files=FILES, policy="skip", **changes):
        settings = {"folder": tmp_path / "tokens", "tokenizer": "t" * 64, **changes}
        cache, bad, made = TokenCache(**settings), BadRows(policy), []

        def make():
            made.append(1)
            return tokenize(rows, template, bad, max_seq_len=options.max_seq_len)

        found = cache.tokenized(rows, template, bad, options, files, make)
        return found, bad, cache.remarks, len(made)

    return ask


def test_the_second_time_nothing_is_made_and_all_is_the_same(use, template, rows):
    (first, bad, said, made), (again, bad_again, said_again, made_again) = use(), use()
    plain = tokenize(rows, template, BadRows("skip"), max_seq_len=40)
    assert (made, made_again) == (1, 0)
    assert said == ["tokenised rows: cache miss, because there is no entry for these files yet"]
    assert len(said_again) == 1 and "cache hit, because data (1 file), template" in said_again[0]
    assert bad.rows == bad_again.rows and bad.table() == bad_again.table() and bad.count == 1
    for found in (first, again):
        assert found.fates == plain.fates != []
        assert (found.num_text_specials, found.num_split) == (plain.num_text_specials, 0)
        assert fingerprint(found.examples) == fingerprint(plain.examples)
        for stored, example in zip(found.examples, plain.examples, strict=True):
            for name in ("id", "origin", "source", "num_bytes", "num_tokens", "num_trained"):
                assert getattr(stored, name) == getattr(example, name)
            for name in ARRAYS:
                assert getattr(stored, name).dtype == getattr(example, name).dtype
                assert np.array_equal(getattr(stored, name), getattr(example, name))


def test_a_stored_example_is_a_view_that_can_be_changed_as_a_copy(use):
    use()
    stored = use()[0].examples[0]
    assert isinstance(stored, Example) and not stored.weights.flags.writeable
    changed = replace(stored, source=7)
    assert type(changed) is Example
    assert (changed.source, changed.id) == (7, stored.id)
    assert np.array_equal(changed.labels, stored.labels)


def test_what_changed_is_named(use, rows, template):
    use()
    other = ChatTemplate(tiny.tokenizer(tiny.CHATML.replace("assistant", "bot")))
    changed = {
        "the template": {"template": other},
        "the tokenizer": {"tokenizer": "u" * 64},
        "the settings": {"options": replace(OPTIONS, max_seq_len=30)},
        "the choice of rows": {"rows": rows[1:]},
        "the data (rows.jsonl)": {"rows": rows[2:], "files": {"rows.jsonl": "2" * 64}},
        "the template and the tokenizer": {"template": other, "tokenizer": "u" * 64},
    }
    for what, values in changed.items():
        _, _, said, made = use(**values)
        if what == "the template and the tokenizer":  # both were seen, but not together
            what = said[0].partition("because ")[2].removesuffix(" changed")
            assert what in ("the template", "the tokenizer")
        assert said == [f"tokenised rows: cache miss, because {what} changed"]
        assert made == 1
    assert use()[3] == 0  # the first is still there


def test_every_part_of_a_row_is_in_the_key(use, talk):
    base = [talk(("user", "one"), ("assistant", "Yes"), line=1)]
    use(rows=base)
    others = [
        replace(base[0], source=1),
        replace(base[0], tools=({"type": "function"},)),
        replace(base[0], origin=replace(base[0].origin, line=2)),
        replace(
            base[0], messages=(*base[0].messages[:-1], replace(base[0].messages[-1], weight=0.5))
        ),
    ]
    assert [use(rows=[other])[3] for other in others] == [1] * len(others)
    assert use(rows=base)[3] == 0


@pytest.mark.parametrize("name", ["ids.bin", "weights.bin", "index.bin", "meta.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_entry_is_made_again(use, tmp_path, name, damage):
    wanted = fingerprint(use()[0].examples)
    path = next((tmp_path / "tokens").glob(f"*/{name}"))
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flipped" else data[1 : len(data) // 2])
    found, _, said, made = use()
    assert made == 1 and fingerprint(found.examples) == wanted
    assert len(said) == 1 and said[0].startswith("token cache: a damaged entry is made again")
    assert use()[3] == 0


def test_the_entries_unused_longest_go_first(use, tmp_path, rows):
    for number in (1, 2, 3):
        use(rows=rows[:number])
    entries = {}
    for path in (tmp_path / "tokens").iterdir():
        entries[json.loads((path / "meta.json").read_text())["num_examples"]] = path
        os.utime(path / "meta.json", (1, 1))
    use(rows=rows[:1])  # used now
    limit = 3 * max(sum(f.stat().st_size for f in e.iterdir()) for e in entries.values())
    _, _, said, _ = use(rows=rows[3:], limit_bytes=limit // 2 * 1)
    assert "were removed" in said[-1] and "to stay below" in said[-1]
    assert use(rows=rows[3:])[3] == 0


def test_what_cannot_be_kept_is_used_all_the_same(use, tmp_path, rows):
    (tmp_path / "file").write_text("")
    found, _, said, made = use(folder=tmp_path / "file" / "tokens")
    assert made == 1 and len(found.examples) == 3
    assert said[-1].startswith("token cache: not kept (")


def test_rows_that_stop_the_run_are_not_kept(use, tmp_path):
    _, bad, _, _ = use(policy="error")
    assert bad.count == 1 and not list((tmp_path / "tokens").glob("*"))


def test_labels_of_ones_own_are_refused(tmp_path, template, rows):
    example = tokenize(rows[:1], template, BadRows("skip"), max_seq_len=40).examples[0]
    labels = example.labels.copy()
    labels[-2] += 1
    with pytest.raises(NotStorable):
        StoreWriter(tmp_path / "store").add([replace(example, labels=labels)])


def test_a_run_has_the_same_account_with_and_without(tmp_path, template):
    lines = [json.dumps({"prompt": f"row {i}", "completion": "Yes"}) for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    cached = {
        "train": str(tmp_path / "rows.jsonl"),
        "max_seq_len": 60,
        "cache": str(tmp_path / "tokens"),
    }
    config = DataConfig.model_validate(cached)
    tokenizer = tokenizer_fingerprint(tiny.tokenizer())
    found = [
        load_data(config, template, seed=0, cache=cache)
        for cache in (None, *(TokenCache(tmp_path / "tokens", tokenizer) for _ in range(2)))
    ]
    assert [len(data.remarks) for data in found] == [0, 2, 2]  # one for each side
    assert account(found[0]) == account(found[1]) == account(found[2])
    assert len({(fingerprint(data.train), fingerprint(data.val)) for data in found}) == 1


def test_few_rows_are_not_kept_unless_a_folder_is_named(tmp_path, template):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "one", "completion": "Yes"}))
    config = DataConfig.model_validate({"train": str(tmp_path / "rows.jsonl"), "max_seq_len": 60})
    cache = TokenCache.of("auto", tmp_path / "tokens", tiny.tokenizer())
    assert load_data(config, template, seed=0, cache=cache).remarks == []
    assert not (tmp_path / "tokens").exists()
    assert TokenCache.of("off", tmp_path, tiny.tokenizer()) is None
    assert TokenCache.of("~/x", tmp_path, tiny.tokenizer()).folder.is_absolute()


def test_the_tokenizer_is_known_by_its_content():
    tokenizer = tiny.tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    assert tokenizer_fingerprint(tiny.tokenizer()) == before
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|more|>"]})
    assert tokenizer_fingerprint(tokenizer) != before
