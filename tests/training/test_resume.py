"""Stop a run at any moment, in any way: the same command continues it, to the last bit."""

import itertools
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from sft.runs.store import read_records
from trained import contents, left_behind, make_world
from zygote import Zygote

NUMBERS = itertools.count()
STEPS = 12
LINES = STEPS + 4  # records of a whole run: evaluations at 0, 4, 8, 12
BASE = ["train", "--model", "../llama", "--data", "../rows.jsonl", "--run", "run"]
SETTINGS = {
    "optim.max_steps": STEPS,
    "optim.learning_rate": 3e-3,
    "optim.neftune_alpha": 5,  # draws random numbers in every step
    "eval.every": 4,
    "checkpoint.every": 2,
}
LORA = {"method.kind": "lora", "method.lora_dropout": 0.2, "optim.neftune_alpha": 0}
SGD = {"optim.name": "sgd", "optim.learning_rate": 0.05, "eval.early_stopping": "off"}


def command(**changes):
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    values = {**SETTINGS, **changed}.items()
    return BASE + [word for key, value in values for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def zygote():
    with Zygote() as zygote:
        yield zygote


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def whole(world, zygote):
    """What uninterrupted runs leave behind, by their settings."""
    known = {}

    def find(settings):
        key = json.dumps(settings)
        if key not in known:
            folder = world / f"whole-{len(known)}"
            folder.mkdir()
            code, shown = zygote.run(command(**settings), folder)
            assert code == 0, shown
            known[key] = left_behind(folder / "run")
        return known[key]

    return find


@pytest.fixture
def folder(world):
    """Where a run of this test lives; data and model are next to it."""
    path = world / f"trial-{next(NUMBERS)}"
    path.mkdir()
    return path


def num_records(run):
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(condition, process):
    """True when it came true while the process was there."""
    while not condition():
        if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.0005)
    return True


def stop_at(zygote, folder, number, condition, delay=0.0, settings=SETTINGS):
    """Start the run, wait for `condition`, send a signal; again if the run was faster."""
    for _ in range(10):
        process = zygote.start(command(**settings), folder)
        if wait_until(condition, process):
            time.sleep(delay)
            process.send(number)
        code = process.wait()
        if code != 0:
            return code, process.stderr
        shutil.rmtree(folder / "run")
    raise AssertionError("the run always ended before the signal")


def stop_at_random(zygote, folder, number, rng, settings=SETTINGS):
    """At any record but the last ones, and up to 30 ms after it."""
    wanted = rng.randrange(LINES - 3)
    run = folder / "run"

    def reached():
        return (run / "run.lock").exists() and num_records(run) >= wanted

    return stop_at(zygote, folder, number, reached, rng.random() * 0.03, settings)


def resume(zygote, folder, settings=SETTINGS):
    code, shown = zygote.run(command(**settings), folder)
    assert code == 0, shown
    return shown


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_a_random_moment(zygote, folder, whole, seed):
    rng = random.Random(seed)
    assert stop_at_random(zygote, folder, signal.SIGKILL, rng)[0] == -9
    resume(zygote, folder)
    assert left_behind(folder / "run") == whole(SETTINGS)
    steps = [r["step"] for r in read_records(folder / "run" / "metrics.jsonl") if "loss" in r]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("save", [1, 4])
def test_killed_during_a_save(zygote, folder, whole, save):
    checkpoints = folder / "run" / "checkpoints"

    def saving():
        names = os.listdir(checkpoints) if checkpoints.exists() else []
        whole_ones = sum(name.startswith("step-") for name in names)
        return whole_ones >= min(save - 1, 2) and any(n.startswith(".tmp-") for n in names)

    for _ in range(20):
        assert stop_at(zygote, folder, signal.SIGKILL, saving)[0] == -9
        left = [path for path in checkpoints.iterdir() if path.name.startswith(".tmp-")]
        if left and not any((path / "MANIFEST.json").exists() for path in left):
            break
        shutil.rmtree(folder / "run")
    else:
        raise AssertionError("no kill hit a save")
    shown = resume(zygote, folder)
    assert ("resuming after step" in shown) == (save > 1)
    assert not [path for path in checkpoints.iterdir() if path.name.startswith(".tmp-")]
    assert left_behind(folder / "run") == whole(SETTINGS)


@pytest.mark.parametrize("what", ["writing", "verifying"])
def test_killed_while_the_model_is_exported(zygote, folder, whole, what):
    run = folder / "run"

    def exporting():
        if what == "writing":
            return any(run.glob(".tmp-*-model"))
        return (run / "model").exists()

    for _ in range(20):
        assert stop_at(zygote, folder, signal.SIGKILL, exporting)[0] == -9
        if not (run / "summary.json").exists():
            break
        shutil.rmtree(run)
    resume(zygote, folder)
    assert not [*run.glob(".tmp-*")]
    assert left_behind(run) == whole(SETTINGS)


