"""Tools, calls and results as text: the exact text."""

import copy

import pytest

from sft.data.template.tool_text import tools_as_text, with_mappings

TOOL = {"type": "function", "function": {"name": "weather", "description": "météo 🌦"}}
BLOCK = (
    "You may call these functions:\n"
    "<tools>\n"
    '{"type": "function", "function": {"name": "weather", "description": "météo 🌦"}}\n'
    '{"name": "time"}\n'
    "</tools>\n"
    "To call one, answer with <tool_call>\n"
    '{"name": ..., "arguments": ...}\n'
    "</tool_call>"
)
USER = {"role": "user", "content": "Hi"}


def call(arguments, name="weather"):
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_tools_are_listed_in_a_system_message():
    assert tools_as_text([USER], [TOOL, {"name": "time"}]) == [
        {"role": "system", "content": BLOCK},
        USER,
    ]
    system = {"role": "system", "content": "Be kind."}
    assert tools_as_text([system, USER], [TOOL, {"name": "time"}]) == [
        {"role": "system", "content": f"Be kind.\n\n{BLOCK}"},
        USER,
    ]


def test_without_tools_nothing_is_added():
    assert tools_as_text([USER], []) == [USER]


def test_calls_and_results():
    messages = [
        USER,
        {"role": "assistant", "content": "I evaluation.", "tool_calls": [call({"city": "Zürich"})]},
        {"role": "tool", "content": "21 °C", "tool_call_id": "1"},
        {"role": "assistant", "content": "", "tool_calls": [call({}), call(None, "time")]},
    ]
    before = copy.deepcopy(messages)
    assert tools_as_text(messages, []) == [
        USER,
        {
            "role": "assistant",
            "content": "I evaluation.\n<tool_call>\n"
            '{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>',
        },
        {
            "role": "tool",
            "content": "<tool_response>\n21 °C\n</tool_response>",
            "tool_call_id": "1",
        },
        {
            "role": "assistant",
            "content": '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>\n'
            '<tool_call>\n{"name": "time", "arguments": null}\n</tool_call>',
        },
    ]
    assert messages == before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "b": ["é", null, 1.5]}', {"a": 1, "b": ["é", None, 1.5]}),
        ('{"b":2,"a":{"c":true}}', {"b": 2, "a": {"c": True}}),
        ("{}", {}),
    ],
)
def test_arguments_as_json_text_or_as_a_mapping_are_the_same(text, value):
    rows = [[{"role": "assistant", "content": "", "tool_calls": [call(a)]}] for a in (text, value)]
    assert tools_as_text(rows[0], []) == tools_as_text(rows[1], [])
    assert with_mappings(rows[0]) == with_mappings(rows[1]) == rows[1]


def test_arguments_that_are_no_json_stay_text():
    message = {"role": "assistant", "content": "", "tool_calls": [call("city=Paris")]}
    (shown,) = tools_as_text([message], [])
    assert '"arguments": "city=Paris"' in shown["content"]
    assert with_mappings([message]) == [message]


@pytest.mark.parametrize("arguments", ["[1]", '"Paris"', "3", "", None])
def test_only_objects_become_mappings(arguments):
    messages = [USER, {"role": "assistant", "content": "", "tool_calls": [call(arguments)]}]
    assert with_mappings(messages) == messages


def test_calls_without_the_wrapping_of_openai():
    bare = {"name": "weather", "arguments": '{"city": "Paris"}'}
    message = {"role": "assistant", "content": "", "tool_calls": [bare]}
    assert tools_as_text([message], [])[0]["content"] == (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    )
    assert with_mappings([message])[0]["tool_calls"] == [
        {"name": "weather", "arguments": {"city": "Paris"}}
    ]


def test_roles_a_template_does_not_write():
    """Tools go to the first message of the user, results into what the user says next."""
    result = {"role": "tool", "content": "21 °C", "tool_call_id": "1"}
    calling = {"role": "assistant", "content": "", "tool_calls": [call({}), call({})]}
    answer = {"role": "assistant", "content": "It is."}
    messages = [USER, calling, result, result, USER, answer, USER]
    before = copy.deepcopy(messages)
    shown = tools_as_text(messages, [TOOL, {"name": "time"}], roles=())
    said = "<tool_response>\n21 °C\n</tool_response>"
    assert [message["role"] for message in shown] == ["user", "assistant"] * 2 + ["user"]
    assert shown[0]["content"] == f"{BLOCK}\n\nHi"
    assert shown[2] == {"role": "user", "content": f"{said}\n{said}\nHi"}
    assert shown[3:] == [answer, USER] and messages == before
    two = tools_as_text([USER, USER, answer], [], roles=())
    assert two == [USER, USER, answer]  # only results are joined
    system = {"role": "system", "content": "Be kind."}
    assert tools_as_text([system, USER], [{"name": "time"}], roles=())[0]["role"] == "system"
