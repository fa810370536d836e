"""What is found out about a template: stop tokens, roles, and what it would leave out."""

import pytest

from sft.data.rows.conversation import Message
from sft.data.template.chat_template import ChatTemplate
from sft.data.template.tool_text import tools_as_text
from sft.errors import TemplateError

TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def loop(body, condition=""):
    return f"{{% for m in messages {condition} %}}{body}{{% endfor %}}"


TOOL = {"type": "function", "function": {"name": "weather"}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": "{}"}}
CALLING = Message("assistant", "", (CALL,), weight=1.0)
RESULTS = [
    ("user", "Hi"),
    CALLING,
    Message("tool", "one"),
    Message("tool", "two"),
    ("assistant", "Yes."),
]


def test_the_stop_token_is_not_what_ends_the_whole_text(chat_tokenizer, talk):
    """Phi 3's template ends every text that asks for nothing with one more special token."""
    text = loop(TURN) + f"{ASK}{{% if not add_generation_prompt %}}</s>{{% endif %}}"
    template = ChatTemplate(chat_tokenizer(text))
    assert template.facts.stop_token == "<|im_end|>"
    assert template.facts.generation_prompt == "<|im_start|>assistant\n"
    rows = [("user", "Hi"), ("assistant", "Yes"), ("user", "two"), ("assistant", "dog")]
    (part,) = template.encode(talk(*rows))
    trained = [index for index, weight in zip(part.ids, part.weights, strict=True) if weight]
    assert template._tokenizer.decode(trained) == "Yes<|im_end|>dog<|im_end|>"
    assert part.text.endswith("dog<|im_end|>\n</s>") and part.text.count("</s>") == 1


def test_a_token_between_the_answer_and_its_stop_token_is_trained(chat_tokenizer, talk):
    """As Command R7B's <|END_RESPONSE|>."""
    text = loop("<|im_start|>{{ m.role }}\n{{ m.content }}</s><|im_end|>\n") + ASK
    template = ChatTemplate(chat_tokenizer(text))
    assert template.facts.stop_token == "<|im_end|>"
    (part,) = template.encode(talk(("user", "Hi"), ("assistant", "Yes")))
    trained = [index for index, weight in zip(part.ids, part.weights, strict=True) if weight]
    assert template._tokenizer.decode(trained) == "Yes</s><|im_end|>"


CALLS = (
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
    + loop(
        "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}{% endfor %}{{ '<|eot_id|>' if m.tool_calls else '<|im_end|>' }}\n"
    )
    + ASK
)


def test_a_call_may_end_with_a_token_of_its_own(chat_tokenizer, talk):
    """As gpt-oss's <|call|>."""
    template = ChatTemplate(chat_tokenizer(CALLS))
    names = template._tokenizer.convert_ids_to_tokens
    facts = template.facts
    assert names([facts.stop_id, facts.call_stop_id]) == ["<|im_end|>", "<|eot_id|>"]
    (part,) = template.encode(talk(*RESULTS, tools=[TOOL]))
    trained = [index for index, weight in zip(part.ids, part.weights, strict=True) if weight]
    assert template._tokenizer.decode(trained) == "weather<|eot_id|>Yes.<|im_end|>"


ROLES = [
    (loop(TURN) + ASK, {"system", "tool"}),
    (loop(TURN, "if m.role != 'tool'") + ASK, {"system"}),
    (loop(TURN, "if m.role in ('user', 'assistant')") + ASK, set()),
    ("{{ raise_exception('no') if messages[0].role == 'system' }}" + loop(TURN) + ASK, {"tool"}),
    (loop(TURN) + "{% if messages[-1].role == 'user' %}" + ASK + "{% endif %}", {"system"}),
]


@pytest.mark.parametrize(("text", "roles"), ROLES)
def test_tools_as_text_reach_the_model_whatever_the_template_writes(
    text, roles, chat_tokenizer, talk
):
    template = ChatTemplate(chat_tokenizer(text))
    assert template.facts.roles == roles
    row = talk(*RESULTS, tools=[TOOL])
    (part,) = template.encode(row)
    for said in ('"weather"}', "<tool_response>\none\n", "<tool_response>\ntwo\n"):
        assert part.text.count(said) == 1
    shown, none = template.as_served(row.as_dicts(), row.tools)
    assert shown == tools_as_text(row.as_dicts(), row.tools, roles) and not none
    assert part.text == template._tokenizer.apply_chat_template(shown, tokenize=False)
    trained = [index for index, weight in zip(part.ids, part.weights, strict=True) if weight]
    assert template._tokenizer.decode(trained).endswith("</tool_call><|im_end|>Yes.<|im_end|>")


def test_weights_stay_with_their_turns(chat_tokenizer, talk):
    """Showing tools adds a message, and joins results."""
    template = ChatTemplate(chat_tokenizer(loop(TURN, "if m.role != 'tool'") + ASK))
    rows = [*RESULTS[:4], ("assistant", "Yes.", 0.0), ("user", "two"), ("assistant", "dog", 0.5)]
    (part,) = template.encode(talk(*rows, tools=[TOOL]))
    seen = {
        weight: template._tokenizer.decode(
            [i for i, w in zip(part.ids, part.weights, strict=True) if w == weight]
        )
        for weight in (0.5, 1.0)
    }
    assert seen[0.5] == "dog<|im_end|>"
    assert seen[1.0].startswith("<tool_call>") and "Yes." not in seen[1.0]


THINKS = "{{ m.reasoning_content or '' }}"
CUTS = "{{ m.content.split('</think>')[-1] }}"


@pytest.mark.parametrize(
    ("text", "rows", "words"),
    [
        (loop(TURN, "if m.role != 'system'"), [("system", "Be two")], "leaves out system messages"),
        (loop(TURN), [], "leaves out `reasoning_content`"),
        (
            loop(TURN.replace("{{ m.content }}", THINKS + CUTS)),
            [("user", "Hi"), ("assistant", "<think>one</think>Yes")],
            "leaves out what an answer has before </think>",
        ),
    ],
)
def test_nothing_a_row_says_is_left_out_silently(text, rows, words, chat_tokenizer, talk):
    template = ChatTemplate(chat_tokenizer(text + ASK))
    thought = Message("assistant", "dog", weight=1.0, extra={"reasoning_content": "one"})
    plain = [("user", "Hi"), ("assistant", "dog")]
    template.encode(talk(*plain))
    last = [("user", "Hi"), thought] if not rows else plain
    with pytest.raises(TemplateError, match=words):
        template.encode(talk(*rows, *last))
    # What is not trained may lose it, as the thoughts of earlier turns do.
    if len(rows) == 2:
        template.encode(talk(rows[0], (*rows[1], 0.0), *plain))
    elif not rows:
        unseen = Message("assistant", "dog", extra={"reasoning_content": "one"})
        template.encode(talk(("user", "Hi"), unseen, *plain))
