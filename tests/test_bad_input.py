"""What users get wrong: one clear message, the right exit code, and no traceback."""

import errno
import gzip
import math
import os
import shutil
import subprocess

import pytest
from safetensors.torch import load_file, save_file

from sft.errors import DiskError
from sft.runs.run_dir import RunDir
from sft.terminal.console import Console
from sft.training.checkpoint import find_checkpoints, verify_checkpoint
from trained import Outcome, Trained, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def here(world, monkeypatch):
    monkeypatch.chdir(world)


def run(*args):
    """Train on `rows.jsonl` with `args`, which win."""
    names = {"--model": "llama", "--data": "rows.jsonl", "--run": "run", "--max-steps": "2"}
    given = [word for name, value in names.items() if name not in args for word in (name, value)]
    return Outcome("train", *given, *args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--set", "optim.lerning_rate=1"], "optim.lerning_rate: unknown key. Did you mean 'learn"),
        (["--set", "optimm.epochs=1"], "optimm: unknown key. Did you mean 'optim'?"),
        (["--set", "optim.epochs=many"], "optim.epochs: Input should be a valid number"),
        (["--set", "optim.epochs=-1"], "optim.epochs: Input should be greater than 0 (found -1)"),
        (
            ["--set", "optim.schedule=cosin"],
            "optim.schedule: 'cosin' is not one of constant, cosine, linear, wsd. Did you mean",
        ),
        (["--set", "optim.epochs"], "--set optim.epochs: expected section.key=value"),
        (["--set", "epochs=1"], "epochs: expected section.key, such as optim.learning_rate"),
        (["--set", "data.train=["], "--set data.train:1: "),
        (["--max-steps", "0"], "optim.max_steps: Input should be greater than or equal to 1"),
        (["--method", "loar"], "method.kind: Input should be 'full', 'lora' or 'frozen'"),
        (["--method", "frozen"], "method.kind: frozen needs method.trainable"),
        (
            ["--method", "lora", "--set", "method.target_modules=[q_prj]"],
            "this model has no module 'q_prj'. Did you mean 'q_proj'?",
        ),
        (["--data", "row.jsonl"], "row.jsonl: no such file. Did you mean 'rows.jsonl'?"),
        (["--data", "nowhere/rows.jsonl"], "nowhere/rows.jsonl: no such file."),
        (["--val", "rows.json"], "rows.json: no such file. Did you mean 'rows.jsonl'?"),
        (["--data", "llama/chat_template.jinja"], "a file's name must end in one of .jsonl, .json"),
        (["--model", "rows.jsonl"], "rows.jsonl is a file; give the folder that holds config"),
        (["--set", "model.template=chatm"], "'chatm' is neither a file nor one of auto, chatml"),
        (["--set", "data.train=[{path: rows.jsonl, format: alpca}]"], "Did you mean 'alpaca'?"),
    ],
)
def test_a_wrong_setting_is_exit_2(args, message):
    done = run(*args)
    assert done.code == 2
    assert message in done.error()


def test_a_missing_config_file_is_exit_2():
    done = Outcome("train", "confg.yaml")
    assert (done.code, done.error()) == (2, "confg.yaml: no such file\n")


def test_no_data_at_all_is_exit_2():
    done = Outcome("train", "--model", "llama", "--run", "run")
    assert done.code == 2
    assert "no training data. Give it with --data FILE" in done.error()


def without(name):
    return lambda folder: (folder / name).unlink()


