"""Whole runs in this process: a tiny Llama on sixty rows."""

import gc
import hashlib
import io
import json
import random
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from sft import load_config, train
from sft.cli import main
from sft.runs.metrics import deterministic
from sft.runs.store import read_records
from sft.terminal.console import Console

WORDS = ["fox", "dog", "Paris", "France", "quick", "brown", "lazy", "one", "two", "three", "four"]
NUM_ROWS, NUM_VAL, PER_STEP = 60, 12, 8
OVERFIT = {
    "optim__learning_rate": 1e-2,
    "optim__schedule": "constant",
    "optim__max_steps": 400,
    "eval__every": 10,
    "eval__patience": 8,
    "eval__margin": 0.0,
    "guards__enabled": False,  # which would end it sooner
}


gc.freeze()  # each run collects garbage once; what is imported need not be walked for it


def write_rows(path, num_rows, answer, seed=0):
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for index in range(num_rows):
            question = " ".join(rng.choices(WORDS, k=rng.randint(2, 6))) + f" {index}?"
            pair = [("user", question), ("assistant", answer(question, rng))]
            messages = [{"role": role, "content": content} for role, content in pair]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def make_world(folder):
    """A folder with a model, and rows whose answer is the first word of the question."""
    tiny.save(folder / "llama")
    write_rows(folder / "rows.jsonl", NUM_ROWS, lambda q, _: f"It is {q.split()[0]}.")
    return folder


class Trained:
    """A finished run and what it left behind."""

    def __init__(self, world, name, **overrides):
        values = {
            "model.name": str(world / "llama"),
            "data.train": [str(world / "rows.jsonl")],
            "run.dir": str(world / name),
            "optim.learning_rate": 3e-3,
            "optim.max_steps": 12,
            "batch.examples": PER_STEP,
            "eval.every": 4,
            **{key.replace("__", "."): value for key, value in overrides.items()},
        }
        self.config = load_config({}, values)
        out = io.StringIO()
        self.summary = train(self.config, Console(out))
        self.shown = out.getvalue()
        self.path = world / name
        self.records = read_records(self.path / "metrics.jsonl")
        self.steps = [record for record in self.records if "loss" in record]
        self.evals = [record for record in self.records if "eval_seconds" in record]
        self.account = json.loads((self.path / "account.json").read_text())

    @property
    def weights(self):
        return load_file(self.path / "model" / "model.safetensors")

    @property
    def digest(self):
        data = (self.path / "model" / "model.safetensors").read_bytes()
        return hashlib.sha256(data).hexdigest()

    def rows(self, status):
        lines = Path(self.config.data.train[0].path).read_text().splitlines()
        chosen = [r["row"] for r in self.account["rows"] if r["status"] == status]
        return [json.loads(lines[int(row.rpartition(":")[2]) - 1])["messages"] for row in chosen]


def encode(tokenizer, messages):
    """Ids of a whole conversation, and where its answer starts and ends; without sft.

    The answer's end is its stop token; the template writes a line break behind that.
    """
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text.endswith("<|im_end|>\n")
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tokenize=False, add_generation_prompt=True
    )
    ids = [tokenizer(part, add_special_tokens=False).input_ids for part in (text, prompt)]
    return ids[0], len(ids[1]), len(ids[0]) - 1


def loss_of(folder, conversations):
    """Mean nll of the answers' tokens, the stop token included, by plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    nll, count = 0.0, 0
    for messages in conversations:
        ids, start, end = encode(tokenizer, messages)
        with torch.no_grad():
            scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        nll -= sum(float(scores[t - 1, ids[t]]) for t in range(start, end))
        count += end - start
    return nll / count


def overfit_run(world):
    """Answers that nothing predicts: training memorises them and validation gets worse.

    `checked` in the run folder holds the weights of the last step, which are not the best ones.
    """
    path = world / "noise.jsonl"
    write_rows(path, 40, lambda _, rng: " ".join(rng.choices(WORDS, k=4)), seed=1)
    run = Trained(world, "overfit", data__train=[str(path)], **OVERFIT)
    newest = max((run.path / "checkpoints").iterdir())
    shutil.copytree(run.path / "model", run.path / "checked")
    model = AutoModelForCausalLM.from_pretrained(run.path / "checked")
    model.load_state_dict(load_file(newest / "model.safetensors"), strict=False)
    model.save_pretrained(run.path / "checked")
    return run


def left_behind(run):
    """A digest of everything in a run folder that two equal runs have in common, by name."""
    newest = max((run / "checkpoints").glob("step-*"))
    state = json.loads((newest / "state.json").read_text())
    del state["offsets"]  # bytes of metrics.jsonl, which holds clock readings
    del state["train"]["counters"]["seconds"], state["train"]["counters"]["eval_seconds"]
    records = [deterministic(record) for record in read_records(run / "metrics.jsonl")]
    parts = {"state.json": json.dumps(state).encode(), "metrics.jsonl": repr(records).encode()}
    files = [*run.glob("model/*"), *run.glob("adapter/*"), *newest.glob("*.safetensors")]
    names = ("scores.jsonl", "samples.jsonl", "findings.jsonl", "preflight.json", "account.json")
    files += [run / name for name in (*names, "config.yaml")] + [*run.glob("probes/*")]
    for path in files:
        parts[str(path.relative_to(run))] = path.read_bytes()
    card = parts["model/README.md"].decode()  # which tells what the run is called
    parts["model/README.md"] = card.replace(f"name: {run.name}\n", "name: run\n").encode()
    return {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}


def contents(folder):
    """Every file of a run, with its time of change; without the lock, which is always taken."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "run.lock"
    }


class Outcome:
    """What the command line did with `args`: exit code, stdout and stderr."""

    def __init__(self, *args):
        out, err = io.StringIO(), io.StringIO()
        self.code = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main(list(args))
            except SystemExit as end:
                self.code = end.code
        self.out, self.err = out.getvalue(), err.getvalue()

    def error(self):
        """The message of the one error there is."""
        assert "Traceback" not in self.err
        assert self.err.count("error: ") == 1, self.err
        assert self.out == ""
        return self.err[self.err.index("error: ") :].removeprefix("error: ")
