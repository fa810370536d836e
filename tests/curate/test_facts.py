"""Plain facts: said to differ when they plainly do, and not before."""

import pytest

from sft.curate.facts import compare
from sft.data.rows.conversation import Conversation, Message, Origin
from sft.texts.languages import language

ENGLISH = "What is the best way to cook rice for two of my friends, and how long?"
GERMAN = "Was ist die beste Art, Reis für zwei Freunde zu kochen, und wie lange?"


def facts(train, usage, given=None):
    return {fact["name"]: fact for fact in compare(train, usage, given or {})}


def differing(train, usage):
    return [name for name, fact in facts(train, usage).items() if fact["differs"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENGLISH, "English"),
        (GERMAN, "German"),
        ("Quelle est la meilleure façon de cuire le riz pour les amis ?", "French"),
        ("¿Cuál es la mejor forma de cocinar el arroz para los amigos?", "Spanish"),
        ("Qual é a melhor forma de cozinhar o arroz para os meus amigos?", "Portuguese"),
        ("Qual è il modo migliore di cuocere il riso per gli amici?", "Italian"),
        ("Wat is de beste manier om rijst te koken voor mijn vrienden?", "Dutch"),
        ("Jak najlepiej ugotować ryż dla przyjaciół i czy to się robi na parze?", "Polish"),
        ("Vad är det bästa sättet att koka ris för mina vänner och hur gör jag?", "Swedish"),
        ("Как лучше всего сварить рис?", "Cyrillic"),
        ("怎样煮米饭最好", "Chinese"),
        ("お米の炊き方を教えてください", "Japanese"),
        ("밥을 짓는 가장 좋은 방법은?", "Korean"),
        ("ما هي أفضل طريقة لطهي الأرز؟", "Arabic"),
        ("def f(x): return x", "unknown"),
        ("12 + 4", "unknown"),
        ("", "unknown"),
    ],
)
def test_language(text, expected):
    assert language(text) == expected


def test_real_prompts_are_english(real):
    for name in ("alpaca", "gsm8k"):
        found = [language(prompt) for prompt, _ in real(name)[:500]]
        assert found.count("English") > 0.75 * len(found)
        assert sum(name not in ("English", "unknown") for name in found) < 0.02 * len(found)


def test_alike_sides_differ_in_nothing(rows):
    train, usage = rows([ENGLISH] * 20), rows([f"Please, {ENGLISH}"] * 20)
    assert differing(train, usage) == []
    assert [*facts(train, usage)] == ["length", "language", "turns", "system_prompt"]


def test_length(rows):
    short, long = rows(["rice " * 5] * 20), rows(["rice " * 20] * 20)
    assert differing(short, long) == differing(long, short) == ["length"]
    fact = facts(short, long)["length"]
    assert (fact["train"], fact["usage"]) == (25, 100)
    assert fact["message"] == ("prompts have 25 characters in training and 100 in usage (median)")
    mixed = rows(["rice " * (5 if i % 2 else 40) for i in range(20)])
    assert differing(mixed, long) == []  # training has both
    assert differing(short, long[:7]) == []  # too few to say


def test_language_of_usage_that_training_lacks(rows):
    train = rows([ENGLISH] * 40)
    usage = rows([GERMAN] * 5 + [ENGLISH] * 15)
    fact = facts(train, usage)["language"]
    assert fact["differs"] and (fact["train"], fact["usage"]) == ("English", "English")
    assert fact["message"].startswith("5 of 20 usage prompts are in German")
    assert differing(rows([ENGLISH] * 40 + [GERMAN] * 2), usage) == []
    assert differing(train, rows([GERMAN] * 2 + [ENGLISH] * 18)) == []
    assert facts(train, rows(["12 + 4"] * 10))["language"]["usage"] == "unknown"


def talk(turns):
    messages = []
    for i in range(turns):
        messages += [Message("user", ENGLISH), Message("assistant", f"{i}", weight=1.0)]
    return Conversation(tuple(messages), Origin("f", 1))


def test_turns():
    single, several = [talk(1)] * 20, [talk(1)] * 10 + [talk(2)] * 10
    assert differing(single, several) == ["turns"]
    assert facts(single, several)["turns"]["usage"] == 0.5
    assert differing(several, single) == []
    assert "length" in differing([talk(4)] * 20, single)


def test_system_prompt(row):
    none = [row(ENGLISH) for _ in range(20)]
    some, other = (
        [row(ENGLISH, system=text) for _ in range(20)] for text in ("Be kind.", "Be brief.")
    )
    assert differing(none, some) == differing(some, none) == ["system_prompt"]
    assert differing(some, some) == []
    fact = facts(some, other)["system_prompt"]
    assert fact["differs"]
    assert fact["message"] == "the system prompt is 'Be kind.' in training and 'Be brief.' in usage"
    many = [row(ENGLISH, system=f"You are number {i}.") for i in range(20)]
    assert differing(many, some) == []
    assert differing(none[:7], some) == []


def test_given_facts(rows):
    sides = rows([ENGLISH] * 10)
    found = facts(sides, sides, {"template": ("abc", "abd"), "stop": (1, 1)})
    assert found["template"] == {
        "name": "template",
        "train": "abc",
        "usage": "abd",
        "differs": True,
        "message": "template: training and usage have not the same",
    }
    assert not found["stop"]["differs"]
