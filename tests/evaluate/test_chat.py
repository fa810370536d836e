import io
import signal
import threading

import pytest
import torch
import yaml

import tiny
from sft.config import load_config
from sft.data.template.chat_template import ChatTemplate
from sft.errors import ConfigError, DataError
from sft.evaluate.chat import chat
from sft.probes.generate import generate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("model"))


def answer_to(*texts, system=None, num_tokens=12):
    """What the tiny model answers to a conversation, not by way of the chat."""
    tokenizer = tiny.tokenizer()
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    prompt = ChatTemplate(tokenizer).prompt_ids(messages)
    (answer,) = generate(tiny.model(), [prompt], max_new_tokens=num_tokens, stop_ids=[4, 2])
    return tokenizer.decode(answer.ids, skip_special_tokens=True)


def talk(folder, monkeypatch, lines, out=None, **options):
    """stdout and stderr of an interactive chat with `lines` piped in."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
    out, err = out or io.StringIO(), io.StringIO()
    chat(folder, None, **{"max_new_tokens": 12, **options}, out=out, err=err)
    return out.getvalue(), err.getvalue()


def shown(text):
    """As a terminal is to get it: line breaks and tabs, no other control characters."""
    return "".join(c if c in "\n\t" or c.isprintable() else "�" for c in text)


def test_one_shot_prints_the_answer_and_nothing_else(folder, capsys):
    chat(folder, "Who jumps?", max_new_tokens=12)
    printed = capsys.readouterr()
    assert printed.out == shown(answer_to("Who jumps?")) + "\n"
    assert len(printed.out) > 10
    assert printed.err == "(cut after 12 tokens; --max-new-tokens allows longer answers)\n"


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    """A model whose first token is ESC: its embedding is swapped with that of the real one."""
    tokenizer, model = tiny.tokenizer(), tiny.model()
    prompt = ChatTemplate(tokenizer).prompt_ids([{"role": "user", "content": "Hi"}])
    (answer,) = generate(model, [prompt], max_new_tokens=1, stop_ids=[4, 2])
    (escape,) = tokenizer("\x1b")["input_ids"]
    assert not {escape, answer.ids[0]} & {*prompt}
    swap = [escape, answer.ids[0]]
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[swap] = weight[swap[::-1]].clone()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    out = io.StringIO()
    chat(tmp_path, "Hi", max_new_tokens=4, out=out, err=io.StringIO())
    assert out.getvalue().startswith("�")
    assert "\x1b" not in out.getvalue()


def test_a_run_folder_means_its_model(folder, tmp_path):
    tiny.save(tmp_path / "model")
    config = load_config({"model": {"name": "no/such-base"}}).model_dump(mode="json")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"config": config}))
    of_run, of_model = io.StringIO(), io.StringIO()
    chat(tmp_path, "Hi", max_new_tokens=6, out=of_run, err=io.StringIO())
    chat(folder, "Hi", max_new_tokens=6, out=of_model, err=io.StringIO())
    assert of_run.getvalue() == of_model.getvalue()


def test_a_run_without_a_model_is_an_error(tmp_path):
    (tmp_path / "config.yaml").write_text("config: {}\n")
    with pytest.raises(ConfigError, match="no model yet"):
        chat(tmp_path, "Hi")


def test_a_system_message_is_sent_only_when_given(folder):
    out = io.StringIO()
    chat(folder, "Hi", system="Answer!", max_new_tokens=12, out=out, err=io.StringIO())
    assert out.getvalue() == shown(answer_to("Hi", system="Answer!")) + "\n"
    assert answer_to("Hi", system="Answer!") != answer_to("Hi")


def test_a_conversation_remembers_until_reset(folder, monkeypatch):
    first = answer_to("Hi")
    second = answer_to("Hi", first, "And then?")
    assert second != answer_to("And then?")
    out, err = talk(
        folder, monkeypatch, ["Hi", "", "And then?", "/reset", "And then?", "/exit", "Hi"]
    )
    assert out == "".join(shown(a) + "\n" for a in (first, second, answer_to("And then?")))
    assert "(forgotten)" in err
    assert err.count("(cut after 12 tokens") == 3


def test_commands(folder, monkeypatch):
    out, err = talk(folder, monkeypatch, ["/system Answer!", "Hi", "/resett", "/system"])
    assert out == shown(answer_to("Hi", system="Answer!")) + "\n"
    assert "(system message set)" in err
    assert "/resett: no such command. /reset forgets" in err
    assert "(no system message)" in err


def test_sampling_follows_the_seed(folder):
    def sample(seed):
        out = io.StringIO()
        chat(folder, "Hi", max_new_tokens=12, temperature=1.0, seed=seed, out=out, err=out)
        return out.getvalue()

    assert sample(1) == sample(1) != sample(2)


class PressesCtrlC(io.StringIO):
    """Gets SIGINT, as from a terminal, when the first piece of an answer is written."""

    pressed = False

    def write(self, text):
        count = super().write(text)
        if not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)
        return count


@pytest.fixture
def ctrl_c():
    """As in a terminal, also where this process was started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_the_answer_and_not_the_program(folder, monkeypatch):
    out, err = talk(folder, monkeypatch, ["Hi", "/reset", "Hi"], PressesCtrlC(), max_new_tokens=220)
    whole = shown(answer_to("Hi", num_tokens=220))
    cut, _, rest = out.partition("\n" + whole[:1])
    assert rest.endswith(whole[1:] + "\n")
    assert whole.startswith(cut.rstrip("\n")) and len(cut) < len(whole)
    assert "(stopped)" in err
    assert "sft-answer" not in [thread.name for thread in threading.enumerate()]


def test_a_conversation_too_long_for_the_model_is_said_and_can_go_on(folder, monkeypatch):
    out, err = talk(folder, monkeypatch, ["Why? " * 300, "Hi"])
    assert "leaves no room for an answer" in err and "/reset" in err
    assert out == shown(answer_to("Hi")) + "\n"
    with pytest.raises(DataError, match="leaves no room"):
        chat(folder, "Why? " * 300)


def test_special_tokens_typed_by_the_user_are_text(folder, monkeypatch):
    out, _ = talk(folder, monkeypatch, ["a<|im_end|>b"])
    assert out == shown(answer_to("a<|im_end|>b")) + "\n"
