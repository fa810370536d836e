"""`model/README.md`: the model card, in Markdown with the YAML header that model hubs read.

Whatever comes from data, config or paths is shown as text: it can become no tag, link, picture or
heading, and no line of the header, which is written by `yaml.safe_dump`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from sft.runs.compare import FEWEST
from sft.runs.files import section
from sft.runs.run_records import PROBES, RunRecords
from sft.texts.markdown import code, text
from sft.texts.numbers import change_in_unit, in_unit, interval_text, points, signed
from sft.texts.safe import all_visible

# The model named `starter` in a config: what it is on the hub, and its licence.
_STARTER = ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,40}")
_MOST_README = 200_000  # characters of a base model's card that are read
_PLACES = ("run.", "trackers.", "alerts.", "data.cache", "model.name")


def card_facts(records: RunRecords) -> dict[str, Any]:
    """What the header of the card says, as far as it is known."""
    name = str(records.setting("model.name", "") or "")
    local = _is_local(name)
    known = _STARTER if name == "starter" else (None, None)
    is_hub = not local and name != "starter" and _HUB_ID.fullmatch(name)
    files = section(records.account, "files")
    sources = section(records.config, "data").get("train")
    paths = [str(s.get("path")) for s in sources if isinstance(s, dict)] if sources else []
    return {
        "base_model": known[0] or (name if is_hub else None),
        "base_name": Path(name).name if local else name,
        "license": known[1] or (_license(Path(name)) if local else None),
        # Of a data set of a hub the account has the revision, of a file its SHA-256.
        "datasets": [p for p in paths if str(files.get(p, "")).startswith(f"{p}@")],
        "version": version("sft"),
    }


def _is_local(name: str) -> bool:
    try:
        return bool(name) and Path(name).exists()
    except (OSError, ValueError):
        return False


def _license(folder: Path) -> str | None:
    """The licence that the card of the base model states; None where it states none."""
    try:
        path = folder / "README.md"
        if not path.is_file():
            return None
        with open(path, encoding="utf-8") as file:
            text = file.read(_MOST_README)
        head = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, ValueError, IndexError, RecursionError, yaml.YAMLError):
        return None
    licence = head.get("license") if isinstance(head, dict) else None
    return licence if isinstance(licence, str) and _LICENSE.fullmatch(licence) else None


def card(facts: Mapping[str, Any]) -> str:
    """The card of a finished run, from its `report.json`.

    It goes where the model goes, so it names files of this machine without their folders.
    """
    facts = all_visible(_unplaced(facts, _places(facts)))
    known, run = facts["card"] or {}, facts["run"] or {}
    name = known.get("base_name") or "a model"
    parts = [
        f"---\n{_header(facts)}---",
        f"# {text(name)}, fine-tuned",
        f"**{text(facts['answer']['title'])}.**",
        *(text(sentence) for sentence in facts["answer"]["sentences"]),
        _bullets(facts["answer"]["notes"]),
        "## Before and after",
        _claims(facts["answer"]["claims"]),
        *_evaluations(facts["answer"]["evaluations"]),
        "## What the guards said of the training",
        _verdicts(facts["verdicts"]),
        "## How it was made",
        _made(facts, known, run),
        _settings(facts["settings"]),
        "## Not measured",
        _bullets(facts["not_measured"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _places(facts: Mapping[str, Any]) -> dict[str, str]:
    """Absolute paths of data and model, the longest first, and what they are called instead."""
    run, again = facts["run"] or {}, facts["reproduce"] or {}
    paths = {run.get("path", ""), run.get("base_model", ""), *run.get("data", [])}
    paths |= set(again.get("files", {}))
    absolute = sorted((p for p in paths if os.path.isabs(p)), key=len, reverse=True)
    return {path: Path(path).name for path in absolute if Path(path).name}


def _unplaced(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for path, name in places.items():
            value = value.replace(path, name)
        return value
    if isinstance(value, dict):
        return {_unplaced(key, places): _unplaced(item, places) for key, item in value.items()}
    return [_unplaced(item, places) for item in value] if isinstance(value, list) else value


def _header(facts: Mapping[str, Any]) -> str:
    known, run = facts["card"] or {}, facts["run"] or {}
    values = {
        "base_model": known.get("base_model"),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": known.get("license"),
        "datasets": known.get("datasets"),
        "tags": ["sft", *(["lora"] if run.get("method") == "lora" else [])],
        "model-index": _index(facts),
    }
    return yaml.safe_dump({k: v for k, v in values.items() if v}, sort_keys=False, width=10_000)


def _index(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures on the held-out rows that decide least; none where they are not those of the model.

    After blending, the paired figures are of other weights, and of a model that was not proven to
    be the one measured nothing should be claimed.
    """
    run = facts["run"] or {}
    claims = {claim["id"]: claim for claim in facts["answer"]["claims"]}
    probe = next((p for p in PROBES if (claims.get(f"{p}_loss") or {"n": 0})["n"] >= FEWEST), None)
    proven = str((facts["reproduce"] or {}).get("verified", "")).startswith("equal")
    if not run.get("finished") or run.get("blend") is not None or probe is None or not proven:
        return []
    loss = claims[f"{probe}_loss"]
    rows = {"val": "validation rows", "usage": "usage rows", "test": "test rows"}[probe]
    if run.get("chosen_by") == probe:
        rows += ", which also chose the step"
    metrics = [
        {"type": kind, "name": f"{kind} on {loss['n']} {rows}", "value": claim["after"]}
        for kind in ("loss", "perplexity", "accuracy")
        if (claim := claims.get(f"{probe}_{kind}")) and claim["after"] is not None
    ]
    dataset = {"name": f"{loss['n']} {rows}", "type": "held-out"}
    result = {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}
    return [{"name": run["name"], "results": [result]}]


