"""Does what the guards advise help, and does it cost anything where nothing is wrong?

    python benchmarks/guards/remedies.py --seeds 1 --out runs/remedies \
        --results benchmarks/results/remedies.json --markdown remedies.md

One run after the other in one process, each scored on rows that decide nothing. Every run is
written to --out as it ends, and what is there is not run again. `--tables` only counts.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from cases import BY_ID
from plants import Rows
from pool import Draw, write_rows, write_texts
from remedy_plan import TRIALS, Trial, test_rows
from run import Clock, machine, numbers, write_data

BUDGET = 0.05
Record = dict[str, Any]


def main() -> None:
    args = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch is loaded
        os.environ[name] = str(args.threads)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    args.out.mkdir(parents=True, exist_ok=True)
    shm = Path("/dev/shm")
    place = args.work or (shm if shm.is_dir() else None)
    for seed in numbers(args.seeds) if not args.tables else ():
        for trial in TRIALS:
            if args.only and trial.name not in args.only.split(","):
                continue
            if not (args.out / f"{trial.name}-{seed}.json").exists():
                with tempfile.TemporaryDirectory(prefix=f"{trial.name}-", dir=place) as work:
                    run_trial(trial, seed, args.out, Path(work), args.model)
                gc.collect()
    from remedy_table import markdown, summary

    results = summary(read_records(args.out))
    text = markdown(results)
    if args.results:
        args.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    print(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", default="1", help="such as 1 or 0-2")
    add("--out", type=Path, required=True, help="folder of the records, one per run")
    add("--model", default="starter", help="what to train (default: the starter model)")
    add("--only", default="", help="names such as P1-none,P1-restore_best")
    add("--tables", action="store_true", help="run nothing, only count what is there")
    add("--results", type=Path, help="JSON of what was measured and met")
    add("--markdown", type=Path, help="the same as a table, for docs/guards.md")
    add("--threads", type=int, default=1, help="threads of torch (default 1)")
    add("--work", type=Path, help="where run folders live while they are needed")
    return parser.parse_args()


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("[A-Z]*.json"))]


def run_trial(trial: Trial, seed: int, out: Path, work: Path, model: str = "starter") -> None:
    """One run, from data to its record; two where a blend is made of it."""
    from sft.config import load_config
    from sft.runs.run_dir import RunDir
    from sft.terminal.console import Console
    from sft.train import Loop, open_stores
    from sft.training.interrupt import StopFlag
    from sft.training.setup import prepare

    clock = Clock()
    draw = Draw(seed)
    rows = trial.change(BY_ID[trial.case].build(draw), draw)
    values = settings(trial, rows, seed, work) | {"model.name": model}
    config = load_config({}, values)
    with RunDir.open(work / "run") as run, Console(io.StringIO()) as show:
        setup = prepare(config, run, show, StopFlag())
        if known := _same_run(trial, setup, seed, out):
            _write(out, {**known, "action": trial.action, "same_as": "none"})
            return
        clock.lap("prepare")
        measure = Measure(trial.case, setup, run, out / ".base", work)
        pack = list(setup.evaluator.probes)
        _set_probes(trial, setup, measure)
        clock.lap("test rows on the base model")
        with open_stores(run) as stores:
            Loop(setup, run, stores, show, StopFlag()).run()
        clock.lap("training")
        best_step = _load_chosen(setup, run)
        record = {
            "case": trial.case,
            "action": trial.action,
            "seed": seed,
            "train": _train_digest(setup),
            "steps": setup.state.counters.step,
            "planned": setup.num_steps,
            "best_step": best_step,
            "stopped": setup.state.counters.stopped or "",
            "evaluations": measure.evals(run) if trial.evals == "test" else {},
            "test": measure.scores(setup),
            "machine": machine(),
        }
        clock.lap("test rows")
        _write(out, {**record, "seconds": dict(clock.laps)})
        if trial.evals == "pack":
            blended = _blend(setup, pack)
            clock.lap("blending")
            again = {**record, "action": "blend", **blended, "test": measure.scores(setup)}
            _write(out, {**again, "seconds": dict(clock.laps)})


def settings(trial: Trial, rows: Rows, seed: int, work: Path) -> dict[str, Any]:
    """The configuration; without probes unless something is decided by them."""
    values = {**BY_ID[trial.case].settings(), "eval.samples": 0}
    files = write_data(rows, seed, work)
    if trial.evals in ("nothing", "test"):
        values |= {"guards.enabled": False, "data.val_fraction": 0.0}
        files = {"data.train": files["data.train"], "data.usage": files["data.usage"]}
        if not trial.needs_usage:
            del files["data.usage"]
    return values | dict(trial.config) | files | {"run.seed": seed}


class Measure:
    """The rows that decide nothing, scored on the base model and on the one that is handed back."""

    def __init__(self, case: str, setup: Any, run: Any, kept: Path, work: Path) -> None:
        import oracle

        from sft.config import DataConfig, SourceConfig
        from sft.probes.pack import Probe
        from sft.probes.retention import user_texts
        from sft.training.identity import saved_identity

        self.probes = []
        for name, rows in test_rows(case).items():
            if name == "texts":
                path = write_texts(work / "test_texts.txt", rows)
                source = DataConfig(retain=[SourceConfig(path=str(path))])
                found = user_texts(source, setup.template, setup.tokenizer, len(rows))
            else:
                path = write_rows(work / f"test_{name}.jsonl", rows)
                found = oracle.examples(path, setup)
            self.probes.append(Probe(name, found))
        model = saved_identity(run)["fingerprint"]["model"]
        self._base = oracle.base_scores(setup, self.probes, model, kept)
        self._score = partial(oracle.scores, probes=self.probes)

    def scores(self, setup: Any) -> dict[str, Any]:
        """Per probe: loss of each row on the base model and now, and what answers begin with."""
        from trace_file import rounded

        found = {}
        for name, now in self._score(setup).items():
            base = self._base[name]
            found[name] = {
                "base": _per_token(base),
                "now": _per_token(now),
                "first_mass": _mean(now.get("first_mass")),
                "reference_share": _share(now.get("first_label")),
            }
        return rounded(found)

    def evals(self, run: Any) -> dict[str, list[float]]:
        """Loss of each test row after the evaluations of the run itself, by step."""
        from sft.runs.store import read_records as lines

        found: dict[str, list[float]] = {}
        for line in lines(run.scores):
            found.setdefault(str(line["step"]), []).append(line["nll"] / line["tokens"])
        return found


def _per_token(columns: dict[str, list[float]]) -> list[float]:
    return [nll / n for nll, n in zip(columns["nll"], columns["tokens"], strict=True)]


def _mean(values: list[float] | None) -> float | None:
    return sum(values) / len(values) if values else None


def _share(labels: list[float] | None) -> float | None:
    """The share of the most frequent first token of the reference answers."""
    return max(map(labels.count, labels)) / len(labels) if labels else None


def _set_probes(trial: Trial, setup: Any, measure: Measure) -> None:
    """Nothing is looked at that nothing hangs on."""
    from sft.probes.pack import Probe

    if trial.evals == "guards":
        return
    setup.evaluator.probes.clear()
    if trial.evals == "test":
        setup.evaluator.probes.append(Probe("after_steps", measure.probes[0].examples))


def _train_digest(setup: Any) -> str:
    from sft.data.tokenize import fingerprint

    return str(fingerprint(setup.data.train))


def _same_run(trial: Trial, setup: Any, seed: int, out: Path) -> Record | None:
    """The record of `none`, where the remedy found nothing to change in the rows."""
    path = out / f"{trial.case}-none-{seed}.json"
    if not trial.same_if_equal_rows or not path.exists():
        return None
    record: Record = json.loads(path.read_text())
    return record if record["train"] == _train_digest(setup) else None


def _load_chosen(setup: Any, run: Any) -> int:
    """Put in the weights that the run would hand back; their step."""
    from sft.training import checkpoint
    from sft.training.finish import chosen_step

    step = int(chosen_step(setup))
    if step != setup.state.counters.step:
        path = dict(checkpoint.find_checkpoints(run.checkpoints))[step]
        setup.state.load_model(checkpoint.load_checkpoint(path).tensors["model"])
    return step


def _blend(setup: Any, pack: list[Any]) -> Record:
    """Blend with the base model as `sft blend` does: chosen on `val` and `retain`."""
    from dataclasses import asdict

    from sft.remedies.blend import choose, interpolate, sweep, weights_of

    probes = {probe.name: probe.examples for probe in pack}
    set_alpha = partial(interpolate, setup.model, setup.base_weights(), weights_of(setup.model))
    points = sweep(
        set_alpha,
        setup.forward,
        probes["val"],
        probes["retain"],
        micro_batch_tokens=setup.config.batch.micro_batch_tokens,
        budget=BUDGET,
    )
    chosen = choose(points, BUDGET)
    set_alpha(chosen.alpha)
    return {"alpha": chosen.alpha, "points": [asdict(point) for point in points]}


def _write(out: Path, record: Record) -> None:
    """Whole or not at all, and one line for the terminal."""
    name = f"{record['case']}-{record['action']}-{record['seed']}"
    temporary = out / f".tmp-{name}"
    temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")
    temporary.replace(out / f"{name}.json")
    changes = [
        f"{probe} {_mean(found['now']) - _mean(found['base']):+.3f}"
        for probe, found in record["test"].items()
    ]
    seconds = sum(record["seconds"].values())
    print(
        f"{time.strftime('%H:%M')}  {name:<20}{seconds:>5.0f} s  {', '.join(changes)}", flush=True
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
