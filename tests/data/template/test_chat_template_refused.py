"""Templates and rows that give no mask one could trust, and the one error they end in."""

import pytest

from sft.data.rows.conversation import Message
from sft.data.template.chat_template import ChatTemplate
from sft.errors import DataError, SFTError, TemplateError

ROW = [("user", "Hi"), ("assistant", "Yes fox two")]
TURNS = (
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>"
)
END = "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def error_of(call, *arguments):
    with pytest.raises(SFTError) as caught:
        call(*arguments)
    return type(caught.value), str(caught.value)


FAULTS = [
    ("{% for x in %}", "Expected an expression, got 'end of statement block'"),
    ("{{ raise_exception('only users') }}", "only users"),
    ("{{ messages[9].content }}", "list object has no element 9"),
    ("{{ messages[0].nothing.more }}", "'dict object' has no attribute 'nothing'"),
    ("{{ messages | no_such_filter }}", "No filter named 'no_such_filter'."),
    ("{{ messages.append(1) }}", "access to attribute 'append' of 'list'"),
    ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe."),
    ("{% include 'other' %}", "no loader for this environment specified"),
    ("{{ 'a' + 1 }}", 'can only concatenate str (not "int") to str'),
    ("{{ strftime_now('\ud800') }}", "surrogates not allowed"),
    ("{{ '%d' % 'x' }}", "%d format: a real number is required, not str"),
    ("{{ 1 / 0 }}", "division by zero"),
    ("{{ '{}'.format() }}", "tuple index out of range"),
    ("{{ range(10 ** 9) }}", "Range too big."),
    ("{{ ''.encode('x') }}", "unknown encoding: x"),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "maximum recursion depth exceeded"),
]


@pytest.mark.parametrize(("template", "words"), FAULTS)
def test_a_template_that_fails(template, words, chat_tokenizer):
    kind, message = error_of(ChatTemplate, chat_tokenizer(template))
    assert kind is TemplateError
    assert message.startswith("the chat template refuses the conversation | ") and words in message


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "has no chat template; set model.template to chatml, plain or a file"),
        ({}, "has no chat template; set model.template to chatml, plain or a file"),
        ({"rag": "{{ 1 }}"}, "no default specified! .* Set model.template to chatml, plain or"),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "writes no special token after"),
        ("<s>{% for m in messages %}{{ m.content }}\n{% endfor %}", "no special token after"),
        ("{{ bos_token * 2 }}{% for m in messages %}x{{ eos_token }}{% endfor %}", "two BOS"),
    ],
)
def test_a_tokenizer_without_a_usable_template(template, words, chat_tokenizer):
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = template
    with pytest.raises(TemplateError, match=words):
        ChatTemplate(tokenizer)


def test_named_templates_with_a_default(chat_tokenizer, chat_template, talk):
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = {"rag": "{{ 1 }}", "default": tokenizer.chat_template}
    template = ChatTemplate(tokenizer)
    assert template.encode(talk(*ROW)) == chat_template("chatml").encode(talk(*ROW))


def test_two_bos_that_only_some_rows_have(chat_tokenizer, talk):
    text = "{{ bos_token if messages[0].role == 'system' }}{{ bos_token }}{% for m in messages %}"
    template = ChatTemplate(chat_tokenizer(text + "{{ m.content + eos_token }}{% endfor %}"))
    template.encode(talk(*ROW))
    with pytest.raises(TemplateError, match="begins with two BOS tokens"):
        template.encode(talk(("system", "Be"), *ROW))


def test_rows_a_template_refuses_itself(chat_template, talk):
    with pytest.raises(TemplateError, match="System role not supported"):
        chat_template("gemma").encode(talk(("system", "Be two"), *ROW))
    with pytest.raises(TemplateError, match="Conversation roles must alternate"):
        chat_template("mistral").encode(talk(("system", "Be two"), *ROW))


ASSISTANT = "<|im_start|>assistant\n"
ANSWER = "{{ m.content }}<|im_end|>"
START, STOP = "{% generation %}", "{% endgeneration %}"
# What a template writes for an answer, and what each of the two methods found.
MARKERS = [
    (f"{ASSISTANT}{START}{ANSWER}{STOP}\n", None),
    (f"{ASSISTANT}{START}{ANSWER}\n{STOP}", None),
    (f"{ASSISTANT}{START}{{{{ m.content }}}}{STOP}<|im_end|>\n", None),
    (
        f"{ASSISTANT}{START}{{{{ m.content[:5] }}}}{STOP}{{{{ m.content[5:] }}}}<|im_end|>",
        "nothing",
    ),
    (
        f"{ASSISTANT}{{{{ m.content[:3] }}}}{START}{{{{ m.content[3:] }}}}<|im_end|>{STOP}",
        "[15:18] ' fox' ' two' '<|im_end|>'",
    ),
    (
        f"{START}{ASSISTANT}{ANSWER}{STOP}",
        "[7:18] '<|im_start|>' 'as' 'sistan' 't' ... 's' ' fox' ' two' '<|im_end|>'",
    ),
    (f"{ASSISTANT}{START}{STOP}{ANSWER}", "nothing"),
    (f"{START}{STOP}{ASSISTANT}{ANSWER}", "nothing"),
    (f"{ASSISTANT}{ANSWER}{{% if 0 %}}{START}{STOP}{{% endif %}}", "nothing"),
]


