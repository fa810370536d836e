"""The answer in words: what a reader should take away who reads nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from sft.guards.judge import GUARDS
from sft.report.claims import (
    NAMES,
    SHORT,
    Claim,
    blend_claims,
    evaluation_claims,
    paired_claims,
    perplexities,
)
from sft.runs.compare import FEWEST
from sft.runs.files import items, number, objects, section, whole
from sft.runs.run_records import PROBES, RunRecords
from sft.runs.settings import resume_command
from sft.runs.state import RUNNING
from sft.texts.numbers import figure, in_unit, interval_text, p_text, signed

# How the headline is marked: a shape and a colour.
Kind = Literal["good", "warning", "error", "info"]
# The first of these in an evaluation is told in a sentence.
_MEASURES = ("exact_match", "field_accuracy", "token_f1", "json_valid")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said first. `sentences` are for everyone, `notes` what takes some of it back."""

    kind: Kind
    title: str
    sentences: list[str]
    notes: list[str]
    claims: list[Claim] = field(default_factory=list)
    evaluations: dict[str, list[Claim]] = field(default_factory=dict)

    @property
    def every(self) -> list[Claim]:
        """All claims, those of the evaluations last."""
        return [*self.claims, *(claim for claims in self.evaluations.values() for claim in claims)]


def answer(records: RunRecords) -> Answer:
    """The answer for a run in any state. Only a finished one is called better or worse."""
    claims = sorted([*paired_claims(records), *perplexities(records)], key=_order)
    claims += blend_claims(records)
    evaluations = evaluation_claims(records)
    by_id = {claim.id: claim for claim in claims}
    if not records.finished:
        kind, title, sentences = _unfinished(records)
        claims = [replace(claim, verdict="not judged: not finished") for claim in claims]
        step = records.compared
        note = (
            "Nothing was measured after the first step."
            if step is None
            else f"The figures are those of step {step:,}, the newest that was measured, as they "
            "stood."
        )
        return Answer(kind, title, sentences, [note], claims, evaluations)
    main = _main(by_id)
    kind, title, sentences = _verdict(by_id, main)
    if headline := records.summary.get("headline"):
        kind, title = "warning", "The run learned nothing"
        sentences.insert(0, f"{str(headline).rstrip('.')}.")
    sentences += _retained(by_id.get("retain_loss"))
    sentences += _evaluated(records, evaluations)
    if alarms := alarming(records):
        kind = "warning" if kind in ("good", "info") else kind
        sentences.append(_alarms(records, alarms))
    if str(records.summary.get("verified", "")).startswith("DIFFERENT"):
        kind, title = "error", "The saved model is not the one that was measured"
        sentences.insert(0, str(records.summary["verified"]))
    return Answer(kind, title, sentences, _notes(records, main), claims, evaluations)


def _order(claim: Claim) -> tuple[int, int]:
    """By probe, and of each loss, perplexity, accuracy."""
    probe, _, measure = claim.id.rpartition("_")
    measures = ("loss", "perplexity", "accuracy")
    return [*PROBES, "retain"].index(probe), measures.index(measure)


def _main(by_id: Mapping[str, Claim]) -> str:
    """The claim that answers: of the rows that decide least, where they are enough to tell."""
    losses = [claim for p in PROBES if (claim := by_id.get(f"{p}_loss"))]
    enough = [claim for claim in losses if claim.n >= FEWEST]
    return next((claim.id for claim in enough or losses), "")


def _alarms(records: RunRecords, alarms: Sequence[str]) -> str:
    text = f"After the last evaluation these guards alarm: {', '.join(alarms)}"
    if records.chosen is not None and records.chosen != records.steps:
        text += f" (the model is that of step {records.chosen:,}, which is an earlier one)"
    return f"{text}. See the verdicts."


def alarming(records: RunRecords) -> list[str]:
    """The guards whose last verdict is an alarm."""
    guards = objects(records.summary, "guards")
    alarms = {str(f.get("guard")) for f in guards if f.get("verdict") == "alarm"}
    known = list(GUARDS)
    order = sorted(alarms, key=lambda name: (known.index(name) if name in known else 99, name))
    return [name.replace("_", " ") for name in order]


