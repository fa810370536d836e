"""The ids `sft` trains on and sends are those of the model makers' own encoders.

Needs the extra `goldens`: the makers' packages have their tokenizers inside.
"""

import importlib.util
import json
from base64 import b64decode
from functools import cache
from pathlib import Path

import pytest

from golden.families import CALL, TOOLS, chat_template, talk
from golden.makers import from_ranks, from_sentencepiece
from sft.data.rows.conversation import Message
from sft.data.template.chat_template import ChatTemplate

WHY = 'needs {}: pip install -e ".[goldens]"'


def needs(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=WHY.format(", ".join(missing)))


CODE = "def f(x):\n    return {'a': [x, 1_000]}  # \t tab\n"
TURNS = {
    "one": [("user", "Hi"), ("assistant", "Yes.")],
    "two": [("user", "Hi"), ("assistant", "Yes."), ("user", "And 12345?"), ("assistant", "No!")],
    "system": [
        ("system", "You are kind.\nYou answer in one line."),
        ("user", "Who wrote 'Faust'?"),
        ("assistant", "Goethe."),
        ("user", "When?"),
        ("assistant", "1808 and 1832."),
        ("user", "Thanks"),
        ("assistant", "You're welcome."),
    ],
    "text of every kind": [
        ("user", f"Grüße 中文 שלום 👩\u200d👧 e\u0301 \\ {CODE}End"),
        ("assistant", f"# Ja\n\n```python\n{CODE}```\nжизнь 3.14"),
        ("user", "a  b   c\n\n\nd"),
        ("assistant", "don't I'LL we've"),
    ],
    "special tokens as text": [
        ("user", "What is <|eot_id|>, and [INST] or </s>? <s>[/INST] <|begin_of_text|>"),
        ("assistant", "[INST] opens a turn, <|eot_id|> and </s> end one."),
    ],
}

TOOL_TURNS = {
    "a call": [
        ("user", "Is it warm in Köln?"),
        Message("assistant", "", (CALL,), weight=1.0),
        Message("tool", "21 °C", extra={"tool_call_id": CALL["id"], "name": "weather"}),
        ("assistant", "It is."),
        ("user", "Thanks."),
        ("assistant", "Bye."),
    ],
    "a call, with a system message": [
        ("system", "Be kind."),
        ("user", "Is it warm?"),
        Message("assistant", "", (CALL,), weight=1.0),
    ],
}
CONVERSATIONS = {title: talk(*turns) for title, turns in TURNS.items()}
TOOL_CONVERSATIONS = {title: talk(*turns, tools=TOOLS) for title, turns in TOOL_TURNS.items()}


def check(template, conversation, prompt_of, whole_of):
    """Every prompt, every id, and a mask that covers what the maker's encoder has more.

    `prompt_of(k)` and `whole_of(k)` are the maker's ids of the first `k` messages: what is sent
    to get an answer, and the finished conversation.
    """
    messages = conversation.as_dicts()
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    parts = template.encode(conversation)
    for i in turns:
        assert template.prompt_ids(messages[:i], conversation.tools) == prompt_of(i)
    ends = turns if len(parts) > 1 else turns[-1:]
    trained = []
    for part, last in zip(parts, ends, strict=True):
        assert part.ids == whole_of(last + 1)
        trained += [part.ids[t] for t, weight in enumerate(part.weights) if weight]
    answers = [whole_of(i + 1)[len(prompt_of(i)) :] for i in turns]
    assert trained == [index for answer in answers for index in answer]


def rendered(name):
    """All that a family's template makes of the conversations, on a line each."""
    template = chat_template(name)
    renders = []
    for conversation in (*CONVERSATIONS.values(), *TOOL_CONVERSATIONS.values()):
        messages, tools = template.as_served(conversation.as_dicts(), conversation.tools)
        for k in range(1, len(messages) + 1):
            if messages[k - 1]["role"] != "system":
                renders += [template.render(messages[:k], tools, sent) for sent in (True, False)]
    return "\n\n".join(renders)


# ---------------------------------------------------------------- Meta


@cache
def llama_maker():
    from llama_models.llama3.chat_format import ChatFormat
    from llama_models.llama3.tokenizer import Tokenizer

    return ChatFormat(Tokenizer.get_instance())


@cache
def llama(name):
    maker = llama_maker().tokenizer
    num = maker.model.n_vocab - len(maker.special_tokens)
    ranks = {maker.model.decode_single_token_bytes(i): i for i in range(num)}
    return ChatTemplate(
        from_ranks(name, ranks, maker.pat_str, maker.special_tokens, rendered(name))
    )


def llama_ids(messages, sent):
    from llama_models.datatypes import RawMessage

    maker = llama_maker()
    raw = [RawMessage(role=m["role"], content=m["content"]) for m in messages]
    ids = maker.encode_dialog_prompt(raw).tokens
    return ids if sent else ids[: -len(maker._encode_header("assistant"))]


