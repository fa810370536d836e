"""Exact tokens and masks of well-known templates, and what serving sends for them."""

import itertools
import json

import pytest
from transformers import AutoTokenizer

from sft.data.rows.conversation import Message
from sft.data.template.chat_template import ChatTemplate
from sft.data.template.encoding import TextEncoder
from sft.errors import DataError, TemplateError

NAMES = ("chatml", "plain", "llama2", "llama3", "mistral", "gemma", "qwen3", "generation")
SINGLE = [("user", "Hi"), ("assistant", "Yes")]
SEEN = [*SINGLE, ("user", "two"), ("assistant", "three", 0)]
MULTI = [*SEEN, ("user", "four"), ("assistant", "dog", 0.5)]
SYSTEM = ("system", "Be two")


def view(tokenizer, part):
    """Tokens as the tokenizer names them; what is trained stands in [ ], with its weight."""
    shown = []
    pairs = zip(tokenizer.convert_ids_to_tokens(part.ids), part.weights, strict=True)
    for weight, run in itertools.groupby(pairs, key=lambda pair: pair[1]):
        tokens = [token for token, _ in run]
        shown += [f"{weight:g}[", *tokens, "]"] if weight else tokens
    return " ".join(shown)


def views(template, conversation):
    return [view(template._tokenizer, part) for part in template.encode(conversation)]


CHATML = """<|im_start|> user Ċ H i <|im_end|> Ċ
    <|im_start|> as sistan t Ċ 1[ Y e s <|im_end|> ] Ċ"""
CHATML_MULTI = f"""<|im_start|> system Ċ B e Ġtwo <|im_end|> Ċ {CHATML}
    <|im_start|> user Ċ t wo <|im_end|> Ċ <|im_start|> as sistan t Ċ t hr ee <|im_end|> Ċ
    <|im_start|> user Ċ fo ur <|im_end|> Ċ
    <|im_start|> as sistan t Ċ 0.5[ do g <|im_end|> ] Ċ"""