def only_a_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def broken_config(folder):
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (without("model.safetensors"), "holds no weights (*.safetensors). Only its configuration"),
        (without("config.json"), "holds no config.json, so it is no model folder"),
        (without("tokenizer.json"), "model.name: 'broken' cannot be loaded"),
        (only_a_pickle, "It holds pytorch_model.bin, a pickle, which sft does not open"),
        (broken_config, "is not a valid JSON file"),
    ],
)
def test_a_broken_model_folder_is_exit_2(world, break_it, message):
    shutil.rmtree(world / "broken", ignore_errors=True)
    shutil.copytree(world / "llama", world / "broken")
    break_it(world / "broken")
    done = run("--model", "broken")
    assert done.code == 2
    assert message in done.error()


ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.mark.parametrize(
    ("text", "args", "message"),
    [
        ("", [], "bad.jsonl: holds no rows"),
        ("\n \n", [], "bad.jsonl: holds no rows"),
        ('{"messages": []}\n' * 3, [], "3 of 3 rows cannot be used"),
        ('{"messages": []}\n', ["--set", "data.on_bad_row=skip"], "no usable row in 1"),
        (ROW * 9 + "{\n", [], "bad.jsonl:10"),
        (ROW + ROW.replace('"b"', "null"), [], "1 of 2 rows cannot be used"),
        ('{"colour": "red"}\n' * 5, [], "colour"),
        (ROW * 20, ["--set", "data.max_seq_len=4"], "every row is longer than data.max_seq_len"),
        (ROW, ["--val", "rows.jsonl"], None),
        (ROW * 20, ["--val", "bad.jsonl"], "all 20 rows of data.val have a prompt that is also"),
    ],
)
def test_data_that_cannot_be_trained_on(world, text, args, message):
    (world / "bad.jsonl").write_text(text)
    done = run("--data", "bad.jsonl", *args)
    if message is None:
        assert done.code == 2
        assert "data.val has 60 rows and data.train 1: validation is larger" in done.error()
    else:
        assert done.code == 3
        assert message in done.error()


def bomb(world):
    (world / "bomb.jsonl.gz").write_bytes(gzip.compress(b"\n" * 10_000_000))
    return ["--data", "bomb.jsonl.gz"]


def pipe(world):
    os.mkfifo(world / "pipe.jsonl")
    return ["--data", "pipe.jsonl"]


def pipe_of_settings(world):
    os.mkfifo(world / "pipe.yaml")
    return ["pipe.yaml"]


def latin_template(world):
    (world / "latin.jinja").write_bytes(b"{{ messages }}\xe9")
    return ["--set", "model.template=latin.jinja"]


def looping_template(world):
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (world / "loops.jinja").write_text(loops)
    return ["--set", "model.template=loops.jinja"]


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (bomb, 3, "bomb.jsonl.gz: "),
        (pipe, 3, "pipe.jsonl: is a named pipe, and a regular file is needed"),
        (pipe_of_settings, 2, "pipe.yaml: cannot be read: it is not a regular file"),
        (latin_template, 2, "model.template: latin.jinja: cannot be read as UTF-8 text"),
        (looping_template, 3, "needs more than 2 seconds of computing time for a conversation"),
    ],
)
def test_files_that_never_end_are_refused(world, make, code, message):
    done = run(*make(world))
    assert done.code == code
    assert message in done.error()


def test_when_every_row_is_too_long_the_length_that_is_enough_is_named():
    done = run("--set", "data.max_seq_len=9", "--run", "short")
    assert done.code == 3
    needed = done.error().strip().rpartition("--set ")[2]
    assert needed.startswith("data.max_seq_len=")
    assert run("--set", needed, "--run", "enough").code == 0


def test_a_file_in_the_way_of_the_run_folder(world):
    (world / "file").write_text("mine")
    for path in ("file", "file/below"):
        done = run("--run", path)
        assert done.code == 2
        assert "choose another --run" in done.error()
    assert (world / "file").read_text() == "mine"


def test_a_folder_that_is_no_run_is_not_touched(world):
    (world / "thesis").mkdir()
    (world / "thesis" / "chapter.txt").write_text("years of work")
    done = run("--run", "thesis")
    assert done.code == 2
    assert "holds files, but no run (no config.yaml); nothing was touched" in done.error()
    assert [path.name for path in (world / "thesis").iterdir()] == ["chapter.txt"]


def test_a_run_folder_in_use(world):
    with RunDir.open(world / "busy"):
        done = run("--run", "busy")
    assert done.code == 2
    assert f"run folder in use by process {os.getpid()} on " in done.error()


@pytest.fixture
def disk(world):
    """A disk of two megabytes."""
    folder = world / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        folder.rmdir()
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


