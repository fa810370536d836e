"""The guards in a transformers `Trainer`, or a trainer made from it, such as TRL's `SFTTrainer`.

trainer = SFTTrainer(
    model, args=args, train_dataset=train,
    callbacks=[GuardCallback("runs/mine", train=train, val=val, usage="usage.jsonl")],
)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback

from sft.config.resolve import EVALS_PER_RUN, due
from sft.integrations.rows import Rows, sources
from sft.integrations.trainer import (
    bare_model,
    compute_dtype,
    config_of,
    num_visits,
    plan,
    tokenised_alike,
    tokenizer_of,
)
from sft.integrations.watch import Watch, build, unchanged
from sft.runs.run_dir import RunDir
from sft.runs.store import open_stores
from sft.terminal.console import Console
from sft.training.attempt import begin
from sft.training.parts import Parts

# The template of plain prompts and completions, as TRL joins them: with nothing in between.
JOINED = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


class GuardCallback(TrainerCallback):  # type: ignore[misc]
    """Probes, records, guards and a run folder for a training that sft does not run.

    `run` is the folder that `sft guards` reads. `train`, `val`, `usage` and `retain` are what
    `data.*` is in a config of sft: a path, or rows in any format sft reads, as dictionaries or as
    a `datasets.Dataset`; give the rows as they are before the trainer tokenises them. `train`
    is all rows trained on. Nothing is split off: without `val`, held-out loss is not measured.

    An evaluation is taken before training, every `every` steps (`auto`: six in the run), and at
    the end. `action` is what an alarm does, of all guards or by guard: `off`, `warn`, `stop` (ends
    the training) or `restore_best` (ends it and, when it ends, puts the weights of the best
    evaluation back; keeps one copy of all trained weights in main memory for that).
    Guards that warn change nothing: the weights at the end are, bit for bit, those of a
    training without the callback.

    `chat_template` replaces the tokenizer's in what is measured, not in what is trained.
    `settings` are further keys of a config, such as `{"guards.alpha": 0.01}`. In a training with
    several processes the first one evaluates, while the others wait; it must hold the whole
    model.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        train: Rows,
        val: Rows | None = None,
        usage: Rows | None = None,
        retain: Rows | None = None,
        every: int | Literal["auto"] = "auto",
        action: str | Mapping[str, str] = "warn",
        chat_template: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = Path(run).expanduser()
        self._rows = {"train": train, "val": val, "usage": usage, "retain": retain}
        self._action = action
        self._chat_template = chat_template
        self._settings = {"eval.every": every, **(settings or {})}
        self._stack = ExitStack()
        self._watch: Watch | None = None
        self._pending = False

    # ------------------------------------------------------------------ events

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Build all that evaluations need, and look at the base model.

        Raises:
            SFTError: the data, the model or the run folder cannot be used.
        """
        self._close()
        if state.is_world_process_zero:
            with self._stack as stack:  # what was opened is closed again when this fails
                self._begin(stack, args, state, parts)
                self._stack = stack.pop_all()

    def on_step_end(self, args: Any, state: Any, control: Any, **_parts: Any) -> None:
        """Evaluation, if it is time; where the trainer is about to log, after that."""
        if due(state.global_step, self._interval(state.max_steps), state.max_steps):
            self._pending = True
            if not control.should_log:
                self._eval(state, control)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_parts: Any
    ) -> None:
        """Record what the trainer logged of its steps, then evaluation if that was waited for."""
        if self._watch and "loss" in logs:
            self._watch.record(state.global_step, logs, float(state.total_flos))
        self._eval(state, control)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_parts: Any) -> None:
        """Evaluation, if the trainer did not log after all."""
        self._eval(state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """The last evaluation, the best weights if a guard asked for them, and the verdicts."""
        watch = self._watch
        self._pending = False
        # The trainer may have put other weights into the model by now.
        if (
            watch
            and watch.counters.last_eval != state.global_step
            and not args.load_best_model_at_end
        ):
            watch.take(state.global_step, float(state.epoch or 0.0))
        if watch:
            watch.restore()
        if _from_first(watch.counters.restore_best if watch else None):
            _share_weights(parts["model"])
        if watch:
            watch.report()
        self._close()

    # ------------------------------------------------------------------ parts

    def _interval(self, max_steps: int) -> int:
        every = self._settings["eval.every"]
        return -(-max_steps // EVALS_PER_RUN) if every == "auto" else int(every)

    def _begin(self, stack: ExitStack, args: Any, state: Any, parts: Mapping[str, Any]) -> None:
        show = stack.enter_context(BesideBars())
        show.note(f"guards: measuring the base model for {self._folder}")
        model, is_peft = bare_model(parts["model"])
        tokenizer = tokenizer_of(parts.get("processing_class"), self._chat_template)
        run = stack.enter_context(RunDir.open(self._folder))
        steps, loader = state.max_steps, parts["train_dataloader"]
        sections = plan(args, steps, parts.get("optimizer"), is_peft, model)
        sections["run"]["dir"] = str(self._folder)
        data = {name: sources(name, rows, run) for name, rows in self._rows.items()}
        config = config_of(sections, data, self._action, self._settings)
        with unchanged(model):
            watched = build(
                config,
                run,
                model,
                tokenizer,
                show,
                num_steps=steps,
                every=self._interval(steps),
                step=state.global_step,
                dtype=compute_dtype(args, model),
                visits=partial(num_visits, args, steps, loader),
            )
        _note_gaps(watched, loader, parts.get("eval_dataloader"), show)
        stores = stack.enter_context(open_stores(run))
        self._watch = Watch(watched, run, stores, show)
        begin(run, show).release()
        if state.global_step:
            show.log("resumed", "the trainer goes on", step=state.global_step)
        if not state.global_step:
            self._watch.take(0, 0.0)

    def _eval(self, state: Any, control: Any) -> None:
        """The evaluation that is pending. All processes come here after the same step."""
        if not self._pending:
            return
        self._pending = False
        if self._watch:
            self._watch.take(state.global_step, float(state.epoch or 0.0))
        if _from_first(self._watch.counters.stopped if self._watch else None):
            control.should_training_stop = True

    def _close(self) -> None:
        self._watch = None
        self._pending = False
        self._stack.close()


class BesideBars(Console):
    """Lines that stay, printed so that the trainer's progress bar does not run into them."""

    def __init__(self) -> None:
        super().__init__(_AboveBars())

    def progress(self, what: str, done: int = 0, total: int = 0) -> None:
        """Nothing: the trainer shows how far it is."""