NO_THOUGHT = "< t h i n k > ĊĊ < / t h i n k > ĊĊ"
GOLDEN = {
    "chatml": (CHATML, CHATML_MULTI),
    "generation": (CHATML, CHATML_MULTI),
    "plain": (
        "# # # ĠInstruction : Ċ H i ĊĊ # # # ĠResponse : Ċ 1[ Y e s </s> ] ĊĊ",
        """B e Ġtwo ĊĊ # # # ĠInstruction : Ċ H i ĊĊ # # # ĠResponse : Ċ 1[ Y e s </s> ] ĊĊ
        # # # ĠInstruction : Ċ t wo ĊĊ # # # ĠResponse : Ċ t hr ee </s> ĊĊ
        # # # ĠInstruction : Ċ fo ur ĊĊ # # # ĠResponse : Ċ 0.5[ do g </s> ] ĊĊ""",
    ),
    "llama2": (
        "<s> [ I N S T ] Ġ H i Ġ [ / I N S T ] 1[ Ġ Y e s Ġ </s> ]",
        """<s> [ I N S T ] Ġ < < S Y S > > Ċ B e Ġtwo Ċ < < / S Y S > > ĊĊ H i Ġ [ / I N S T ]
        1[ Ġ Y e s Ġ </s> ] <s> [ I N S T ] Ġtwo Ġ [ / I N S T ] Ġthree Ġ </s>
        <s> [ I N S T ] Ġfour Ġ [ / I N S T ] 0.5[ Ġdog Ġ </s> ]""",
    ),
    "llama3": (
        """<s> <|start_header_id|> user <|end_header_id|> ĊĊ H i <|eot_id|>
        <|start_header_id|> as sistan t <|end_header_id|> ĊĊ 1[ Y e s <|eot_id|> ]""",
        """<s> <|start_header_id|> system <|end_header_id|> ĊĊ B e Ġtwo <|eot_id|>
        <|start_header_id|> user <|end_header_id|> ĊĊ H i <|eot_id|>
        <|start_header_id|> as sistan t <|end_header_id|> ĊĊ 1[ Y e s <|eot_id|> ]
        <|start_header_id|> user <|end_header_id|> ĊĊ t wo <|eot_id|>
        <|start_header_id|> as sistan t <|end_header_id|> ĊĊ t hr ee <|eot_id|>
        <|start_header_id|> user <|end_header_id|> ĊĊ fo ur <|eot_id|>
        <|start_header_id|> as sistan t <|end_header_id|> ĊĊ 0.5[ do g <|eot_id|> ]""",
    ),
    "mistral": (
        "<s> [ I N S T ] Ġ H i Ġ [ / I N S T ] 1[ Y e s </s> ]",
        """<s> [ I N S T ] Ġ H i Ġ [ / I N S T ] 1[ Y e s </s> ] [ I N S T ] Ġtwo Ġ [ / I N S T ]
        t hr ee </s> [ I N S T ] Ġfour Ġ [ / I N S T ] 0.5[ do g </s> ]""",
    ),
    "gemma": (
        """<s> <start_of_turn> user Ċ H i <end_of_turn> Ċ
        <start_of_turn> m o d e l Ċ 1[ Y e s <end_of_turn> ] Ċ""",
        """<s> <start_of_turn> user Ċ H i <end_of_turn> Ċ
        <start_of_turn> m o d e l Ċ 1[ Y e s <end_of_turn> ] Ċ
        <start_of_turn> user Ċ t wo <end_of_turn> Ċ
        <start_of_turn> m o d e l Ċ t hr ee <end_of_turn> Ċ
        <start_of_turn> user Ċ fo ur <end_of_turn> Ċ
        <start_of_turn> m o d e l Ċ 0.5[ do g <end_of_turn> ] Ċ""",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_exact_tokens_and_mask(name, chat_template, talk):
    template = chat_template(name)
    system = [] if name in ("mistral", "gemma") else [SYSTEM]
    for messages, golden in zip((SINGLE, [*system, *MULTI]), GOLDEN[name], strict=True):
        assert views(template, talk(*messages)) == [" ".join(golden.split())]


def test_a_template_that_strips_thoughts_gives_an_example_per_turn(chat_template, talk):
    """Each is what serving sees: the thought of its own turn, and none of the earlier ones."""
    rows = [("user", "Hi"), ("assistant", "<think>\ntwo\n</think>\n\nYes"), ("user", "two")]
    asked = "<|im_start|> user Ċ H i <|im_end|> Ċ <|im_start|> as sistan t Ċ"
    again = "<|im_start|> user Ċ t wo <|im_end|> Ċ <|im_start|> as sistan t Ċ"
    thought = "< t h i n k > Ċ t wo Ċ < / t h i n k > ĊĊ"
    assert views(chat_template("qwen3"), talk(*rows, ("assistant", "dog"))) == [
        f"{asked} 1[ {thought} Y e s <|im_end|> ] Ċ",
        f"{asked} Y e s <|im_end|> Ċ {again} 1[ {NO_THOUGHT} do g <|im_end|> ] Ċ",
    ]
    first, second = chat_template("qwen3").encode(talk(*rows, ("assistant", "dog")))
    assert first.text == (
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<think>\ntwo\n</think>\n\nYes<|im_end|>\n"
    )
    assert "<think>\ntwo" not in second.text


def test_a_turn_that_is_not_trained_gets_no_example(chat_template, talk):
    rows = [("user", "Hi"), ("assistant", "Yes", 0), ("user", "two"), ("assistant", "dog", 0.5)]
    (only,) = views(chat_template("qwen3"), talk(*rows))
    assert only.endswith(f"as sistan t Ċ 0.5[ {NO_THOUGHT} do g <|im_end|> ] Ċ")
    assert only.count("[") == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_turn_is_preceded_by_exactly_what_serving_sends(name, chat_template, talk):
    template = chat_template(name)
    tokenizer = template._tokenizer
    conversation = talk(*SINGLE, ("user", "The fox"), ("assistant", "jumps"), *MULTI)
    dicts = conversation.as_dicts()
    starts = [
        part.ids[: part.weights.index(weight)]
        for part in template.encode(conversation)
        for weight in sorted({w for w in part.weights if w}, reverse=True)
    ]
    turns = [1, 9] if name != "qwen3" else [1, 3, 5, 9]
    assert starts == [
        tokenizer.apply_chat_template(dicts[:i], add_generation_prompt=True, return_dict=False)
        for i in turns
    ]
    assert starts == [template.prompt_ids(dicts[:i]) for i in turns]


def test_facts(chat_template):
    facts = {name: chat_template(name).facts for name in NAMES}
    assert {name: (f.stop_token, f.generation_prompt) for name, f in facts.items()} == {
        "chatml": ("<|im_end|>", "<|im_start|>assistant\n"),
        "plain": ("</s>", "### Response:\n"),
        "llama2": ("</s>", ""),
        "llama3": ("<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
        "mistral": ("</s>", ""),
        "gemma": ("<end_of_turn>", "<start_of_turn>model\n"),
        "qwen3": ("<|im_end|>", "<|im_start|>assistant\n"),
        "generation": ("<|im_end|>", "<|im_start|>assistant\n"),
    }
    assert [n for n in NAMES if facts[n].has_generation_markers] == ["generation"]
    assert [n for n in NAMES if facts[n].leading_bos] == ["llama2", "llama3", "mistral", "gemma"]
    assert [n for n in NAMES if facts[n].tools_by == "template"] == ["qwen3"]
    assert len({f.sha256 for f in facts.values()}) == len(NAMES)


def test_a_stop_token_that_is_also_the_padding_token_is_trained(chat_tokenizer, talk):
    tokenizer = chat_tokenizer("plain")
    tokenizer.pad_token = tokenizer.eos_token
    template = ChatTemplate(tokenizer)
    assert views(template, talk(*SINGLE)) == [GOLDEN["plain"][0]]


def test_special_tokens_that_absorb_white_space(chat_tokenizer, talk):
    """As Phi 3's do: the line break after the stop token is inside it."""

    def absorbing(spec):
        for token in spec["added_tokens"]:
            token["rstrip"] = True

    template = ChatTemplate(chat_tokenizer("llama3", absorbing))
    golden = GOLDEN["llama3"][1].replace(" ĊĊ", "")
    assert views(template, talk(SYSTEM, *MULTI)) == [" ".join(golden.split())]
    with pytest.raises(DataError, match="which this tokenizer cannot encode as text"):
        template.encode(talk(("user", "</s>"), ("assistant", "Yes")))
    # Nor may the answer's own white space be lost in the prompt.
    text = "{% for m in messages %}{{ m.role }}<s>{{ m.content }}</s>{% endfor %}"
    prompt = "{% if add_generation_prompt %}assistant<s>{% endif %}"
    template = ChatTemplate(chat_tokenizer(text + prompt, absorbing))
    (seen,) = views(template, talk(*SINGLE))
    assert seen.endswith("as sistan t <s> 1[ Y e s </s> ]")
    with pytest.raises(
        TemplateError, match=r"prefix difference .* 'Y' 'e' 's' '</s>', spans .*<s>"
    ):
        template.encode(talk(("user", "Hi"), ("assistant", " Yes")))


def test_a_model_that_begins_with_a_thought(chat_tokenizer, talk):
    """The generation prompt opens the thought; what is trained goes on from there."""
    template = ChatTemplate(
        chat_tokenizer(
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>"
            "{{ m.reasoning_content or '' }}</think>{% endif %}{{ m.content }}<|im_end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
        )
    )
    thinking = Message("assistant", "Yes", weight=1.0, extra={"reasoning_content": "two"})
    (seen,) = views(template, talk(("user", "Hi"), thinking))
    end = "< / t h i n k > Y e s <|im_end|> ] Ċ"
    assert seen.endswith(f"as sistan t Ċ < t h i n k > 1[ t wo {end}")
    (seen,) = views(template, talk(*SINGLE))
    assert seen.endswith(f"as sistan t Ċ < t h i n k > 1[ {end}")


# What the answer is, and the template: the tokens trained, or the tokens shown by the refusal.
WHITE_SPACE = [
    ("chatml", " Yes", "1[ Ġ Y e s <|im_end|> ] Ċ"),
    ("chatml", "\tYes \n\n", "1[ ĉ Y e s Ġ ĊĊ <|im_end|> ] Ċ"),
    ("chatml", "\nYes", r"sent '\n', rendered '\n\n' 'Y' 'e' 's' '<|im_end|>' '\n'"),
    ("generation", "  Yes", "1[ Ġ Ġ Y e s <|im_end|> ] Ċ"),
    ("generation", "\nYes", r"sent '\n', rendered '\n\n' 'Y' 'e' 's' '<|im_end|>' '\n'"),
    ("qwen3", "\nYes", f"1[ {NO_THOUGHT} Y e s <|im_end|> ] Ċ"),
    ("qwen3", " Yes", f"1[ {NO_THOUGHT} Ġ Y e s <|im_end|> ] Ċ"),
    ("mistral", " Yes", "1[ Ġ Y e s </s> ]"),
    ("mistral", "\n\nYes", "1[ ĊĊ Y e s </s> ]"),
    ("mistral", "(Yes", "sent ']', rendered '](' 'Y' 'e' 's' '</s>'"),
    ("llama2", "\n Yes ", "1[ Ġ Y e s Ġ </s> ]"),
    ("plain", "\n\nYes\n", "1[ Y e s </s> ] ĊĊ"),
    ("llama3", "\nYes\n", "1[ Y e s <|eot_id|> ]"),
    ("gemma", " Yes\t", "1[ Y e s <end_of_turn> ] Ċ"),
]


@pytest.mark.parametrize(("name", "answer", "shown"), WHITE_SPACE)
def test_an_answer_that_begins_with_white_space(name, answer, shown, chat_template, talk):
    try:
        (seen,) = views(chat_template(name), talk(("user", "Hi"), ("assistant", answer)))
    except TemplateError as error:
        seen = str(error)
    assert seen.endswith(f" {shown}")


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_in_the_data_are_text(name, chat_template, talk):
    template = chat_template(name)
    spelled = "a <|im_end|></s>\n<|im_start|>assistant\n<|eot_id|><end_of_turn>"
    conversation = talk(("user", f"{spelled} b"), ("assistant", f"No {spelled}."))
    clean = talk(("user", "b"), ("assistant", "No."))
    (part,), (bare,) = template.encode(conversation), template.encode(clean)
    special = TextEncoder(template._tokenizer).special_ids
    assert [i for i in part.ids if i in special] == [i for i in bare.ids if i in special]
    text = template._tokenizer.apply_chat_template(conversation.as_dicts(), tokenize=False)
    assert template._tokenizer.decode(part.ids) == part.text == text
    assert template.has_special_text(conversation) and not template.has_special_text(clean)
    trained = [i for i, weight in zip(part.ids, part.weights, strict=True) if weight]
    assert f"No {spelled}." in template._tokenizer.decode(trained)
    assert [i for i in trained if i in special] == [template.facts.stop_id]


def test_special_tokens_in_tools_calls_and_results_are_text(chat_template, talk):
    end = "<|im_end|>"
    function = {"name": "f", "parameters": {"properties": {end: {"description": end}}}}
    call = {"type": "function", "function": {"name": "f", "arguments": {end: end}}}
    for name in ("qwen3", "chatml"):
        template = chat_template(name)
        parts = template.encode(
            talk(
                ("user", "Hi"),
                Message("assistant", "", (call,), weight=1.0),
                Message("tool", f"{end} {end}", extra={"tool_call_id": end}),
                ("assistant", "Yes"),
                tools=[{"type": "function", "function": function}],
            )
        )
        for part in parts:
            turns = part.text.count("<|im_start|>")
            assert part.ids.count(template.facts.stop_id) == turns
            assert part.text.count(end) > turns
            assert template._tokenizer.decode(part.ids) == part.text


def test_a_template_that_cuts_a_special_token_off_keeps_its_own(chat_tokenizer, talk):
    """What is left of the mark around it must not turn the template's tokens into text."""
    template = ChatTemplate(
        chat_tokenizer(
            "{% for m in messages %}<|im_start|>{{ m.role }}\n"
            "{{ m.content.split('</s>')[0 if m.role == 'user' else -1] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
    )
    rows = talk(("user", "Hi</s>"), ("assistant", "</s>Yes"))
    assert views(template, rows) == [" ".join(CHATML.split())]


def test_a_saved_tokenizer_gives_the_same(chat_tokenizer, talk, tmp_path):
    chat_tokenizer("llama3").save_pretrained(tmp_path)
    template = ChatTemplate(AutoTokenizer.from_pretrained(tmp_path))
    assert views(template, talk(*SINGLE)) == [" ".join(GOLDEN["llama3"][0].split())]


CALL = {"name": "weather", "arguments": {"city": "Paris"}}


def test_arguments_as_text_and_as_an_object_are_the_same(chat_template, talk):
    """Files have them as text, templates expect an object, and serving parses them."""
    for name in NAMES:
        seen = []
        for arguments in (CALL["arguments"], json.dumps(CALL["arguments"])):
            call = {"type": "function", "function": CALL | {"arguments": arguments}}
            rows = talk(("user", "Hi"), Message("assistant", "", (call,), weight=1.0))
            seen += [part.text for part in chat_template(name).encode(rows)]
        assert seen[0] == seen[1]
        assert '{"name": "weather", "arguments": {"city": "Paris"}}' in seen[0]


@pytest.mark.parametrize(("tools", "shown"), [("auto", 1), ("template", 1), ("text", 0)])
def test_who_shows_the_tools(tools, shown, chat_tokenizer, talk):
    template = ChatTemplate(chat_tokenizer("qwen3"), tools)
    listed = [{"type": "function", "function": {"name": "weather"}}]
    (part,) = template.encode(talk(*SINGLE, tools=listed))
    assert ("# Tools\n\n<tools>\n" in part.text, "You may call these" in part.text) == (
        shown == 1,
        shown == 0,
    )
    assert part.text.count("weather") == 1
    sent = template.prompt_ids([{"role": "user", "content": "Hi"}], listed)
    assert part.ids[: len(sent)] == sent and not any(part.weights[: len(sent)])


LISTS = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
CALLS = "{% for c in m.tool_calls or [] %}{{ c.function.name + c.function.arguments }}{% endfor %}"
CALLS_AS_JSON = CALLS.replace("arguments", "arguments | tojson")


def test_a_template_must_show_both_tools_and_calls(chat_tokenizer):
    for lists, calls, by in (
        (LISTS, CALLS_AS_JSON, "template"),
        (LISTS, "", "text"),
        ("", CALLS_AS_JSON, "text"),
        (LISTS, CALLS, "text"),  # fails on an object
    ):
        text = f"{lists}{{% for m in messages %}}{{{{ m.content }}}}{calls}</s>{{% endfor %}}"
        assert ChatTemplate(chat_tokenizer(text)).facts.tools_by == by


def test_a_template_that_takes_arguments_as_text_only(chat_tokenizer, talk):
    """As DeepSeek's: it adds them to a text. They stay as they are in the file."""
    text = f"{{% for m in messages %}}{{{{ m.content }}}}{CALLS}</s>{{% endfor %}}"
    template = ChatTemplate(chat_tokenizer(text), tools="template")
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    (part,) = template.encode(talk(("user", "Hi"), Message("assistant", "", (call,), weight=1.0)))
    assert part.text == 'Hi</s>f{"a":1}</s>'
