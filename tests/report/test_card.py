import re

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from check.payloads import PAYLOADS
from report.poison import poisoned_run
from report.run_folders import FALL, FILE, edit, finished_run
from sft.report.card import card
from sft.report.report_json import report_json
from sft.runs.run_records import read_run
from sft.texts.markdown import code, text
from sft.texts.safe import visible

# As a hub renders it: tables, strikethrough and HTML; a raw tag would come through.
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def made(run):
    return card(report_json(read_run(run)))


def head(shown):
    return yaml.safe_load(shown.split("---\n")[1])


def test_the_header_says_what_is_known_and_no_more(tmp_path):
    found = head(made(finished_run(tmp_path / "mine")))
    index = found.pop("model-index")
    assert found == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "tags": ["sft"],
    }
    (result,) = index[0]["results"]
    name = "12 validation rows, which also chose the step"
    assert result["dataset"] == {"name": name, "type": "held-out"}
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {
        "loss": pytest.approx(2 + sum(FALL) / 12),
        "perplexity": 2.718,
        "accuracy": pytest.approx(0.5),
    }


def test_a_hub_reads_the_header(tmp_path):
    data = ModelCard(made(finished_run(tmp_path / "mine"))).data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    kinds = {result.metric_type for result in data.eval_results}
    assert kinds == {"loss", "perplexity", "accuracy"}


@pytest.mark.parametrize(
    "change",
    [
        {"best": {"verified": "DIFFERENT: the loss differs by 0.2"}},
        {"best": {"verified": ""}},
        {"best": {"best": {"step": 8, "blend_alpha": 0.5}}},
    ],
)
def test_figures_of_other_weights_are_no_result_of_the_model(tmp_path, change):
    assert "model-index" not in head(made(finished_run(tmp_path / "mine", **change)))


def test_base_models_and_data_of_a_hub_are_named_folders_are_not(tmp_path):
    run = finished_run(
        tmp_path / "hub", model__name="org/base-7b", data__train=["org/rows", "data/rows.jsonl"]
    )
    run.account.write_text('{"files": {"org/rows": "org/rows@abc123", "data/rows.jsonl": "ff"}}')
    found = head(made(run))
    assert (found["base_model"], found["datasets"]) == ("org/base-7b", ["org/rows"])
    assert "license" not in found

    base = tmp_path / "secret place" / "mine-1b"
    base.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: mit\nbase_model: x\n---\n# A model\n")
    shown = made(finished_run(tmp_path / "local", model__name=str(base), method__kind="lora"))
    found = head(shown)
    assert "base_model" not in found and "datasets" not in found
    assert (found["license"], found["tags"]) == ("mit", ["sft", "lora"])
    assert "# mine-1b, fine-tuned" in shown and "secret place" not in shown
    (base / "README.md").write_text("---\nlicense: [a, 'b c']\n---\n")
    again = finished_run(tmp_path / "none", model__name=str(base))
    assert "license" not in head(made(again))


def test_a_card_that_goes_elsewhere_names_no_folder_of_this_machine(tmp_path):
    rows = str(tmp_path / "home" / "me" / "rows.jsonl")
    run = finished_run(tmp_path / "mine", data__train=[rows])
    edit(run.findings, lambda f: {**f, "message": f"{rows}:7 is copied"})
    run.config.write_text(run.config.read_text().replace(FILE, rows))
    shown = made(run)
    assert str(tmp_path) not in shown
    assert "rows.jsonl:7 is copied" in shown and "- `rows.jsonl`: `" in shown


def test_the_text_says_what_the_report_says(tmp_path):
    shown = made(finished_run(tmp_path / "mine", evaluated=True))
    assert "# starter, fine-tuned\n\n**Better than the base model on held-out rows.**" in shown
    assert "| validation rows: loss | 12 | 2.000 | 0.995 |" in shown
    assert "| field accuracy | 10.0 % | 70.0 % | 57.0 % to 80.0 % |" in shown
    assert "- forgetting: **too little data to tell**." in shown
    assert f"Trained from `starter` on `{FILE}` with sft" in shown
    assert "- `optim.learning_rate`: `0.0001`" in shown
    assert f"- `{FILE}`: `{'ab' * 32}`" in shown
    assert "an answer ends with `<|end|>`, on which generation stops by itself." in shown
    assert "## Not measured\n\n- Test rows: none were scored" in shown
    tables = MARKDOWN.render(shown.split("---\n", 2)[2])
    assert tables.count("<table>") == 2


ALLOWED = {
    "h1", "h2", "p", "strong", "ul", "li", "code",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


@pytest.mark.parametrize("offset", range(0, 42, 7))
def test_text_of_the_folder_stays_text(tmp_path, offset):
    shown = made(poisoned_run(tmp_path, offset))
    header, _, body = shown.removeprefix("---\n").partition("---\n")
    assert set(yaml.safe_load(header)) <= {
        "library_name",
        "pipeline_tag",
        "tags",
        "model-index",
    }
    rendered = MARKDOWN.render(body)
    assert {tag.split()[0] for tag in re.findall(r"<([a-z][^<>]*)>", rendered)} <= ALLOWED
    assert rendered.count("<table>") == 2
    assert [tag for tag in re.findall(r"<[^<>]+>", rendered) if "=" in tag] == []


@pytest.mark.parametrize("payload", [*PAYLOADS, "- x", "1. x", "# x", "---", "a|b", "`", "``` x"])
def test_one_text_is_one_paragraph_of_what_it_says(payload):
    for write, tags in ((text, ALLOWED - {"h1", "h2", "ul", "li"}), (code, {"p", "code"})):
        rendered = MARKDOWN.render(f"{write(payload)} end")
        assert {tag.strip("</>") for tag in re.findall(r"<[^<>]*>", rendered)} <= tags
        seen = re.sub(r"</?(p|code|strong)>", "", rendered).split()
        for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
            seen = [word.replace(entity, character) for word in seen]
        assert seen == [*visible(payload).split(), "end"]
