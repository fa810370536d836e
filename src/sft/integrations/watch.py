"""One run of another trainer, watched: its parts, its evaluations, its records, its best
weights.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from sft.config import Config, with_values
from sft.config.resolve import Resolver
from sft.data.dataset import load_data
from sft.data.held_out import load_held_out
from sft.data.template.chat_template import ChatTemplate
from sft.errors import ConfigError, DivergedError
from sft.guards.early_stopping import best_eval
from sft.model import load
from sft.model.self_check import check_layout
from sft.probes.retention import BaseTexts
from sft.report.guards_table import lines, table
from sft.runs.events import VERDICT_LEVELS
from sft.runs.history import newest, read_findings
from sft.runs.metrics import with_derived
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore, end_of_step, read_records
from sft.terminal.console import Console
from sft.training.attempt import report
from sft.training.evaluations import Evaluations, may_restore
from sft.training.identity import identity, saved_identity
from sft.training.interrupt import StopFlag
from sft.training.parts import Parts, build_parts, write_start
from sft.training.tokens import Tokens

# Names in a trainer's log, and ours. The last two are TRL's.
_LOGGED = {
    "learning_rate": "learning_rate",
    "epoch": "epoch",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "accuracy",
    "num_tokens": "num_tokens",
}


def build(
    config: Config,
    run: RunDir,
    model: PreTrainedModel,
    tokenizer: Any,
    show: Console,
    *,
    num_steps: int,
    every: int,
    step: int,
    dtype: torch.dtype,
    visits: Callable[[int], int],
) -> Parts:
    """All parts, and the files that a run folder begins with. Run it inside `unchanged`.

    `step` is above 0 when the training is continued; `dtype` is what it computes in; `visits` gives
    the examples that it will have seen, from the number of rows.

    Raises:
        SFTError: data, template, model or run folder cannot be used.
    """
    resolver = Resolver(config)
    resolver.lengths(getattr(model.config.get_text_config(), "max_position_embeddings", None))
    resolver.method()
    resolver.fill("eval.every", every, f"six evaluations in {num_steps} steps")
    settings = resolver.config.data
    template = ChatTemplate(tokenizer, settings.tools)
    data = load_data(settings, template, config.run.seed)
    held_out = load_held_out(settings, template)
    num_visits = visits(len(data.split.train))
    per_step = max(1, round(num_visits / num_steps))
    resolver.config = with_values(resolver.config, {"batch.examples": per_step})
    info = load.TokenizerInfo(tokenizer, "the trainer's tokenizer", ())
    tokens = Tokens(resolver, config.model.name, info, template, data, held_out)
    base, texts = _base(run, model, step), BaseTexts(run)
    device = next(model.parameters()).device
    check = check_layout(model, data.train, device, dtype, resolver.config.model.attention)
    resolver.fill("model.attention", check.layout, check.reason)
    parts = build_parts(tokens, model, dtype, texts, show, num_steps=num_steps, visits=num_visits)
    if may_restore(parts.config) and parts.objective is None:
        raise ConfigError(
            "restore_best: which weights are best is measured on `val`, or on `usage` rows with "
            "answers; give the callback one of them"
        )
    parts.counters.step = step
    write_start(run, parts, identity(tokens, base, num_steps), texts, show)
    return parts


def _base(run: RunDir, model: PreTrainedModel, step: int) -> str:
    """Fingerprint of the base model, which a continued run can only look up."""
    if not step:
        return load.fingerprint(model)
    if not run.config.is_file() or not run.base_logits.is_file():
        raise ConfigError(
            f"{run.path}: training goes on after step {step}, and this folder "
            "holds no evaluation of the base model to compare with; give the run folder "
            "that the training began with"
        )
    return str(saved_identity(run)["fingerprint"]["model"])


class Watch:
    """Evaluates `watched`, and writes down what its trainer logs."""

    def __init__(
        self, watched: Parts, run: RunDir, stores: Mapping[str, RecordStore], show: Console
    ) -> None:
        self._watched = watched
        self.counters = watched.counters
        self._run = run
        self._stores = stores
        self._show = show
        self._evals = Evaluations(watched, run, stores, show, StopFlag())
        self._best: tuple[int, dict[str, torch.Tensor]] | None = None
        self._started = time.perf_counter()
        self._cut()

    def _cut(self) -> None:
        """Cut off what was recorded after the step that the run goes on from, or all of it."""
        watched, counters = self._watched, self.counters
        for store in self._stores.values():
            store.truncate_to(end_of_step(store.path, counters.step) if counters.step else 0)
        if not counters.step:
            return
        watched.evaluator.load_base(self._run.base_logits)
        evals = [r for r in read_records(self._run.metrics) if "eval_seconds" in r]
        counters.last_eval = max((int(record["step"]) for record in evals), default=-1)
        if objective := watched.objective:
            known = [r for r in evals if r.get(objective) is not None]
            counters.evals = [(int(r["step"]), float(r[objective])) for r in known]

    def record(self, step: int, logs: Mapping[str, Any], train_flos: float) -> None:
        """A training record from what the trainer logged after `step`: means since its last log."""
        record = {"step": step, "loss": float(logs["loss"])}
        record |= {ours: logs[theirs] for theirs, ours in _LOGGED.items() if theirs in logs}
        if train_flos > 0:
            record["train_flos"] = train_flos
        self._stores["metrics"].append(with_derived(record))

    def take(self, step: int, epoch: float) -> None:
        """One evaluation; the training goes on as if there had been none.

        Raises:
            DivergedError: the base model is broken.
        """
        watched, counters = self._watched, self.counters
        counters.step = step
        try:
            with unchanged(watched.model):
                self._evals.run(epoch)
        except DivergedError as error:
            if not step:
                raise
            self._show.note(f"step {step}: the loss on held-out rows is not finite", level="error")
            if watched.config.guards.health in ("stop", "restore_best"):
                counters.stopped = str(error).partition(",")[0]
                counters.restore_best |= watched.config.guards.health == "restore_best"
        self._keep_best()

    def _keep_best(self) -> None:
        """A copy of the trained weights in main memory, when they are the best so far."""
        counters = self.counters
        best = best_eval(counters.evals, counters.over_budget)
        if may_restore(self._watched.config) and best and best[0] == counters.step:
            copies = {name: p.detach().cpu().clone() for name, p in self._trained().items()}
            self._best = (counters.step, copies)

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self._watched.model.named_parameters() if p.requires_grad}

    def restore(self) -> None:
        """Put the best weights into the model, in place, if a guard asked for them."""
        counters = self.counters
        best = best_eval(counters.evals, counters.over_budget)
        if not counters.restore_best or best is None or best[0] == counters.step:
            return
        if self._best is None or self._best[0] != best[0]:
            self._show.note(
                f"the best weights, of step {best[0]}, are from before this training was "
                f"continued, and are not in memory: the model stays as after step {counters.step}",
                level="warning",
            )
            return
        with torch.no_grad():
            for name, parameter in self._trained().items():
                parameter.copy_(self._best[1][name])
        self._show.note(
            f"the weights are those of step {best[0]}, the best evaluation", level="warning"
        )

    def report(self) -> None:
        """The verdicts after the last evaluation, what measuring took, and the report."""
        findings = newest(read_findings(self._run))
        if findings:
            self._show.table(table(findings))
            for text, verdict in lines(findings):
                self._show.note(text, level=VERDICT_LEVELS.get(verdict, "info"))
        seconds = time.perf_counter() - self._started
        share = self.counters.eval_seconds / max(seconds, 1e-9)
        self._show.note(
            f"evaluations took {share:.1%} of the time; again: sft guards {self._run.path}"
        )
        self._show.log("finished", "the trainer ended", step=self.counters.step)
        report(self._run, self._show)


@contextmanager
def unchanged(model: PreTrainedModel) -> Iterator[None]:
    """Whatever the block does, the training behind it goes on as if there had been none.

    Put back: the random states of torch (CPU and CUDA), NumPy and Python; the training mode of
    every module; the attention implementation of every config; the generation config.
    """
    modes = [(module, module.training) for module in model.modules()]
    attention = [(config, config._attn_implementation_internal) for config in _configs(model)]
    generation = model.generation_config
    model.generation_config = copy.deepcopy(generation)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            model.generation_config = generation
            for config, name in attention:
                config._attn_implementation_internal = name
            for module, mode in modes:
                module.training = mode


def _configs(model: PreTrainedModel) -> list[Any]:
    """The configs of the model and of the models in it, and the configs in those; each once."""
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    todo = list(configs.values())
    while todo:
        config = todo.pop()
        parts = [getattr(config, name, None) for name in config.sub_configs]
        fresh = {id(part): part for part in parts if part is not None and id(part) not in configs}
        configs |= fresh
        todo += fresh.values()
    return list(configs.values())
