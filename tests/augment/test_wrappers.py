"""Templates and system messages: the prompt stays whole, and no task is taken away."""

import random

import pytest

from sft.augment.wrappers import (
    SYSTEM_MESSAGES,
    TEMPLATES,
    is_generic,
    kind_of,
    read_lines,
    read_templates,
    system_prompt,
    template,
)
from sft.errors import ConfigError


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("What is it?", "question"), ("it works, right?", "question"), ("How to tie a", "question"),
        ("Write a poem.", "imperative"), ("please help", "imperative"),
        ("Summarise: is it good?", "imperative"), ("My kettle leaks.", "statement"),
        ("Issue with the bill", "statement"), ("Whatever you say.", "statement"),
    ],
)  # fmt: skip
def test_kinds(prompt, kind):
    assert kind_of(prompt) == kind


def test_the_prompt_is_in_the_template_unchanged(row):
    prompt = "Say {prompt} and {x} twice?\nThen stop."
    made = [template(row(prompt), random.Random(seed)) for seed in range(99)]
    texts = {change.messages[0].content for change in made}
    assert texts == {t.replace("{prompt}", prompt) for t in TEMPLATES[kind_of(prompt)]}
    assert all(t.count("{prompt}") == 1 for texts in TEMPLATES.values() for t in texts)
    assert all(change.messages[1:] == row(prompt).messages[1:] for change in made)


def test_own_templates(row, tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("Q: {prompt}\\nA:\n\n  Do: {prompt}\n", encoding="utf-8")
    templates = read_templates(str(path))
    texts = {template(row("go"), random.Random(s), templates).messages[0].content for s in range(9)}
    assert texts == {"Q: go\nA:", "Do: go"}
    path.write_text("Q: {prompt}\nno place\n")
    with pytest.raises(ConfigError, match=r"template 2 must hold \{prompt\} once"):
        read_templates(str(path))
    path.write_text("\n")
    with pytest.raises(ConfigError, match="holds no system messages"):
        read_lines(str(path), what="system messages")
    with pytest.raises(ConfigError, match="cannot be read as templates"):
        read_templates(str(tmp_path / "none.txt"))


def test_system_messages_come_and_go(row):
    bare, generic = row("go"), row("go", system="You are a helpful assistant.")
    for talk, now in ((bare, "(none)"), (generic, "You are a helpful assistant.")):
        found = {_system(system_prompt(talk, random.Random(seed))) for seed in range(60)}
        assert found == set(SYSTEM_MESSAGES) - {now}


def _system(change):
    first = change.messages[0]
    assert [m.role for m in change.messages if m.role != "system"] == ["user", "assistant"]
    return first.content if first.role == "system" else "(none)"


@pytest.mark.parametrize(
    ("system", "generic"),
    [
        ("You are a helpful AI assistant named SmolLM, trained by Hugging Face", True),
        ("You are a helpful, honest and harmless assistant.", True),
        ("You are an assistant that answers in JSON.", False),
        ("You are a JSON assistant.", False),
        ("Answer with one JSON record.", False),
        ("You are a helpful assistant. Answer in French.", False),
    ],
)
def test_a_system_message_with_a_task_stays(row, system, generic):
    assert is_generic(system) == generic
    change = system_prompt(row("go", system=system), random.Random(0))
    assert bool(change.messages) == generic
    assert generic or "says what to do; give --system-prompts" in change.reason


def test_own_system_messages_replace_any(row):
    talk = row("go", system="Answer with one JSON record.")
    systems = ["One JSON record, please.", "(none)", "Answer with one JSON record."]
    found = {_system(system_prompt(talk, random.Random(s), systems)) for s in range(30)}
    assert found == set(systems[:2])
    assert system_prompt(talk, random.Random(0), systems[2:]).reason.startswith("there is no other")