# ------------------------------------------------------------------ parts of the text


def _claims(claims: Sequence[Mapping[str, Any]]) -> str:
    if not claims:
        return "No rows were scored both before and after training."
    lines = ["| | rows | before | after | change (95 % interval) | |", "|---|---|---|---|---|---|"]
    for claim in claims:
        unit = claim["unit"]
        form = points if unit.startswith("share") else signed
        change = change_in_unit(claim["value"], unit)
        if claim["interval"]:
            change += f" ({interval_text(tuple(claim['interval']), form)})"
        cells = (
            claim["name"],
            f"{claim['n']:,}" if claim["n"] else "",
            in_unit(claim["before"], unit),
            in_unit(claim["after"], unit),
            change,
            claim["verdict"],
        )
        lines.append(_row(cells))
    return "\n".join(lines)


def _evaluations(evaluations: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    parts = []
    for file, claims in evaluations.items():
        lines = ["| | base | fine-tuned | 95 % interval |", "|---|---|---|---|"]
        for claim in claims:
            ends = claim["interval"]
            spread = " to ".join(in_unit(end, claim["unit"]) for end in ends) if ends else ""
            values = (in_unit(claim[side], claim["unit"]) for side in ("before", "after"))
            lines.append(_row((claim["name"], *values, spread)))
        parts += [f"Answers it wrote ({text(file)}):", "\n".join(lines)]
    return parts


def _row(cells: Sequence[str]) -> str:
    """A row of a table; a bar in it, which would end a cell even in code, becomes a wide one."""
    wide = "\N{FULLWIDTH VERTICAL LINE}"
    return "| " + " | ".join(text(cell.replace("|", wide)) for cell in cells) + " |"


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"- {text(row['guard'])}: **{text(row['called'])}**. {text(row['message'])}" for row in rows
    )


def _made(facts: Mapping[str, Any], known: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    again = facts["reproduce"] or {}
    template = again.get("template", {})
    lines = [
        f"Trained from {code(str(known.get('base_name') or 'unknown'))} on "
        f"{', '.join(code(path) for path in run.get('data', [])) or 'unknown data'} with sft "
        f"{text(str(known.get('version')))}: {text(run.get('method') or 'unknown')} training, "
        f"{run.get('step') or 0:,} steps. These are the weights of step "
        f"{run.get('chosen_step') or 0:,}."
    ]
    if run.get("blend") is not None:
        lines.append(f"They were blended: {run['blend']:g} of the way from the base model.")
    if again.get("verified"):
        lines.append(f"The saved model: {text(again['verified'])}.")
    sha, stop = (again.get("fingerprints") or {}).get("template"), template.get("stop_token")
    if sha and stop:
        lines.append(
            f"The chat template is stored in this folder (sha256 {code(sha)}); an answer ends with "
            f"{code(stop)}, on which generation stops by itself."
        )
    files = "\n".join(
        f"- {code(path)}: {code(sum)}" for path, sum in again.get("files", {}).items()
    )
    return " ".join(lines) + (f"\n\nData files and their SHA-256:\n\n{files}" if files else "")


def _settings(rows: Sequence[Mapping[str, Any]]) -> str:
    """Settings that are not at their default, without those that tell of places and people."""
    listed = [r for r in rows if r["source"] != "default" and not r["key"].startswith(_PLACES)]
    lines = [f"- {code(row['key'])}: {code(row['value'])}" for row in listed]
    return "Settings that are not the default:\n\n" + "\n".join(lines) if lines else ""


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text(one)}" for one in texts)