class _AboveBars:
    """Standard error; what is written there appears above the progress bars."""

    def write(self, text: str) -> int:
        tqdm.write(text, file=sys.stderr, end="")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def _note_gaps(watched: Parts, train_loader: Any, eval_loader: Any, show: Console) -> None:
    """What is not measured, or not as it is trained."""
    data = watched.data
    for note in data.notes:
        show.note(f"guards: {note}", level="warning")
    if not data.val:
        where = "those of eval_dataset" if eval_loader is not None else "rows not trained on"
        show.note(
            f"guards: without `val`, overfitting cannot be seen; give {where}", level="warning"
        )
    if tokenised_alike(getattr(train_loader, "dataset", None), data.train) is False:
        show.note(
            "guards: the rows that the trainer reads do not begin like any row of `train` does "
            "in the chat template: other rows, or another form. What is measured may not be what "
            "is trained. For prompts and completions that the trainer joins as plain text, give "
            "chat_template=sft.integrations.transformers.JOINED",
            level="warning",
        )


def _num_processes() -> int:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def _from_first(value: Any) -> Any:
    """What the first process says, in every process: they must stop after the same step."""
    if _num_processes() == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def _share_weights(model: Any) -> None:
    """The trained weights of the first process, in every process."""
    if _num_processes() == 1:
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.distributed.broadcast(parameter.data, src=0)