# ------------------------------------------------------------------ a finished run


def _verdict(by_id: Mapping[str, Claim], main: str) -> tuple[Kind, str, list[str]]:
    claim = by_id.get(main)
    if claim is None:
        sentence = (
            "No rows were held out and scored before and after training, so the question cannot be "
            "answered. Give some with --val, --usage or --test."
        )
        return "info", "Whether it is better cannot be said", [sentence]
    probe = main.removesuffix("_loss")
    others = [c for p in PROBES if (c := by_id.get(f"{p}_loss")) and c.id != main]
    title, kind = _title(claim, probe, others, by_id.get("retain_loss"))
    return kind, title, [_lay(claim, by_id.get(f"{probe}_perplexity"), probe)]


def _title(
    claim: Claim, probe: str, others: Sequence[Claim], retained: Claim | None
) -> tuple[str, Kind]:
    if claim.verdict == "better":
        worse = [c.id.removesuffix("_loss") for c in others if c.verdict == "worse"]
        if worse:
            return f"Better on {SHORT[probe]}, worse on {SHORT[worse[0]]}", "warning"
        if retained and retained.verdict == "over the budget":
            return "Better on the task, but it forgot more than the budget allows", "warning"
        return "Better than the base model on held-out rows", "good"
    if claim.verdict == "worse":
        return "Worse than the base model on held-out rows", "error"
    if claim.verdict == "no difference seen":
        return "No difference to the base model was seen", "info"
    return "Too few held-out rows to tell whether it is better", "info"


def _lay(claim: Claim, unsure: Claim | None, probe: str) -> str:
    """What was found, for someone who has never heard of a nat."""
    where = f"On {claim.n:,} {NAMES[probe]}"
    if claim.verdict in ("better", "worse"):
        text = f"{where} the model predicts the right answers {claim.verdict} than the base model"
        if unsure:
            text += (
                ": word piece by word piece it is as unsure as between "
                f"{figure(unsure.after, 1)} equal choices, where the base model is as unsure as "
                f"between {figure(unsure.before, 1)}"
            )
        return (
            f"{text}. The loss of a row changed by {signed(claim.value)} nats per token (95 % "
            f"interval {interval_text(claim.interval)}, {p_text(claim.p)})."
        )
    if claim.verdict == "no difference seen":
        least = (
            "no difference could be detected with so few rows"
            if claim.mde is None
            else f"one of {figure(claim.mde)} nats per token would be detected four times in five"
        )
        return (
            f"{where} the loss changed by {signed(claim.value)} nats per token, which is within "
            f"what chance does ({least})."
        )
    return (
        f"{where} the loss changed by {signed(claim.value)} nats per token. That may be chance: "
        "at least 8 rows are needed to tell."
    )


def _retained(claim: Claim | None) -> list[str]:
    if claim is None:
        return ["Whether it forgot what the base model knew was not measured."]
    result = {
        "over the budget": "The price: it forgot.",
        "within the budget": "What the base model knew, it kept.",
        "cannot be told from the budget": "Whether it forgot more than allowed cannot be told.",
    }
    text = (
        f"On {claim.n:,} texts that stand for what the base model knew, the loss changed by "
        f"{signed(claim.value)} nats per token (95 % interval {interval_text(claim.interval)})"
    )
    if claim.budget is not None:
        text += f"; the budget is {claim.budget:g}"
    return [f"{result.get(claim.verdict, '')} {text}.".strip()]


def _evaluated(records: RunRecords, evaluations: Mapping[str, Sequence[Claim]]) -> list[str]:
    """One sentence for each evaluation of answers that were written, not only scored."""
    sentences = []
    for file, claims in evaluations.items():
        by_measure = {claim.id.rpartition(".")[2]: claim for claim in claims}
        name = next((name for name in _MEASURES if name in by_measure), None)
        if name is None:
            continue
        claim, where = by_measure[name], records.evaluations[file]
        rows = whole(where.get("num_rows")) or claim.n
        spread = interval_text(claim.interval, partial(in_unit, unit=claim.unit))
        text = (
            f"In its written answers to {rows:,} rows ({file}), {name.replace('_', ' ')} is "
            f"{in_unit(claim.after, claim.unit)} ({spread}), "
            f"{in_unit(claim.before, claim.unit)} for the base model"
        )
        if claim.verdict == "no difference seen":
            text += ": the intervals overlap, so no difference was seen"
        sentences.append(f"{text}.")
    return sentences


