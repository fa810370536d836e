"""`report.json`: every figure of the report, each with its source in the run folder.

The page and the model card are drawn from this and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sft.report.card import card_facts
from sft.report.claims import SHORT
from sft.report.conclusion import answer, checkpoints
from sft.report.curves import curve_facts
from sft.report.data_section import data_section
from sft.report.incidents import incidents
from sft.report.samples import samples
from sft.report.settings import reproduction, setting_rows, without_keys
from sft.report.verdicts import indicator_rows, other_signals, verdict_rows
from sft.runs.files import number, plain, whole
from sft.runs.run_records import PROBES, RunRecords
from sft.runs.settings import data_paths

SCHEMA = 1


def report_json(records: RunRecords) -> dict[str, Any]:
    """Everything the report says, as JSON. A part that cannot be made is None, and is told."""
    problems = list(records.problems)

    def part(name: str, build: Callable[[RunRecords], Any]) -> Any:
        try:
            return build(records)
        except Exception as error:  # a folder may hold anything; the other parts are still true
            reason = f"{type(error).__name__}: {error}"[:300]
            problems.append(f"{name}: could not be made of this folder ({reason})")
            return None

    facts = {
        "schema": SCHEMA,
        "run": part("the run", _run),
        "answer": part("the answer", lambda r: asdict(answer(r))),
        "verdicts": part("the verdicts", verdict_rows) or [],
        "signals": part("the other signals", other_signals) or [],
        "indicators": part("what to watch", indicator_rows) or [],
        "evaluations": part("the evaluations", _evals) or [],
        "curves": part("the curves", curve_facts) or {},
        "samples": part("the samples", samples),
        "data": part("the data", data_section),
        "incidents": part("the incidents", incidents),
        "settings": part("the settings", setting_rows) or [],
        "reproduce": part("how to do it again", reproduction),
        "card": part("the card", card_facts),
    }
    facts["not_measured"] = part("what was not measured", lambda r: not_measured(r, facts)) or []
    facts["problems"] = problems
    clean: dict[str, Any] = without_keys(plain(facts))
    return clean


def _run(records: RunRecords) -> dict[str, Any]:
    """Which run this is, and how it stands."""
    best = records.best
    chosen = records.chosen is not None and best.num_evals > 1
    return {
        "name": records.run.path.resolve().name,
        "path": str(records.run.path),
        "state": records.state.state,
        "detail": records.state.detail,
        "finished": records.finished,
        "step": whole(records.last.get("step")),
        "num_steps": records.state.num_steps,
        "chosen_step": records.chosen,
        "compared_step": records.compared,
        "best_step": best.step,
        "chosen_by": (chosen and best.probe) or None,
        "evals_to_choose_from": best.num_evals if chosen and best.probe else None,
        "blend": records.blended,
        "checkpoints": checkpoints(records),
        "has_model": (records.run.model / "config.json").is_file(),
        "base_model": str(records.setting("model.name", "") or ""),
        "method": str(records.setting("method.kind", "") or ""),
        "data": data_paths(records.identity),
        "epochs": number(records.last.get("epoch")),
        "train_seconds": number(records.last.get("seconds")),
        "num_tokens": whole(records.last.get("num_tokens")),
        "num_trained_tokens": whole(records.last.get("num_trained_tokens")),
        "train_flos": number(records.last.get("train_flos")),
        "eval_share": number(records.summary.get("eval_share")),
    }


def _evals(records: RunRecords) -> list[dict[str, Any]]:
    """What each evaluation measured: the figures behind the pictures."""
    return [
        {
            name: value
            for name, value in evaluation.items()
            if name == "step" or number(value) is not None
        }
        for evaluation in records.evals.values()
    ]


def not_measured(records: RunRecords, facts: dict[str, Any]) -> list[str]:
    """What a reader might take for fine because nothing is said of it."""
    claims = {claim["id"] for claim in (facts["answer"] or {}).get("claims", [])}
    missing = [
        f"{SHORT[probe].capitalize()}: none were scored before and after. {_GIVE[probe]}"
        for probe in PROBES
        if f"{probe}_loss" not in claims
    ]
    if "retain_loss" not in claims:
        missing.append("Forgetting: no texts of what the base model knew were scored.")
    if not records.evaluations:
        missing.append(
            "Written answers: no answers were graded. `sft eval RUN --data FILE` does that."
        )
    missing += [
        f"{row['guard'].capitalize()}: {_verdict(row)}"
        for row in facts["verdicts"]
        if row["verdict"] in ("not_measured", "insufficient")
    ]
    missing += [
        f"{row['message']}{': ' if row['evidence'] else ''}{row['evidence']}"
        for row in facts["indicators"]
        if row["status"] == "unknown"
    ]
    if not (facts["samples"] or {}).get("rows"):
        missing.append("Samples: no answers were written down at the base and after training.")
    missing += _not_recorded(records)
    missing.append(
        "Other seeds: this is one run. How much of a difference is due to its seed, only runs "
        "with other seeds tell."
    )
    missing.append("Safety, bias and truth of what the model writes: nothing here looks at them.")
    return missing


def _verdict(row: dict[str, Any]) -> str:
    """The verdict and its message, which may begin with the verdict's own words."""
    called, message = str(row["called"]), str(row["message"])
    if message.casefold().startswith(called):
        return message[0].lower() + message[1:]
    return f"{called}. {message}"


_GIVE = {
    "val": "Give some with --val FILE, or let data.val_fraction keep rows back.",
    "usage": "Give prompts as they come in real use with --usage FILE.",
    "test": "Rows in data.test are scored and decide nothing.",
}


def _not_recorded(records: RunRecords) -> list[str]:
    """Files of the run folder that are not there."""
    parts: list[tuple[Any, str]] = [
        (records.events, "Incidents: this run kept no events.jsonl"),
        (records.examples, "Lengths and masks of rows: there is no examples.json"),
        (records.account, "What became of each row: there is no account.json"),
        (records.preflight, "The data before training: there is no preflight.json"),
    ]
    return [f"{text}." for recorded, text in parts if not recorded]
