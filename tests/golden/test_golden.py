"""Every family's text, ids and masks are those of its file, and its prompts those of serving."""

import itertools
import json

import pytest

from golden.families import (
    CONVERSATIONS,
    FAMILIES,
    FOLDER,
    chat_template,
    golden,
    on_a_fixed_day,
    tokenizer,
)
from sft.data.template.tool_text import tools_as_text
from sft.errors import SFTError

CASES = list(itertools.product(FAMILIES, CONVERSATIONS))
# Conversations a family refuses, each for a reason that its file shows. All others train.
NO_SYSTEM = {"gemma"}
PREFILLED_THOUGHT = {"deepseek-r1"}  # sent, but not rendered with an answer
NO_REASONING = {*FAMILIES} - {"qwen3", "gpt-oss"}
ABSORBING = {"phi3", "phi3.5"}


def refused(name, title):
    if name in PREFILLED_THOUGHT or (title == "reasoning" and name in NO_REASONING):
        return True
    if "system" in title:
        return name in NO_SYSTEM
    if title == "reasoning in the answer":
        return name == "deepseek-v3"  # cuts it off
    return title == "white space" and name in ABSORBING


@pytest.mark.parametrize("name", FAMILIES)
def test_golden(name):
    expected = (FOLDER / "expected" / f"{name}.txt").read_text(encoding="utf-8")
    assert golden(name) == expected


def test_there_is_a_file_for_every_family_and_no_other():
    assert {file.stem for file in (FOLDER / "expected").iterdir()} == {*FAMILIES}
    templates = {file.name for file in (FOLDER / "templates").iterdir()}
    assert templates == {f"{name}.jinja" for name in FAMILIES if name != "chatml"}


def as_sent(name, conversation):
    """Messages and tools as a server gets them: the arguments of calls are objects by then."""
    facts, messages = chat_template(name).facts, conversation.as_dicts()
    if facts.tools_by == "text":
        return tools_as_text(messages, conversation.tools, facts.roles), None
    for message in messages:
        for call in message.get("tool_calls", ()):
            arguments = json.loads(call["function"]["arguments"])
            call["function"] = {**call["function"], "arguments": arguments}
    return messages, list(conversation.tools) or None


def trained_runs(part):
    """`(first token, token after the last)` of each run of trained tokens."""
    trained = [t for t, weight in enumerate(part.weights) if weight]
    starts = [t for t in trained if t - 1 not in trained]
    ends = [t + 1 for t in trained if t + 1 not in trained]
    return list(zip(starts, ends, strict=True))


@pytest.mark.parametrize(("name", "title"), CASES)
def test_what_is_trained_is_what_serving_gets_to_see(name, title):
    conversation = CONVERSATIONS[title]
    if refused(name, title):
        with on_a_fixed_day(), pytest.raises(SFTError):
            chat_template(name).encode(conversation)
        return
    fast = tokenizer(name)
    messages, tools = as_sent(name, conversation)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    with on_a_fixed_day():
        parts = chat_template(name).encode(conversation)
        runs = [(part, *run) for part in parts for run in trained_runs(part)]
        assert len(runs) == len(turns)
        for (part, start, stop), i in zip(runs, turns, strict=True):
            sent = fast.apply_chat_template(
                messages[:i], tools=tools, add_generation_prompt=True, return_dict=False
            )
            assert part.ids[:start] == sent
            upto = i + 1 if len(parts) > 1 else len(messages)
            said = fast.apply_chat_template(messages[:upto], tools=tools, tokenize=False)
            assert part.text == said
            assert part.ids == fast(said, add_special_tokens=False)["input_ids"]
            check_the_answer(name, messages[i], fast.decode(part.ids[start:stop]))
        whole = fast.apply_chat_template(messages, tools=tools, tokenize=False)
    for message in messages:  # nothing that was said is lost
        if message["role"] != "assistant":
            assert message["content"].strip() in whole


def check_the_answer(name, message, trained):
    """What is trained is the answer, with what calls a tool, and the stop token of the turn."""
    facts = chat_template(name).facts
    calls = message.get("tool_calls", ())
    stop = facts.call_stop_id if calls else facts.stop_id
    assert trained.rstrip("\n").endswith(tokenizer(name).decode([stop]))
    assert trained.count("<|im_start|>") == 0
    assert message["content"].split("</think>")[-1].strip() in trained
    assert message.get("reasoning_content", "") in trained
    for call in calls:
        assert call["function"]["name"] in trained and '{"city": "Paris"}' in trained