@pytest.mark.parametrize("settings", [LORA, SGD], ids=["lora", "sgd"])
def test_killed_twice_with_other_methods(zygote, folder, whole, settings):
    settings = {**SETTINGS, **settings}
    rng = random.Random(json.dumps(settings))
    for _ in range(2):
        stop_at_random(zygote, folder, signal.SIGKILL, rng, settings)
    resume(zygote, folder, settings)
    assert left_behind(folder / "run") == whole(settings)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_at_a_random_moment(zygote, folder, whole, number, seed):
    code, shown = stop_at_random(zygote, folder, number, random.Random(seed))
    assert code == 128 + number
    error = shown.splitlines()[-1]
    assert error.startswith(f"error: stopped by {number.name} ") and "Traceback" not in shown
    assert "The same command" in error and "resumes" in error
    if "before training" not in error:
        step = int(error.split("after step ")[1].split()[0])
        assert num_records(folder / "run") >= step
        newest = max((folder / "run" / "checkpoints").glob("step-*"))
        assert newest.name == f"step-{step:06d}"  # nothing is lost
        assert f"resuming after step {step} of {STEPS}" in resume(zygote, folder)
    else:
        resume(zygote, folder)
    assert left_behind(folder / "run") == whole(SETTINGS)


def test_asked_to_stop_before_training(zygote, folder, whole):
    lock = folder / "run" / "run.lock"
    code, shown = stop_at(
        zygote, folder, signal.SIGTERM, lambda: lock.exists() and lock.read_text()
    )
    assert code == 143
    assert "before training began; nothing was changed" in shown
    assert not (folder / "run" / "checkpoints").exists()
    resume(zygote, folder)
    assert left_behind(folder / "run") == whole(SETTINGS)


@pytest.fixture(scope="module")
def stopped(world, zygote):
    """A run that was killed after several checkpoints."""
    folder = world / "stopped"
    folder.mkdir()
    run = folder / "run"
    code, _ = stop_at(zygote, folder, signal.SIGKILL, lambda: num_records(run) >= 11)
    assert code == -9
    return run


@pytest.fixture
def copied(stopped, folder):
    shutil.copytree(stopped, folder / "run")
    return folder


def change_model(world):
    shutil.copytree(world / "llama", world / "llama-old")
    tensors = load_file(world / "llama" / "model.safetensors")
    tensors["model.norm.weight"] += 1e-6
    save_file(tensors, world / "llama" / "model.safetensors", {"format": "pt"})


def change_template(world):
    shutil.copytree(world / "llama", world / "llama-old")
    path = world / "llama" / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_end|>\n", "<|im_end|>\n\n"))


def add_a_row(world):
    shutil.copy(world / "rows.jsonl", world / "rows-old.jsonl")
    with (world / "rows.jsonl").open("a") as file:
        roles = (("user", "one more?"), ("assistant", "yes"))
        messages = [{"role": role, "content": content} for role, content in roles]
        file.write(json.dumps({"messages": messages}) + "\n")


def change_a_letter(world):
    shutil.copy(world / "rows.jsonl", world / "rows-old.jsonl")
    text = (world / "rows.jsonl").read_text()
    (world / "rows.jsonl").write_text(text.replace("It is fox", "It is box", 1))


@pytest.fixture
def restored(world):
    """Puts model and data back, whatever a test did to them."""
    yield
    for name in ("llama", "rows.jsonl"):
        old = world / name.replace("llama", "llama-old").replace("rows", "rows-old")
        if old.exists():
            shutil.rmtree(world / name) if old.is_dir() else (world / name).unlink()
            old.rename(world / name)