def fill(disk, leave=0):
    with pytest.raises(OSError) as caught, open(disk / "ballast", "ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    assert caught.value.errno == errno.ENOSPC
    os.truncate(disk / "ballast", (disk / "ballast").stat().st_size - leave)


def test_a_read_only_disk_is_exit_7(disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = run("--run", "disk/run")
    assert done.code == 7
    assert "the file system is read-only; choose another --run" in done.error()


@pytest.mark.parametrize("free", [0, 65536])
def test_a_disk_that_is_too_small_is_told_before_training(disk, free):
    fill(disk, free)
    done = run("--run", "disk/run")
    assert done.code == 7
    assert "step 1" not in done.err
    assert ("are free; free some space" if free else "the disk is full") in done.error()


class Filler(Console):
    """Fills the disk when the run shows `event` for the `number`th time."""

    def __init__(self, disk, event, number, out):
        super().__init__(out)
        self.disk, self.event, self.number = disk, event, number

    def evaluate(self, record):
        super().evaluate(record)
        self._count("evaluation")

    def step(self, record):
        super().step(record)
        self._count("step")

    def _count(self, event):
        self.number -= event == self.event
        if self.number == 0:
            fill(self.disk)
            self.number = -1


@pytest.mark.parametrize(
    ("event", "number"),
    [("evaluation", 1), ("step", 1), ("step", 5), ("evaluation", 2), ("evaluation", 4)],
)
def test_a_disk_that_fills_up_loses_nothing(world, disk, event, number, monkeypatch, whole):
    monkeypatch.setattr("trained.Console", lambda out: Filler(disk, event, number, out))
    with pytest.raises(DiskError) as caught:
        Trained(world, "disk/run", checkpoint__keep=1)
    assert caught.value.exit_code == 7
    assert "the disk is full" in str(caught.value) and "free some space" in str(caught.value)
    checkpoints = disk / "run" / "checkpoints"
    for _, path in find_checkpoints(checkpoints):
        verify_checkpoint(path)
    assert not [path for path in disk.rglob(".tmp-*")]
    monkeypatch.undo()
    (disk / "ballast").unlink()
    os.chdir(world)
    again = Trained(world, "disk/run", checkpoint__keep=1)
    assert again.digest == whole.digest
    assert [r["loss"] for r in again.steps] == [r["loss"] for r in whole.steps]


@pytest.fixture(scope="module")
def whole(world):
    return Trained(world, "whole", checkpoint__keep=1)


def saved_tensors(folder):
    for _, path in find_checkpoints(folder / "checkpoints"):
        for file in path.glob("*.safetensors"):
            for name, tensor in load_file(file).items():
                yield f"{path.name}/{name}", tensor


def all_finite(folder):
    return [name for name, tensor in saved_tensors(folder) if not tensor.isfinite().all()] == []


def test_a_rate_that_is_far_too_high_is_exit_5_and_saves_no_nan(world):
    flags = ["--set", "optim.learning_rate=1e30", "--set", "checkpoint.every=1"]
    done = run(*flags, "--max-steps", "5", "--run", "nan")
    assert done.code == 5
    error = done.error()
    assert error.startswith("step 2: the ")
    assert "stopped before the update, so the weights are those of step 1" in error
    assert "Rows: rows.jsonl:" in error and "learning rate that is too high" in error
    assert len(list(saved_tensors(world / "nan"))) > 20
    assert all_finite(world / "nan")
    assert not (world / "nan" / "model").exists()
    again = run(*flags, "--max-steps", "5", "--run", "nan")
    assert again.code == 5  # and it does not get better by itself


@pytest.mark.parametrize("val_fraction", ["auto", "0"])
def test_an_update_to_infinity_in_the_last_step_is_exit_5(world, val_fraction):
    name = f"infinite-{val_fraction}"
    settings = ["--set", "optim.learning_rate=1e39", "--set", f"data.val_fraction={val_fraction}"]
    done = run(*settings, "--max-steps", "1", "--run", name)
    assert done.code == 5
    error = done.error()
    what = "val_loss is nan" if val_fraction == "auto" else "is not finite after the update"
    assert error.startswith("step 1: ") and what in error and "not saved" in error
    assert all_finite(world / name)
    assert not (world / name / "model").exists()


def test_a_model_with_nan_in_its_weights_is_exit_5_before_training(world):
    shutil.copytree(world / "llama", world / "nan-model")
    tensors = load_file(world / "llama" / "model.safetensors")
    tensors["model.norm.weight"][3] = math.nan
    save_file(tensors, world / "nan-model" / "model.safetensors", {"format": "pt"})
    done = run("--model", "nan-model", "--run", "nan-run")
    assert done.code == 5
    assert done.error().startswith("step 0: model.norm.weight of the base model is not finite")
    assert "a broken model file" in done.error()
    assert not (world / "nan-run" / "checkpoints").exists()


def test_the_weights_of_a_good_run_are_what_these_tests_eval_at(whole):
    tensors = dict(saved_tensors(whole.path))
    assert any(name.endswith("embed_tokens.weight") for name in tensors)
    assert all_finite(whole.path)