def _notes(records: RunRecords, main: str) -> list[str]:
    """What makes the figures less than they seem."""
    notes = []
    best = records.best
    if best.num_evals > 1 and best.chosen_by == main:
        notes.append(
            f"The step was chosen as the best of {best.num_evals} evaluations on these same "
            f"{SHORT[best.probe]}, which "
            "makes the figure a little too good. Rows in data.test would decide nothing."
        )
    leaks = whole(section(records.preflight, "rows").get("num_leaks"))
    if leaks:
        notes.append(f"{leaks:,} validation rows are in training too: their figures are too good.")
    if records.blended is not None:
        notes.append(
            f"The model was blended with its base ({records.blended:g} of the way). Rows compared "
            "one by one are of the weights before that, except test rows; the blend's own figures "
            "stand below them."
        )
    if records.chosen is None:
        notes.append(
            "Which step the model is of is not known: summary.json does not tell."
            if records.run.summary.is_file()
            else "The run was watched in another trainer, which chose the weights itself."
        )
    notes += [
        f"{file}: {note}"
        for file, evaluation in records.evaluations.items()
        for note in items(evaluation, "notes")
        if isinstance(note, str)
    ]
    if text := records.summary.get("stopped"):
        notes.append(f"Training ended early: {text}.")
    return notes + _other_model(records)


def _other_model(records: RunRecords) -> list[str]:
    """What `sft blend` made of the run afterwards, which is another model."""
    alpha = number(records.blend.get("alpha"))
    points = [p for p in objects(records.blend, "points") if number(p.get("alpha")) == alpha]
    if records.blended is not None or not alpha or not points:
        return []
    task, knew = (number(section(points[0], name).get("mean")) for name in ("task", "retain"))
    return [
        f"Blending made a second model ({alpha:g} of the way from the base model, blend.json): "
        f"loss on the task {signed(task)}, on what the base model knew {signed(knew)} nats per "
        "token. No other figure here is of that model."
    ]


# ------------------------------------------------------------------ any other run


def _unfinished(records: RunRecords) -> tuple[Kind, str, list[str]]:
    state, of = records.state.state, progress(records)
    if state in RUNNING:
        return "info", f"Not finished: the run is still going ({state}), {of}", []
    past = {"failed": "failed", "interrupted": "was interrupted", "killed": "was killed"}
    title = (
        f"Not finished: the run {past[state]} {of}"
        if state in past
        else f"Not known to be finished: the run ended {of}"
    )
    why = records.state.detail
    sentences = [f"Why: {why.rstrip('.')}." if why else "It left no word why."]
    saved = checkpoints(records)
    resume = resume_command(records.run)
    sentences.append(
        f"Its complete state is saved after step {saved[-1]:,}. This command continues it: "
        f"`{resume}`."
        if saved
        else f"No checkpoint was saved. This command starts it again: `{resume}`."
    )
    sentences.append("No model was chosen or proven, so nothing is claimed about one.")
    return ("error" if state in ("failed", "killed") else "warning"), title, sentences


def progress(records: RunRecords) -> str:
    """`after step 12 of 24`."""
    if not records.steps:
        return "before the first step was made"
    done = whole(records.last.get("step")) or records.steps
    planned = records.state.num_steps
    return f"after step {done:,}" + (f" of {planned:,}" if planned else "")


def checkpoints(records: RunRecords) -> list[int]:
    """The steps of the checkpoints that are there, in order."""
    try:
        names = [path.name for path in records.run.checkpoints.iterdir()]
    except OSError:
        return []
    ends = [name.removeprefix("step-") for name in names if name.startswith("step-")]
    return sorted(int(end) for end in ends if end.isdecimal() and len(end) < 16)
