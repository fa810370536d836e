import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import click
import pytest
import yaml

import sft.errors
from sft.cli import cli
from sft.errors import Interrupted, SFTError
from trained import Outcome, make_world, write_rows

FLAGS = [
    "--model",
    "--data",
    "--val",
    "--usage",
    "--run",
    "--max-steps",
    "--seed",
    "--method",
    "--set",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def here(world, monkeypatch):
    monkeypatch.chdir(world)


@pytest.mark.parametrize("command", [["sft"], [sys.executable, "-m", "sft"]])
def test_the_installed_command_and_the_module_are_the_same(command):
    if command == ["sft"]:
        command = [os.path.join(os.path.dirname(sys.executable), "sft")]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == Outcome("--help").out
    bad = subprocess.run([*command, "train", "x.yaml"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "error: x.yaml: no such file\n"


def test_help_lists_every_command_and_flag():
    shown = Outcome("--help")
    assert shown.code == 0
    for command in cli.commands:
        assert f"\n  {command} " in shown.out
    for command in ("train", "check"):
        text = Outcome(command, "--help").out
        assert [flag for flag in FLAGS if f"\n  {flag} " not in text] == []
        assert len(text.splitlines()) <= 40
    assert Outcome("train", "-h").out == Outcome("train", "--help").out


def test_every_option_says_what_it_does():
    for name, command in cli.commands.items():
        assert command.help, name
        undocumented = [
            parameter.name
            for parameter in command.params
            if isinstance(parameter, click.Option)
            and not (parameter.help or parameter.show_default)
        ]
        assert undocumented == []


def test_version():
    assert Outcome("--version").out == f"sft, version {version('sft')}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "--max-steps", "x"], "'x' is not a valid integer"),
        (["train", "--max-step", "3"], "Did you mean '--max-steps'?"),
        (["train", "--nope"], "No such option '--nope'"),
        (["nope"], "No such command 'nope'"),
        (["check", "--rows", "-1"], "-1 is not in the range x>=0"),
        (["train", "a.yaml", "b.yaml"], "unexpected extra argument"),
        ([], "Commands:"),
    ],
)
def test_a_wrong_call_is_exit_2_with_usage(args, message):
    done = Outcome(*args)
    assert (done.code, done.out) == (2, "")
    assert message in done.err and "Usage: sft" in done.err and "Traceback" not in done.err


def saved(run):
    with open(f"{run}/config.yaml") as file:
        return yaml.safe_load(file)["config"]


def test_flags_end_up_in_the_run_and_stdout_holds_the_result_only(world):
    write_rows(world / "more.jsonl", 10, lambda q, _: "yes", seed=4)
    write_rows(world / "held-out.jsonl", 5, lambda q, _: "no", seed=5)
    (world / "prompts.jsonl").write_text('{"prompt": "one?"}\n{"prompt": "two?"}\n')
    done = Outcome(
        *["train", "--model", "llama", "--data", "rows.jsonl", "--data", "more.jsonl"],
        *["--val", "held-out.jsonl", "--run", "flags", "--max-steps", "2", "--seed", "3"],
        *["--usage", "prompts.jsonl", "--usage", "held-out.jsonl"],
        *["--method", "lora", "--set", "optim.learning_rate=1e-3", "--set", "eval.every=2"],
    )
    assert (done.code, done.out) == (0, "flags/model\n")
    assert "step 2/2" in done.err
    config = saved("flags")
    assert config["model"]["name"] == "llama"
    assert [source["path"] for source in config["data"]["train"]] == ["rows.jsonl", "more.jsonl"]
    assert [source["path"] for source in config["data"]["val"]] == ["held-out.jsonl"]
    usage = [source["path"] for source in config["data"]["usage"]]
    assert usage == ["prompts.jsonl", "held-out.jsonl"]
    assert (config["optim"]["max_steps"], config["run"]["seed"]) == (2, 3)
    assert (config["method"]["kind"], config["optim"]["learning_rate"]) == ("lora", 1e-3)
    assert (config["eval"]["every"], config["run"]["dir"]) == (2, "flags")


def test_a_file_is_overruled_by_flags_and_those_by_set(world):
    (world / "run.yaml").write_text(
        "model:\n  name: llama\ndata:\n  train: rows.jsonl\n"
        "optim:\n  max_steps: 9\n  learning_rate: 1e-4\nrun:\n  dir: file\n  seed: 1\n"
        "eval:\n  early_stopping: off\n"
    )
    done = Outcome("train", "run.yaml", "--max-steps", "1", "--seed", "2", "--set", "run.seed=4")
    assert (done.code, done.out) == (0, "file/model\n")
    config = saved("file")
    assert config["optim"]["max_steps"] == 1
    assert config["optim"]["learning_rate"] == 1e-4
    assert config["run"]["seed"] == 4
    assert config["eval"]["early_stopping"] == "off"


def test_a_data_file_alone_names_the_run(world):
    done = Outcome("train", "rows.jsonl", "--model", "llama", "--max-steps", "1")
    assert (done.code, done.out) == (0, "runs/llama-rows/model\n")


def error_classes():
    found = [value for value in vars(sft.errors).values() if isinstance(value, type)]
    return [kind for kind in found if issubclass(kind, SFTError) and kind is not SFTError]


@pytest.fixture
def raising():
    """A command of the real command line that raises what it is given."""
    raised = []

    @cli.command("raise-it")
    def command():
        raise raised[0]

    yield raised
    del cli.commands["raise-it"]


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_exit_codes_are_those_of_the_table_in_errors(raising, kind):
    error = kind("what, where, what to do", 15) if kind is Interrupted else kind("message")
    raising.append(error)
    done = Outcome("raise-it")
    assert done.error() == f"{error}\n"
    line = next(text for text in sft.errors.__doc__.splitlines() if kind.__name__ in text)
    documented = [int(word) for word in line.replace(":", "").split() if word.isdigit()]
    documented += [143] if kind is Interrupted else []
    assert done.code in (documented or [3])  # TemplateError is a DataError


@pytest.mark.parametrize(
    "error", [RuntimeError("ours"), AssertionError(), KeyError("x"), OSError(5)]
)
def test_a_fault_of_ours_keeps_its_traceback(raising, error):
    raising.append(error)
    with pytest.raises(type(error)) as caught:
        Outcome("raise-it")
    assert caught.value is error


def test_ctrl_c_outside_of_training_is_no_traceback(raising):
    raising.append(KeyboardInterrupt())
    done = Outcome("raise-it")
    assert (done.code, done.out, done.err.strip()) == (130, "", "stopped")


def test_ctrl_c_while_torch_is_imported():
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sft.cli import main\n"
        "print('ready', flush=True)\n"
        "main(['train', '--model', 'llama', '--data', 'rows.jsonl', '--run', 'never'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err.strip()) == (130, "stopped")
    assert not os.path.exists("never")


def test_the_exit_code_survives_a_terminal_that_is_gone():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sft", "train", "no.yaml"], stderr=full, check=False
        )
    assert done.returncode == 2