@pytest.mark.parametrize(("answer", "found"), MARKERS)
def test_generation_markers_must_be_right(answer, found, chat_tokenizer, talk):
    template = ChatTemplate(chat_tokenizer(f"{TURNS}\n{{% else %}}{answer}{{% endif %}}{END}"))
    assert template.facts.has_generation_markers
    if found:
        assert error_of(template.encode, talk(*ROW)) == (
            TemplateError,
            "two methods disagree on the trained tokens of messages[1] | prefix difference "
            f"[12:18] 'Y' 'e' 's' ' fox' ' two' '<|im_end|>', spans {found}",
        )
    else:
        (part,) = template.encode(talk(*ROW))
        assert [t for t, weight in enumerate(part.weights) if weight] == list(range(12, 18))


def test_generation_markers_around_a_user(chat_tokenizer, talk):
    one = f"{START}{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{ANSWER}\n{END}{STOP}"
    each = f"{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{START}{ANSWER}{STOP}\n{END}"
    for text, covered in (
        (one, r"'<\|im_start\|>user\\nHi<\|im_end\|>\\n'"),
        (each, r"'Hi<\|im_end"),
    ):
        with pytest.raises(TemplateError, match=f"markers cover what a user wrote . {covered}"):
            ChatTemplate(chat_tokenizer(text))


# The template, and how its refusal of `ROW` goes on.
UNPROVABLE = {
    # Serving sends no header, the training text has one: is it to be learnt?
    f"{TURNS}{{% else %}}{ASSISTANT}{ANSWER}{{% endif %}}{{% endfor %}}": (
        "two methods disagree on the trained tokens of messages[1] | prefix difference [6:17] "
        "'<|im_start|>' 'as' 'sistan' 't' ... 's' ' fox' ' two' '<|im_end|>', "
        "spans [10:17] '\\n' 'Y' 'e' 's' ' fox' ' two' '<|im_end|>'"
    ),
    # Serving begins a thought, which the training text leaves out.
    f"{TURNS}{{% else %}}{ASSISTANT}{ANSWER}{{% endif %}}{END[:-11]}<think>{{% endif %}}": (
        "the chat template renders messages[1] differently from what it sends to get it, so no "
        "mask can be right | sent: ...'<|im_start|>user\\nHi<|im_end|><|im_start|>assistant\\n"
        "<think>'; rendered: ...'Yes fox two<|im_end|>'"
    ),
    # The prompt ends with a line break, and the answer begins with one of the template's.
    f"{TURNS}{{% else %}}{ASSISTANT}\n{ANSWER}{{% endif %}}{END}": (
        "the answer changes how its prompt is split into tokens, so serving would see other "
        "tokens (does it begin with white space?) | sent '\\n', rendered '\\n\\n' 'Y' 'e' 's' "
        "' fox' ' two'"
    ),
    # The stop token of the probe comes only after short answers.
    f"{TURNS}{{% else %}}{ASSISTANT}{{{{ m.content }}}}"
    f"{{{{ '<|im_end|>' if m.content == 'Yes' else '.' }}}}{{% endif %}}{END}": (
        "the turn does not end with the stop token '<|im_end|>' | 'Y' 'e' 's' ' fox' ' two' '.'"
    ),
}


@pytest.mark.parametrize("text", UNPROVABLE)
def test_no_mask_without_proof(text, chat_tokenizer, talk):
    template = ChatTemplate(chat_tokenizer(text))
    assert error_of(template.encode, talk(*ROW)) == (TemplateError, UNPROVABLE[text])


def test_a_template_for_another_tokenizer(chat_tokenizer, talk):
    """GPT-2 splits two line breaks before a word, and not at the end of a prompt."""

    def gpt2(spec):
        del spec["pre_tokenizer"]["pretokenizers"][0]
        spec["pre_tokenizer"]["pretokenizers"][0]["use_regex"] = True

    template = ChatTemplate(chat_tokenizer("llama3", gpt2))
    with pytest.raises(TemplateError, match=r"sent '\\n\\n', rendered '\\n' '\\n' 'Y' 'e' 's'"):
        template.encode(talk(*ROW))


@pytest.mark.parametrize("mark", ["\ue0f0", "\ue0f1"])
@pytest.mark.parametrize("special", ["", "</s>"])
def test_marks_of_ours_in_the_data(mark, special, chat_template, talk):
    text = f"a{mark}{special}b"
    call = {"type": "function", "function": {"name": "f", "arguments": {text: "x"}}}
    rows = [
        talk(("user", text), ("assistant", "Yes")),
        talk(("user", "Hi"), ("assistant", text)),
        talk(("user", "Hi"), Message("assistant", "Yes", (call,), weight=1.0)),
        talk(*ROW, tools=[{"type": "function", "function": {"name": text}}]),
    ]
    for row in rows:
        kind, message = error_of(chat_template("qwen3").encode, row)
        assert (kind, "private-use characters U+E0F0 or U+E0F1" in message) == (DataError, True)


def test_special_tokens_that_cannot_be_text(chat_tokenizer, talk):
    def space_before_the_text(spec):
        first = {"type": "Metaspace", "replacement": " ", "prepend_scheme": "first"}
        spec["pre_tokenizer"]["pretokenizers"][0] = first | {"split": False}

    template = ChatTemplate(chat_tokenizer("chatml", space_before_the_text))
    kind, message = error_of(template.encode, talk(("user", "a </s>"), ("assistant", "Yes")))
    assert (kind, message) == (
        DataError,
        "holds a special-token string, which this tokenizer cannot encode as text",
    )
