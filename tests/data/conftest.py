"""Chat templates as well-known models have them, on a tokenizer that merges as theirs do."""

import json
from importlib import resources
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import tiny
from sft.data.rows.conversation import Conversation, Message, Origin
from sft.data.template.chat_template import ChatTemplate

FOLDERS = (Path(__file__).parent / "templates", resources.files("sft.data.template"))
SPECIALS = [
    *tiny.SPECIALS,
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"),
]
# Llama 3's and Qwen's way to split text into words, and tokens that all large vocabularies have:
# an answer that begins with a line break or a bracket can change how its prompt is split.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES = [["Ċ", "Ċ"], ["Ġ", "Ġ"], ["]", "("]]


def template_text(name):
    files = [folder / f"{name}.jinja" for folder in FOLDERS]
    return next(file for file in files if file.is_file()).read_text(encoding="utf-8").rstrip("\n")


def tokenizer_json():
    spec = json.loads(tiny.tokenizer(None, SPECIALS).backend_tokenizer.to_str())
    model = spec["model"]
    model["merges"] += MERGES
    model["vocab"] |= {a + b: len(model["vocab"]) + i for i, (a, b) in enumerate(MERGES)}
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    spec["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [split, spec["pre_tokenizer"] | {"use_regex": False}],
    }
    return spec


@pytest.fixture(scope="session")
def chat_tokenizer():
    """A tokenizer with a template, by name or text; `edit` may change its tokenizer.json."""

    def make(template, edit=lambda spec: None):
        spec = tokenizer_json()
        edit(spec)
        made = type(tiny.tokenizer())(
            tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
        )
        made.chat_template = template if "{" in template else template_text(template)
        return made

    return make


@pytest.fixture(scope="session")
def chat_template(chat_tokenizer):
    """The `ChatTemplate` of a named template."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = ChatTemplate(chat_tokenizer(name))
        return made[name]

    return make


@pytest.fixture(scope="session")
def talk():
    """A conversation of `(role, content)` pairs, an assistant's weight as a third, or messages."""

    def make(*messages, line=1, tools=(), source=0):
        made = [m if isinstance(m, Message) else message(*m) for m in messages]
        return Conversation(tuple(made), Origin("rows.jsonl", line), tools, source)

    return make


def message(role, content, weight=1.0):
    return Message(role, content, weight=weight if role == "assistant" else 0.0)
