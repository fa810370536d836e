"""Random conversations: the mask is exactly the answers, or the row is refused for a reason."""

import itertools
import random

import pytest

from sft.data.template.chat_template import ChatTemplate
from sft.data.template.encoding import TextEncoder
from sft.errors import TemplateError

NAMES = ("chatml", "plain", "llama2", "llama3", "mistral", "gemma", "qwen3", "generation")
NO_SYSTEM = ("mistral", "gemma")
WORDS = """fox Paris ö e\u0301 ß 中文 日本 שלום العربية 🎉 👩\u200d👧 🇫🇷 👍🏽 \u200b \\ " '
{ } {{x}} {% raw %} {# < > ( : [INST] [/INST] ### Response: <think> </think> assistant"""
SPACES = [
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    " ",
    "  ",
    "\u00a0",
    "\u2028",
    "\x85",
    "### Response:\n",
    " the",
]
PLAIN = [*WORDS.split(), *SPACES]
SPECIAL = ["<|im_end|>", "<|im_start|>assistant\n", "</s>", "<s>", "<|eot_id|>", "<end_of_turn>"]


def text(rng, pieces):
    while True:
        made = "".join(rng.choices(pieces, k=rng.randint(1, 6)))
        if made.strip():
            return made


def conversation(rng, talk, system):
    pieces = PLAIN + (SPECIAL if rng.random() < 0.5 else [])
    rows = [("system", text(rng, pieces))] if system and rng.random() < 0.3 else []
    num_turns = rng.randint(1, 3)
    for turn in range(num_turns):
        weight = 1.0 if turn == num_turns - 1 else rng.choice([0.0, 0.5, 1.0])
        rows += [("user", text(rng, pieces)), ("assistant", text(rng, pieces), weight)]
    return talk(*rows)


def answer(name, content):
    """What the model is to write, stop token included."""
    trimmed = content.strip()
    thought, end, _ = content.partition("</think>")
    thought = thought.split("<think>")[-1].strip("\n") if end else ""
    said = content.split("</think>")[-1].lstrip("\n")
    return {
        "chatml": content + "<|im_end|>",
        "generation": content + "<|im_end|>",
        "mistral": content + "</s>",
        "qwen3": f"<think>\n{thought}\n</think>\n\n{said}<|im_end|>",
        "plain": trimmed + "</s>",
        "llama2": f" {trimmed} </s>",
        "llama3": trimmed + "<|eot_id|>",
        "gemma": trimmed + "<end_of_turn>",
    }[name]


def runs(part):
    """`(start, stop, weight)` of neighbouring trained tokens."""
    found = []
    for weight, run in itertools.groupby(range(len(part.ids)), key=lambda t: part.weights[t]):
        tokens = list(run)
        if weight:
            found.append((tokens[0], tokens[-1] + 1, weight))
    return found


def check(template, name, row, decodes=True):
    """The number of examples, or 0 when the row was refused for a reason that is true."""
    tokenizer, special = template._tokenizer, TextEncoder(template._tokenizer).special_ids
    messages = row.as_dicts()
    turns = [i for i, message in enumerate(row.messages) if message.weight]
    try:
        parts = template.encode(row)
    except TemplateError as error:
        assert "the answer changes how its prompt is split into tokens" in str(error)
        first = {answer(name, row.messages[i].content)[0] for i in turns}
        assert first & ({"("} if name == "mistral" else {"\n", "\r"})
        assert name in ("mistral", "chatml", "generation")
        return 0
    found = [(part, *run) for part in parts for run in runs(part)]
    assert [weight for *_, weight in found] == [row.messages[i].weight for i in turns]
    for (part, start, stop, _), i in zip(found, turns, strict=True):
        expected = answer(name, row.messages[i].content)
        assert part.text[part.offsets[start][0] : part.offsets[stop - 1][1]] == expected
        assert not decodes or tokenizer.decode(part.ids[start:stop]) == expected
        assert part.ids[stop - 1] == template.facts.stop_id
        assert not special.keys() & set(part.ids[start : stop - 1])
        assert part.ids[:start] == template.prompt_ids(messages[:i])
        if not TextEncoder(tokenizer).has_special_text(messages[:i]):
            assert part.ids[:start] == tokenizer.apply_chat_template(
                messages[:i], add_generation_prompt=True, return_dict=False
            )
    for part, upto in zip(parts, turns if len(parts) > 1 else [len(messages)], strict=True):
        served = tokenizer.apply_chat_template(messages[: upto + 1], tokenize=False)
        assert part.text == served
        assert not decodes or tokenizer.decode(part.ids) == served
    return len(parts)


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_is_exactly_the_answers(name, chat_template, talk):
    rng = random.Random(name)
    template = chat_template(name)
    results = []
    for _ in range(300):
        row = conversation(rng, talk, system=name not in NO_SYSTEM)
        results.append(check(template, name, row))
    assert results.count(0) < 40
    assert (max(results) > 1) == (name == "qwen3")


def sentencepiece(spec):
    """Llama 2's tokenizer: a space before every text, and bytes where there is no token."""
    spec["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    model = spec["model"]
    known = [token["content"] for token in spec["added_tokens"]]
    known += [f"<0x{byte:02X}>" for byte in range(256)]
    known += [chr(i) for i in range(33, 127)] + ["▁", "▁▁", "ö", "▁t", "中", "](", "▁<"]
    model["vocab"] = {token: i for i, token in enumerate(dict.fromkeys(known))}
    model["merges"] = [["▁", "▁"], ["▁", "t"], ["]", "("], ["▁", "<"]]
    model["byte_fallback"] = True
    spec["pre_tokenizer"] = spec["decoder"] = None


@pytest.mark.parametrize("name", NAMES)
def test_other_kinds_of_tokenizers(name, chat_tokenizer, talk):
    rng = random.Random(name)
    template = ChatTemplate(chat_tokenizer(name, sentencepiece))
    results = [
        check(template, name, conversation(rng, talk, name not in NO_SYSTEM), decodes=False)
        for _ in range(40)
    ]
    assert results.count(0) < 10
