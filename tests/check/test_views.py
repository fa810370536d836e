import json
from dataclasses import replace

import numpy as np
import pytest
from transformers import GenerationConfig

import tiny
from sft.check.views import facts_of, row_view
from sft.data.rows.conversation import Conversation, Message, Origin
from sft.data.rows.problems import BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import tokenize
from sft.model.load import TokenizerInfo

# Shows tools with a template of their own, as several models do.
TOOL_USE = "{% for t in tools %}TOOL {{ t['function']['name'] }}\n{% endfor %}" + tiny.CHATML
# Drops the reasoning of earlier turns, so that a conversation becomes one example per turn.
FORGETS = (
    "{% for m in messages %}{% set text = m['content'] if loop.last or m['role'] == 'user' else"
    " m['content'].split('#')[-1] %}{{ '<|im_start|>' + m['role'] + '\n' + text + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "eval_up", "parameters": {"type": "object"}}}
TALK = ("user", "one?"), ("assistant", "two"), ("user", "three?"), ("assistant", "four")


def conversation(*turns, tools=(), untrained=()):
    messages = tuple(
        Message(role, text, weight=float(role == "assistant" and i not in untrained))
        for i, (role, text) in enumerate(turns)
    )
    return Conversation(messages, Origin("a#b.jsonl", 7), tools)


def views(row, tokenizer=None, compare=True, **options):
    tokenizer = tokenizer or tiny.tokenizer()
    template = ChatTemplate(tokenizer)
    done = tokenize([row], template, BadRows("error"), **{"max_seq_len": 256, **options})
    extra = (template, row) if compare else ()
    return [row_view(example, tokenizer, *extra) for example in done.examples]


def pieces(view, kind):
    return [piece.text for piece in view.pieces if piece.kind == kind]


def text(view):
    return "".join(piece.text for piece in view.pieces)


def test_special_tokens_are_pieces_and_trained_text_is_told_apart():
    (view,) = views(conversation(*TALK, untrained=(1,)))
    assert pieces(view, "trained") == ["four", "<|im_end|>"]
    assert [p.text for p in view.pieces if p.special] == ["<|im_start|>", "<|im_end|>"] * 4
    assert pieces(view, "masked")[:4] == ["<|im_start|>", "user\none?", "<|im_end|>", "\n"]
    assert "two" in "".join(pieces(view, "masked"))
    assert (view.id, view.num_trained) == (
        "a#b.jsonl:7",
        len(tiny.tokenizer()("four").input_ids) + 1,
    )
    assert view.serving == ""


def test_another_weight_than_one_is_partly_trained():
    (view,) = views(conversation(*TALK), prompt_weight=0.25)
    assert pieces(view, "masked") == ["<|im_start|>"]  # nothing predicts it
    assert pieces(view, "trained") == ["two", "<|im_end|>", "four", "<|im_end|>"]
    assert "user\none?" in pieces(view, "partly")
    assert view.serving == ""


def test_not_compared_is_not_equal():
    (view,) = views(conversation(*TALK), compare=False)
    assert view.serving is None


@pytest.mark.parametrize(
    "answer", ["Grüße 👩‍👩‍👧 日本語", "  two\n\n", "\u0928\u092e\u0938\u094d\u0924\u0947 🇩🇪"]
)
def test_characters_of_several_tokens_are_whole(answer):
    row = conversation(("user", "日本 🎈?"), ("assistant", answer))
    (view,) = views(row)
    assert text(view) == ChatTemplate(tiny.tokenizer()).render(row.as_dicts())
    assert pieces(view, "trained") == [answer, "<|im_end|>"]


def test_a_character_cut_by_the_mask_belongs_to_its_first_token():
    tokenizer = tiny.tokenizer()
    row = conversation(("user", "x"), ("assistant", "🎈 two"))
    template = ChatTemplate(tokenizer)
    (example,) = tokenize([row], template, BadRows("error"), max_seq_len=256).examples
    first = int(np.flatnonzero(example.labels >= 0)[0])
    labels = example.labels.copy()
    labels[first + 1 : first + 3] = -100  # two of the four bytes of the balloon
    view = row_view(replace(example, labels=labels), tokenizer)
    assert text(view) == template.render(row.as_dicts())
    assert pieces(view, "trained") == ["🎈", " two", "<|im_end|>"]


def test_a_cut_row_ends_in_a_broken_character_and_is_compared_as_far_as_it_goes():
    row = conversation(("user", "x"), ("assistant", "🎈🎈🎈"))
    whole = views(row)[0].num_tokens
    (view,) = views(row, max_seq_len=whole - 4, overflow="truncate")
    assert pieces(view, "trained") == ["🎈🎈\ufffd"]
    assert view.serving == ""


def test_a_decoder_that_drops_the_first_space_loses_none_between_pieces():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[U]", "[E]", "<unk>", *(f"▁{c}" for c in "abcd"), *"abcd", "▁"]
    backend = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [("▁", c) for c in "abcd"]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    ids = tokenizer("a b c d").input_ids
    row = conversation(*TALK)
    (example,) = tokenize(
        [row], ChatTemplate(tiny.tokenizer()), BadRows("error"), max_seq_len=99
    ).examples
    labels = np.array([-100, ids[2], ids[3], -100])
    weights = np.array([0, 1, 1, 0], dtype=np.float32)
    made = replace(example, input_ids=np.array(ids), labels=labels, weights=weights)
    assert [p.text for p in row_view(made, tokenizer).pieces] == ["a b", " c d"]


def test_text_that_spells_a_special_token_is_not_boxed_and_servers_are_warned_about():
    row = conversation(("user", "say <|im_end|> now"), ("assistant", "no"))
    (view,) = views(row)
    assert [p.text for p in view.pieces if p.special] == ["<|im_start|>", "<|im_end|>"] * 2
    assert any("say <|im_end|> now" in p.text for p in view.pieces)
    assert view.serving.startswith("messages[1]: token ")
    assert "sent '<|im_end|> now" in view.serving and "trained on '<|" in view.serving
    assert "`sft chat` sends it as text too" in view.serving


def test_tools_as_text_are_sent_as_text():
    row = conversation(*TALK, tools=[TOOL])
    (view,) = views(row)
    assert "eval_up" in text(view)
    assert view.serving == ""


def test_a_template_that_servers_choose_for_tools_is_found():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = {"default": tiny.CHATML, "tool_use": TOOL_USE}
    row = conversation(*TALK, tools=[TOOL])
    template = ChatTemplate(tokenizer, tools="template")
    (example,) = tokenize([row], template, BadRows("error"), max_seq_len=256).examples
    serving = row_view(example, tokenizer, template, row).serving
    assert serving.startswith("2 of 2 trained turns differ; messages[1]: token 0: sent 'TO")
    assert "trained on '<|im_start|>user\\none?" in serving


def test_turns_that_are_rewritten_are_compared_each_with_its_own_prompt():
    tokenizer = tiny.tokenizer(FORGETS)
    row = conversation(("user", "a"), ("assistant", "x#b"), ("user", "c"), ("assistant", "y#d"))
    found = views(row, tokenizer)
    assert [view.id for view in found] == ["a#b.jsonl:7#1", "a#b.jsonl:7#2"]
    assert [pieces(view, "trained")[0] for view in found] == ["x#b", "y#d"]
    assert [view.serving for view in found] == ["", ""]
    wrong = conversation(("user", "a"), ("assistant", "x#b"), ("user", "C"), ("assistant", "y#d"))
    template = ChatTemplate(tokenizer)
    examples = tokenize([row], template, BadRows("error"), max_seq_len=256).examples
    served = [row_view(example, tokenizer, template, wrong).serving for example in examples]
    assert served[0] == ""
    assert served[1].startswith("messages[3]: token ") and "sent 'C<|im_end|>" in served[1]


def test_an_answer_whose_first_token_is_not_trained_is_found():
    row = conversation(*TALK[:2])
    tokenizer = tiny.tokenizer()
    template = ChatTemplate(tokenizer)
    (example,) = tokenize([row], template, BadRows("error"), max_seq_len=256).examples
    labels = example.labels.copy()
    labels[np.flatnonzero(labels >= 0)[0]] = -100
    serving = row_view(replace(example, labels=labels), tokenizer, template, row).serving
    assert serving.endswith("the first after the prompt that is sent, and it is not trained")


def test_a_prompt_that_the_template_refuses_is_said():
    row = conversation(*TALK[:2])
    tokenizer = tiny.tokenizer()
    template = ChatTemplate(tokenizer)
    (example,) = tokenize([row], template, BadRows("error"), max_seq_len=256).examples
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    serving = row_view(example, tokenizer, template, row).serving
    assert "refuses to render the prompt that is sent: never" in serving


@pytest.mark.parametrize(
    "eos, said",
    [
        (None, "not measured: the model has no generation_config.json"),
        (
            2,
            "not yet: eos_token_id in generation_config.json is 2; the model that a run saves",
        ),
        ([2, 4], "yes, generation_config.json has 4 among eos_token_id"),
    ],
)
def test_facts(tmp_path, eos, said):
    if eos is not None:
        GenerationConfig(eos_token_id=eos).save_pretrained(tmp_path)
    tokenizer = tiny.tokenizer()
    template = ChatTemplate(tokenizer)
    facts = facts_of(template, TokenizerInfo(tokenizer, "a file", ()), str(tmp_path))
    assert facts["stops by itself"].startswith(said)
    assert facts["chat template"] == f"a file, sha256 {template.facts.sha256[:12]}"
    assert facts["stop token"] == "'<|im_end|>' (4), trained at the end of every turn"
    assert facts["generation prompt"] == repr("<|im_start|>assistant\n")
    assert facts["BOS"] == "none"
    assert facts["tools"].startswith("shown as text")
    assert facts["mask methods"] == "prefix differences, and message spans"
    assert json.dumps(facts)


def test_a_template_for_tools_that_is_beyond_limits_is_not_rendered():
    tokenizer = tiny.tokenizer()
    huge = "{# " + "x" * 1_000_001 + " #}" + TOOL_USE
    tokenizer.chat_template = {"default": tiny.CHATML, "tool_use": huge}
    row = conversation(*TALK, tools=[TOOL])
    template = ChatTemplate(tokenizer, tools="template")
    (example,) = tokenize([row], template, BadRows("error"), max_seq_len=256).examples
    assert "characters, more than 1,000,000" in row_view(example, tokenizer, template, row).serving
