"""Where the time of one optimizer step of sft goes.

    python benchmarks/profile_step.py [--data FILE] [--model FOLDER]

Three tables: the share of body, head and loss, backward, clipping and optimizer, by the clock;
the operators with the most time of their own, by torch.profiler; and how fast this machine
multiplies matrices of the model's own shapes, on 1 and on all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

# As `sft.cli.main` does, before torch is imported.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from sft.config import Config, load_config
from sft.data.batches import Batches
from sft.data.dataset import load_data
from sft.data.packing import Batch, micro_batches, trained_positions
from sft.data.template.chat_template import ChatTemplate
from sft.model import load
from sft.model.flops import model_shape
from sft.model.forward import Forward
from sft.model.lora import prepare_method, trained_parameters
from sft.model.losses import linear_loss
from sft.model.self_check import check_layout
from sft.training.optimizers import build_optimizer
from sft.training.step import train_step

HERE = Path(__file__).parent
Table = list[tuple[str, float]]


class Built:
    """Model, optimizer and the micro-batches of one step."""

    def __init__(self, config: Config) -> None:
        folder = load.model_folder(config.model)
        tokenizer = load.load_tokenizer(config.model, folder, config.method.kind)
        data = load_data(config.data, ChatTemplate(tokenizer.tokenizer), config.run.seed)
        self.config = config
        self.model = load.load_model(config.model, folder, tokenizer, dtype=torch.float32)
        prepare_method(self.model, config.method)
        self.parameters = trained_parameters(self.model)
        self.optimizer = build_optimizer(
            self.parameters, config.optim, float(config.optim.learning_rate)
        )
        check = check_layout(
            self.model, data.train, torch.device("cpu"), torch.float32, config.model.attention
        )
        self.forward = Forward(self.model, layout=check.layout, dtype=torch.float32)
        examples = Batches(data.train, config.batch.examples, [1.0], config.run.seed).next()
        self.batches = micro_batches(examples, config.batch.micro_batch_tokens)
        self.num_tokens = sum(batch.num_tokens for batch in self.batches)
        self.num_trained = sum(len(trained_positions(batch)) for batch in self.batches)
        self.train_flos = model_shape(self.model).train_flos(e.num_tokens for e in examples)

    def step(self) -> None:
        """Exactly what training does."""
        train_step(
            self.forward,
            self.optimizer,
            self.parameters,
            self.batches,
            step=1,
            learning_rate=float(self.config.optim.learning_rate),
            max_grad_norm=self.config.optim.max_grad_norm,
        )


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def phases(built: Built) -> Table:
    """The same step, taken apart: `forward.loss` and `train_step`, line by line."""
    spent: Counter[str] = Counter()
    head = built.model.get_output_embeddings()
    built.optimizer.zero_grad(set_to_none=True)
    for batch in built.batches:
        hidden = _timed(spent, "body, forward", lambda batch=batch: _hidden(built, batch))
        # Cut the graph at the head, so that its backward is not counted as the body's.
        leaf = hidden.detach().requires_grad_()
        sums = _timed(
            spent,
            "head and loss, forward (with their gradients)",
            lambda leaf=leaf, batch=batch: _loss(head, leaf, batch),
        )
        _timed(spent, "head, backward", lambda sums=sums: (sums / built.num_trained).backward())
        gradient = leaf.grad
        _timed(spent, "body, backward", lambda h=hidden, g=gradient: h.backward(g))
    parameters = list(built.parameters.values())
    norm = built.config.optim.max_grad_norm
    _timed(spent, "clip", lambda: nn.utils.clip_grad_norm_(parameters, norm, foreach=True))
    _timed(spent, "optimizer", built.optimizer.step)
    return list(spent.items())


def _timed(spent: Counter[str], name: str, work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = work()
    spent[name] += time.perf_counter() - started
    return result


def _hidden(built: Built, batch: Batch) -> torch.Tensor:
    built.model.train()
    return built.forward._hidden(batch)


def _loss(head: nn.Linear, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
    where = trained_positions(batch)
    labels, weights = batch.labels[where], batch.weights[where]
    return linear_loss(hidden[where], head.weight, head.bias, labels, weights).objective


def operators(built: Built, count: int) -> Table:
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        built.step()
    events = recorded.key_averages()
    ranked = sorted(events, key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    rows = [(f"{e.key} ({e.count} calls)", e.self_cpu_time_total / 1e6) for e in ranked[:count]]
    return [
        *rows,
        ("all others", (total - sum(e.self_cpu_time_total for e in ranked[:count])) / 1e6),
    ]


def shapes(model: PreTrainedModel, num_tokens: int, num_trained: int) -> dict[str, tuple[int, ...]]:
    """Distinct matrices of the model: name -> (rows of the input, inputs, outputs)."""
    found: dict[str, tuple[int, ...]] = {}
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            rows = num_trained if module is head else num_tokens
            size = (rows, module.in_features, module.out_features)
            if size not in found.values():
                found[name.rpartition(".")[2]] = size
    return found


def gemm_gflops(size: tuple[int, ...], least_seconds: float) -> dict[str, float]:
    """GFLOP/s of the three products of a linear layer: forward, and both of backward."""
    rows, inputs, outputs = size
    x, y, w = torch.randn(rows, inputs), torch.randn(rows, outputs), torch.randn(outputs, inputs)
    products = {"x W'": lambda: x @ w.t(), "dy W": lambda: y @ w, "dy' x": lambda: y.t() @ x}
    return {
        name: 2 * rows * inputs * outputs / _fastest(product, least_seconds) / 1e9
        for name, product in products.items()
    }


def _fastest(work: Callable[[], Any], least_seconds: float) -> float:
    work()
    times = [seconds(work)]
    while sum(times) < least_seconds or len(times) < 3:
        times.append(seconds(work))
    return min(times)


def print_shares(title: str, rows: Table) -> None:
    total = sum(spent for _, spent in rows)
    print(f"\n{title}: {total:.2f} s\n\n| | seconds | share |\n|---|---|---|")
    for name, spent in rows:
        print(f"| {name} | {spent:.3f} | {spent / total:.1%} |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", default="examples/support_tickets/train.jsonl")
    add("--model", default="starter", help="`starter` or a folder")
    add("--examples", type=int, default=8, help="rows in the optimizer step")
    add("--micro-batch-tokens", type=int, default=2048)
    add("--threads", type=int, default=os.cpu_count())
    add("--top", type=int, default=20, help="operators to show")
    add("--gemm-seconds", type=float, default=0.5, help="for each product; 0: leave them out")
    add("--out", type=Path, default=HERE / "results", help="folder for the JSON")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    values = {"model.name": args.model, "optim.learning_rate": 2e-5, "data.max_seq_len": 1024}
    values |= {"batch.examples": args.examples, "data.val_fraction": 0.0}
    values["batch.micro_batch_tokens"] = args.micro_batch_tokens
    built = Built(load_config({"data": {"train": args.data}}, values))
    if built.forward.layout != "flat":
        raise SystemExit("this model runs padded; the phases of that are not taken apart here")
    print(
        f"{built.num_tokens} tokens ({built.num_trained} trained) in {len(built.batches)} "
        f"micro-batches, {args.threads} threads"
    )
    built.step()  # warm-up: optimizer state and memory are there from now on
    whole = seconds(built.step)
    print(
        f"whole step: {whole:.2f} s, {built.num_tokens / whole:.1f} tokens/s, "
        f"{built.train_flos / whole / 1e9:.1f} model GFLOP/s"
    )
    found: dict[str, Any] = {
        "date": date.today().isoformat(),
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
        "data": Path(args.data).name,
        "threads": args.threads,
        "num_tokens": built.num_tokens,
        "num_trained_tokens": built.num_trained,
        "step_seconds": whole,
        "model_gflops": built.train_flos / whole / 1e9,
        "phases": phases(built),
        "operators": operators(built, args.top),
    }
    print_shares("Phases", found["phases"])
    print_shares("Operators, own CPU time (profiling slows the step)", found["operators"])
    if args.gemm_seconds:
        found["gemm_gflops"] = gemms(built, args)
    args.out.mkdir(parents=True, exist_ok=True)
    target = args.out / f"profile_step-{Path(args.data).stem}.json"
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def gemms(built: Built, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure and print; one row for each shape and number of threads."""
    rows_per_batch = built.num_tokens // len(built.batches)
    trained_per_batch = built.num_trained // len(built.batches)
    found = []
    print(
        "\n| GEMM, GFLOP/s | M x K x N | threads | x W' | dy W | dy' x |\n|---|---|---|---|---|---|"
    )
    for name, size in shapes(built.model, rows_per_batch, trained_per_batch).items():
        for threads in sorted({1, args.threads}):
            torch.set_num_threads(threads)
            speed = gemm_gflops(size, args.gemm_seconds)
            found.append({"name": name, "size": size, "threads": threads, **speed})
            cells = " | ".join(f"{number:.0f}" for number in speed.values())
            print(f"| {name} | {' x '.join(map(str, size))} | {threads} | {cells} |", flush=True)
    torch.set_num_threads(args.threads)
    return found


if __name__ == "__main__":
    main()