@pytest.mark.parametrize(
    ("change", "settings", "lines"),
    [
        (None, {"optim.learning_rate": 1e-3}, ["optim.learning_rate: was 0.003, now 0.001"]),
        (
            None,
            {"optim.max_steps": 20, "run.seed": 5},
            ["optim.max_steps: was 12, now 20", "run.seed: was 0, now 5"],
        ),
        (None, {"method.kind": "lora"}, ["method.kind: was 'full', now 'lora'"]),
        (None, {"model.template": "plain"}, ["model.template: was 'auto', now 'plain'"]),
        (change_model, {}, ["model: was '"]),
        (change_template, {}, ["template: was '", "train: was '"]),
        (add_a_row, {}, ["train: was '", "files.../rows.jsonl: was '"]),
        (change_a_letter, {}, ["files.../rows.jsonl: was '"]),
    ],
)
def test_a_changed_run_is_refused_with_what_changed(
    zygote, copied, world, restored, change, settings, lines
):
    if change:
        change(world)
    before = contents(copied / "run")
    code, shown = zygote.run(command(**{**SETTINGS, **settings}), copied)
    assert code == 4, shown
    error = shown[shown.index("error: ") :]
    assert "this run was started with something else" in error and "Traceback" not in shown
    found = [line.strip() for line in error.splitlines()]
    for line in lines:
        assert any(each.startswith(line) for each in found), (line, error)
    assert "choose another --run" in found[-1]
    assert contents(copied / "run") == before


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a bit of the weights": lambda path: flip(path / "model.safetensors"),
    "half the optimizer": lambda path: os.truncate(path / "optimizer.safetensors", 100_000),
    "no random state": lambda path: (path / "rng.safetensors").unlink(),
    "no manifest": lambda path: (path / "MANIFEST.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_skipped_aloud(zygote, copied, whole, damage):
    found = sorted((copied / "run" / "checkpoints").glob("step-*"))
    assert len(found) >= 2
    DAMAGE[damage](found[-1])
    shown = resume(zygote, copied)
    steps = [int(path.name.removeprefix("step-")) for path in found]
    assert f"The checkpoint of step {steps[-1]} is skipped: " in shown
    assert f"resuming after step {steps[-2]} of {STEPS}" in shown
    assert [*found[-1].parent.glob(f"discarded-{found[-1].name}-*")]  # set aside, not deleted
    assert left_behind(copied / "run") == whole(SETTINGS)


def test_when_no_checkpoint_is_whole_it_never_starts_again_from_zero(zygote, copied):
    for path in (copied / "run" / "checkpoints").glob("step-*"):
        flip(path / "model.safetensors")
    before = contents(copied / "run")
    code, shown = zygote.run(command(**SETTINGS), copied)
    assert code == 4 and "none of the" in shown and "Traceback" not in shown
    after = contents(copied / "run")
    assert {name: data for name, (data, _) in after.items()} == {
        name: data for name, (data, _) in before.items()
    }


def test_records_after_the_checkpoint_are_kept_aside(zygote, copied):
    steps = [int(p.name[5:]) for p in (copied / "run" / "checkpoints").glob("step-*")]
    lost = [r for r in read_records(copied / "run" / "metrics.jsonl") if r["step"] > max(steps)]
    resume(zygote, copied)
    assert read_records(copied / "run" / "metrics.discarded.jsonl") == lost


def test_a_run_folder_that_moved_is_resumed(zygote, copied, whole):
    (copied / "run").rename(copied / "moved")
    code, shown = zygote.run([*command(**SETTINGS), "--run", "moved"], copied)
    assert code == 0 and "resuming after step" in shown
    expected, found = dict(whole(SETTINGS)), left_behind(copied / "moved")
    del expected["config.yaml"], found["config.yaml"]  # says where the run was
    assert found == expected


def test_other_versions_are_told_and_not_refused(zygote, copied):
    config = copied / "run" / "config.yaml"
    text = config.read_text()
    assert "threads: 1\n" in text
    config.write_text(text.replace("threads: 1\n", "threads: 64\n"))
    shown = resume(zygote, copied)
    assert "note: threads: was 64, now 1; the result may differ in the last digits" in shown


def test_a_run_folder_in_use_is_refused(zygote, folder, whole):
    first = zygote.start(command(**SETTINGS), folder)
    assert wait_until(lambda: num_records(folder / "run") >= 1, first)
    code, shown = zygote.run(command(**SETTINGS), folder)
    assert code == 2
    (line,) = shown.splitlines()
    assert f"run folder in use by process {first.pid} on " in line
    assert first.wait() == 0
    assert left_behind(folder / "run") == whole(SETTINGS)


def test_the_same_command_on_the_finished_run_does_nothing(zygote, folder, whole):
    resume(zygote, folder)
    before = contents(folder / "run")
    assert "this run is finished; nothing to do" in resume(zygote, folder)
    assert contents(folder / "run") == before
    assert left_behind(folder / "run") == whole(SETTINGS)


def test_this_comparison_sees_a_difference(zygote, folder, whole):
    """A run that does differ, by one seed, differs in all that is compared and depends on it."""
    resume(zygote, folder, {**SETTINGS, "run.seed": 1})
    other, first = left_behind(folder / "run"), whole(SETTINGS)
    assert other.keys() == first.keys()
    same = {name for name in first if first[name] == other[name]}
    expected = {"model/tokenizer.json", "model/tokenizer_config.json", "model/chat_template.jinja"}
    assert same == expected | {"model/config.json", "model/generation_config.json"}