@needs("llama_models", "tiktoken")
@pytest.mark.parametrize("title", TURNS)
def test_llama_3(title):
    messages = CONVERSATIONS[title].as_dicts()
    check(
        llama("llama3"),
        CONVERSATIONS[title],
        lambda k: llama_ids(messages[:k], sent=True),
        lambda k: llama_ids(messages[:k], sent=False),
    )


@needs("llama_models", "tiktoken")
def test_where_llama_3_differs_from_its_template():
    """The template trims what is said, the encoder does not. Servers render the template."""
    loose = [{"role": "user", "content": " Hi \n"}, {"role": "assistant", "content": " Yes.\n"}]
    tight = [{**message, "content": message["content"].strip()} for message in loose]
    (part,) = llama("llama3").encode(talk(*((m["role"], m["content"]) for m in loose)))
    assert part.ids == llama_ids(tight, sent=False) != llama_ids(loose, sent=False)


@needs("llama_models", "tiktoken")
@pytest.mark.parametrize("title", TURNS)
def test_llama_3_1(title):
    """Its template writes two dates into the system message, which the encoder is given as text."""
    messages = CONVERSATIONS[title].as_dicts()
    said = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
    dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    messages.insert(0, {"role": "system", "content": dates + said})
    added = len(messages) - len(CONVERSATIONS[title].messages)
    check(
        llama("llama3.1"),
        CONVERSATIONS[title],
        lambda k: llama_ids(messages[: k + added], sent=True),
        lambda k: llama_ids(messages[: k + added], sent=False),
    )


# ---------------------------------------------------------------- Mistral

MISTRAL = {
    "mistral-v1": "tokenizer.model.v1",
    "mistral-v3": "mistral_instruct_tokenizer_240323.model.v3",
    "mistral-v7": "mistral_instruct_tokenizer_241114.model.v7",
    "mistral-v3-tekken": "tekken_240911.json",
    "mistral-v7-tekken": "tekken_240911.json",
}


@cache
def mistral_maker(name, mode):
    """The maker's encoder; `mode` is `test` for prompts, `finetuning` for what is finished."""
    from mistral_common.protocol.instruct.normalize import get_normalizer
    from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
    from mistral_common.tokens.tokenizers.base import TokenizerVersion
    from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV7
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    encoder = mistral_encoder(MISTRAL[name])
    version = encoder.tokenizer.version
    if name == "mistral-v7-tekken":  # the package has its encoder, but no file of it
        version = TokenizerVersion.v7
        encoder = InstructTokenizerV7(encoder.tokenizer)
    checked = get_validator(version, mode=ValidationMode(mode))
    return MistralTokenizer(encoder, checked, get_normalizer(version))


@cache
def mistral_encoder(file):
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    return MistralTokenizer.from_file(str(mistral_file(file))).instruct_tokenizer


def mistral_file(name):
    import mistral_common

    return Path(mistral_common.__file__).parent / "data" / name


@cache
def mistral(name):
    file = mistral_file(MISTRAL[name])
    if file.suffix != ".json":
        return ChatTemplate(from_sentencepiece(name, file, rendered(name)))
    read = json.loads(file.read_text(encoding="utf-8"))
    config, num = read["config"], read["config"]["default_num_special_tokens"]
    tokens = read["vocab"][: config["default_vocab_size"] - num]
    ranks = {b64decode(token["token_bytes"]): num + token["rank"] for token in tokens}
    pieces = mistral_maker(name, "test").instruct_tokenizer.tokenizer
    specials = {pieces.id_to_piece(i): i for i in range(20)}
    return ChatTemplate(from_ranks(name, ranks, config["pattern"], specials, rendered(name)))


def mistral_ids(name, mode, messages, tools):
    from mistral_common.protocol.instruct.request import ChatCompletionRequest

    asked = ChatCompletionRequest.from_openai(messages, list(tools) or None)
    return mistral_maker(name, mode).encode_chat_completion(asked).tokens


def check_mistral(name, conversation):
    messages, tools = conversation.as_dicts(), conversation.tools
    check(
        mistral(name),
        conversation,
        lambda k: mistral_ids(name, "test", messages[:k], tools),
        lambda k: mistral_ids(name, "finetuning", messages[:k], tools),
    )


@needs("mistral_common", "sentencepiece", "tiktoken")
@pytest.mark.parametrize("title", TURNS)
@pytest.mark.parametrize("name", MISTRAL)
def test_mistral(name, title):
    check_mistral(name, CONVERSATIONS[title])


@needs("mistral_common", "sentencepiece", "tiktoken")
@pytest.mark.parametrize("title", TOOL_TURNS)
@pytest.mark.parametrize("name", [name for name in MISTRAL if name != "mistral-v1"])
def test_mistral_with_tools(name, title):
    check_mistral(name, TOOL_CONVERSATIONS[title])
