"""THE MAIN PATH: read this first. One run, from a config to a model that follows instructions."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from sft.config import Config
from sft.config.resolve import due
from sft.data.mixing import by_source, source_names
from sft.data.packing import micro_batches
from sft.errors import DivergedError, Interrupted
from sft.runs.best_step import rule_of
from sft.runs.metrics import with_derived
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore, open_stores
from sft.terminal.console import Console
from sft.trackers.follow import Followers
from sft.training import checkpoint
from sft.training.attempt import attempt
from sft.training.evaluations import Evaluations, may_restore
from sft.training.finish import RunSummary, finish, finished, run_folder
from sft.training.header import run_header
from sft.training.interrupt import StopFlag, catch_signals
from sft.training.schedules import lr_multiplier
from sft.training.setup import Setup, prepare
from sft.training.step import StepResult, StopRequested, train_step


def train(
    config: Config,
    console: Console | None = None,
    on_open: Callable[[RunDir, Console], None] = lambda run, show: None,
) -> RunSummary:
    """Train, or continue, or just report, the run that `config` describes.

    `on_open` is called once the run folder is ours, before anything is read or built.

    Raises:
        SFTError: anything a user can repair, with the exit code of its class.
    """
    with (
        console or Console() as show,
        catch_signals() as stop,
        RunDir.open(run_folder(config)) as run,
    ):
        on_open(run, show)
        if done := finished(run, config, show):
            return done
        with Followers(run, config, show.warn) as followers, attempt(run, show) as log:
            setup = prepare(config, run, show, stop)
            with open_stores(run) as stores:
                loop = Loop(setup, run, stores, show, stop)
                loop.resume()
                log.release()
                followers.start()
                show.block(run_header(setup, run.path))
                loop.run()
                return finish(setup, run, stores, show)


class Loop:
    """The loop over steps. What it changes is in `setup.state`; all else is read only."""

    def __init__(
        self,
        setup: Setup,
        run: RunDir,
        stores: Mapping[str, RecordStore],
        show: Console,
        stop: StopFlag,
    ) -> None:
        self._setup = setup
        self._run = run
        self._stores = stores
        self._evals = Evaluations(setup, run, stores, show, stop)
        self._show = show
        self._stop = stop
        self._state = setup.state
        self._config = setup.config
        self._sources = source_names(setup.config.data.train)
        self._saved: tuple[int, int] | None = (
            None  # (step, last evaluation) of the newest checkpoint
        )

    def resume(self) -> None:
        """Continue from the newest whole checkpoint; cut off what was recorded after it."""
        folder = self._run.checkpoints
        checkpoint.sweep(folder)
        saved = checkpoint.load_newest(folder, lambda text: self._show.note(text, level="error"))
        offsets = saved.state["offsets"] if saved else dict.fromkeys(self._stores, 0)
        if saved:
            checkpoint.discard_after(folder, saved.step)
            self._state.load(saved.tensors, saved.state["train"])
            if saved.step or self._state.counters.last_eval == 0:  # else it is looked at again
                self._setup.evaluator.load_base(self._run.base_logits)
            self._saved = (saved.step, self._state.counters.last_eval)
            text = f"resuming after step {saved.step} of {self._setup.num_steps}"
            self._show.note(text, kind="resumed", step=saved.step)
        for name, store in self._stores.items():
            store.truncate_to(offsets.get(name, 0))

    def run(self) -> None:
        """Evaluation, save, step, until the last step or a reason to stop."""
        self._show.start(self._setup.num_steps)
        try:
            while not self._eval_and_save():
                self._step()
        except StopRequested:
            self._show.progress("saving, then stopping")
            self._save()
            number = self._stop.signal_number or signal.SIGINT
            raise Interrupted(
                f"stopped by {signal.Signals(number).name} after step "
                f"{self._state.counters.step} of {self._setup.num_steps}; saved in "
                f"{self._run.path}. The same command resumes it.",
                number,
            ) from None

    def _eval_and_save(self) -> bool:
        """What is due after a step. True when the run is over."""
        counters, num_steps = self._state.counters, self._setup.num_steps
        every = int(self._config.eval.every)
        if counters.last_eval != counters.step and due(counters.step, every, num_steps):
            self._evals.run(self._setup.batches.epoch)
        over = counters.step == num_steps or counters.stopped is not None
        is_best = self._best_step() == counters.step
        if counters.step and (
            over or is_best or due(counters.step, int(self._config.checkpoint.every), num_steps)
        ):
            self._save()
        return over

    def _step(self) -> None:
        setup, state = self._setup, self._state
        counters, optim = state.counters, self._config.optim
        step = counters.step + 1
        learning_rate = float(optim.learning_rate) * lr_multiplier(
            step,
            setup.num_steps,
            schedule=setup.schedule,
            warmup_steps=int(optim.warmup_steps),
            decay_fraction=optim.decay_fraction,
            min_lr_ratio=optim.min_lr_ratio,
        )
        mark = state.mark()
        started = time.perf_counter()
        examples = setup.batches.next()
        batches = [
            batch.to(setup.device)
            for batch in micro_batches(examples, self._config.batch.micro_batch_tokens)
        ]
        try:
            result = train_step(
                setup.forward,
                state.optimizer,
                state.parameters,
                batches,
                step=step,
                learning_rate=learning_rate,
                max_grad_norm=optim.max_grad_norm,
                penalty=setup.penalty,
                stop_requested=self._stop.requested,
                by_source=len(self._sources) > 1,
            )
        except StopRequested:
            state.back_to(mark)
            raise
        seconds = time.perf_counter() - started
        counters.step = step
        counters.seconds += seconds
        counters.num_tokens += result.num_tokens
        counters.num_trained_tokens += result.num_trained_tokens
        counters.train_flos += setup.shape.train_flos(e.num_tokens for e in examples)
        record = self._record(result, learning_rate, seconds)
        self._stores["metrics"].append(record)
        self._show.step(record)

    def _record(self, result: StepResult, learning_rate: float, seconds: float) -> dict[str, Any]:
        counters = self._state.counters
        sources = by_source(self._sources, result.by_source)
        record = {
            "step": counters.step,
            "loss": result.loss,
            "accuracy": result.accuracy,
            "learning_rate": learning_rate,
            "epoch": self._setup.batches.epoch,
            "train_flos": counters.train_flos,
            "grad_norm": result.grad_norm,
            "num_tokens": counters.num_tokens,
            "num_trained_tokens": counters.num_trained_tokens,
            "tokens_per_second": result.num_tokens / seconds,
            "seconds": counters.seconds,
            **({"loss_by_source": sources} if sources else {}),
        }
        return with_derived(record)

    def _best_step(self) -> int | None:
        """The evaluation whose weights the run would hand back; None when none are to be kept."""
        counters = self._state.counters
        return rule_of(self._config).best_step(
            counters.evals, counters.over_budget, restore_best=may_restore(self._config)
        )

    def _save(self) -> None:
        """A checkpoint of this moment, unless there is one."""
        counters = self._state.counters
        if self._saved == (counters.step, counters.last_eval):
            return
        self._check_weights()
        for store in self._stores.values():
            store.sync()
        offsets = {name: store.offset for name, store in self._stores.items()}
        checkpoint.save_checkpoint(
            self._run.checkpoints,
            counters.step,
            self._state.tensors(),
            {"train": self._state.json(), "offsets": offsets},
        )
        self._saved = (counters.step, counters.last_eval)
        self._show.log("checkpoint", f"saved after step {counters.step}", step=counters.step)
        best = self._best_step()
        checkpoint.prune(
            self._run.checkpoints, self._config.checkpoint.keep, [] if best is None else [best]
        )

    def _check_weights(self) -> None:
        """A finite gradient times a huge learning rate can still be infinite."""
        for name, parameter in self._state.parameters.items():
            if not bool(parameter.isfinite().all()):
                raise DivergedError(
                    f"step {self._state.counters.step}: {name} is not finite after the update, and "
                    "was not saved. Usual cause: a learning rate that is too high."
                )
