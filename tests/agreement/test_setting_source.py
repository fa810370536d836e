"""Who chose a setting: the page, the report and the card use the same word."""

from agreement.tellers import page, report, runs_json
from report.run_folders import finished_run
from sft.config import dump_yaml, parse_yaml
from sft.report.card import card

EXPECTED = {
    "data.train": "file",
    "optim.learning_rate": "flag",
    "eval.every": "auto",  # asked for as `auto` in the file, and decided by sft
    "optim.weight_decay": "python",
    "optim.beta1": "default",
    "run.seed": "default",  # by this version not the default, but nobody gave it
}


def run_with(tmp_path, **changes):
    run = finished_run(tmp_path / "mine", run__seed=77)
    saved = parse_yaml(run.config.read_text(), "config.yaml")
    saved["sources"] |= {"eval.every": "file", "optim.weight_decay": "python"}
    run.config.write_text(dump_yaml({**saved, **changes}))
    return run


def sources(run):
    told = {
        "page": {row["key"]: row["source"] for row in page(run, "config")["rows"]},
        "report": {row["key"]: row["source"] for row in report(run)["settings"]},
    }
    return {name: {key: found[key] for key in EXPECTED} for name, found in told.items()}


def test_every_teller_names_the_same_source(tmp_path):
    run = run_with(tmp_path)
    assert sources(run) == {"page": EXPECTED, "report": EXPECTED}
    text = card(report(run))
    for key, source in EXPECTED.items():
        listed = f"- `{key}`" in text
        assert listed == (source != "default"), key


def test_a_run_that_did_not_record_who_gave_a_value(tmp_path):
    run = run_with(tmp_path, sources=None)
    given = {k: "given" for k in ("data.train", "optim.learning_rate", "run.seed")}
    expected = {**EXPECTED, "optim.weight_decay": "default", **given}
    assert sources(run) == {"page": expected, "report": expected}


def test_every_teller_lists_the_same_settings_and_hides_the_same_secrets(tmp_path):
    run = run_with(tmp_path)
    saved = parse_yaml(run.config.read_text(), "config.yaml")
    saved["config"]["alerts"]["webhook"] = "https://hooks.example/T0/secret"
    run.config.write_text(dump_yaml(saved))
    rows = {row["key"]: row["value"] for row in page(run, "config")["rows"]}
    assert rows == runs_json(run)["config"]
    told = {row["key"]: row["value"] for row in report(run)["settings"]}
    assert told.keys() == rows.keys()
    assert rows["alerts.webhook"] == told["alerts.webhook"] == "https://hooks.example/..."


def test_the_commands_that_run_it_again(tmp_path):
    run = run_with(tmp_path)
    seen, told = page(run, "config"), report(run)["reproduce"]
    assert (seen["rerun"], seen["resume"]) == (told["again"], told["resume"])
