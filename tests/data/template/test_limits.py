"""Chat templates as attacks: refused before they are rendered here, in little time and memory."""

import resource
import time

import pytest

import tiny
from sft.data.template.chat_template import ChatTemplate
from sft.data.template.limits import MAX_TEMPLATE, check_limits
from sft.errors import SFTError, TemplateError

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
OVER_TIME = {
    "loops": LOOPS,
    "loops over letters": "{% for m in messages %}{% for a in m.content %}{% for b in m.content %}"
    + "{% endfor %}" * 3,
    "only long ones": f"{{% if messages | length > 9 %}}{LOOPS}{{% endif %}}",
    "only with tools": f"{{% if tools %}}{LOOPS}{{% endif %}}",
}
OVER_MEMORY = {
    "doubling": "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a ~ a %}" * 40,
    "product": "{% set a = 'x' * 10 ** 10 %}",
    "at compile time": "{{ 'x' * 10 ** 9 }}",
    "format": "{{ '%1000000000d' % 1 }}",
    "filter": "{{ 'x' | center(1000000000) }}",
    "replace": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
}
OVER_OUTPUT = {
    "many pieces": "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "one piece": "{{ 'x' * (messages | length * 10 ** 7) }}",
}
CASES = [
    *((text, "needs more than 2 seconds of computing time") for text in OVER_TIME.values()),
    *((text, "needs more than 512 MB of memory") for text in OVER_MEMORY.values()),
    *((text, "writes more than 10 MB") for text in OVER_OUTPUT.values()),
    ("x" * (MAX_TEMPLATE + 1), "has 1,000,001 characters, more than 1,000,000"),
]


def spent():
    """Seconds of computing of this process, and of its children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time(), children.ru_utime + children.ru_stime


@pytest.mark.parametrize(
    ("text", "problem"), CASES, ids=[*OVER_TIME, *OVER_MEMORY, *OVER_OUTPUT, "size"]
)
def test_a_bomb_is_refused_with_its_source(text, problem):
    here, children = spent()
    tokenizer = tiny.tokenizer(text)
    tokenizer.name_or_path = "someone/model"
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(tokenizer)
    message = str(caught.value)
    assert message.startswith("the chat template of someone/model (sha256 ") and problem in message
    assert "set model.template to chatml, plain or the path of another" in message
    after_here, after_children = spent()
    assert after_here - here < 1 and after_children - children < 3.5


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('touch PWNED').read() }}",
    "{{ joiner.__init__.__globals__['os'].system('touch PWNED') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].popen('touch PWNED').read() }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__ }}",
    "{{ dict.__base__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ messages|map(attribute='__class__')|first }}",
    "{{ '{0.__class__}'.format('') }}{{ ('{0.__class__.__init__.__globals__}').format(messages) }}",
    "{{ 'x'.format_map({'x': messages}).__class__ }}",
    "{% for c in ().__class__.__bases__ %}{{ c }}{% endfor %}",
    "{{ messages.clear() }}",
    "{{ messages[0].update({'content': 'x'}) }}",
    "{% import 'os' as os %}{{ os.system('touch PWNED') }}",
    "{% include '/etc/passwd' %}",
    "{{ request.application.__globals__ }}",
    "{{ config.items() }}",
]


@pytest.mark.parametrize("payload", ESCAPES)
def test_no_template_escapes_from_its_sandbox(payload, tmp_path, monkeypatch):
    """An error, or text that tells nothing: no class, no module, no file."""
    monkeypatch.chdir(tmp_path)
    tokenizer = tiny.tokenizer(payload + tiny.CHATML)
    try:
        text = ChatTemplate(tokenizer).render([{"role": "user", "content": "Hi"}])
    except SFTError:
        text = ""
    assert "<class" not in text and "__builtins__" not in text and "root:" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_template_is_tried_out_once(monkeypatch):
    text = "{# met for the first time #}" + tiny.CHATML
    before = spent()[1]
    check_limits(text, "a", {})
    first = spent()[1] - before
    check_limits(text, "b", {})
    assert 0 < first == spent()[1] - before
    assert first < 1  # a tenth of a second when nothing else runs
