import json
import os
import subprocess
import sys

import pytest

from report.run_folders import finished_run, unfinished_run
from sft.errors import ConfigError, DiskError
from sft.report.write import write_report
from sft.runs.run_dir import RunDir


def names(run):
    return {path.name for path in run.path.iterdir()}


def test_a_finished_run_gets_a_page_its_figures_and_a_card(tmp_path):
    run = finished_run(tmp_path / "mine")
    before = names(run)
    assert write_report(run) == run.report
    assert names(run) - before == {"report.html", "report.json"}
    assert json.loads(run.report_json.read_text())["schema"] == 1
    assert run.card.read_text().startswith("---\nbase_model: HuggingFaceTB/SmolLM2-135M-Instruct\n")
    assert "Better than the base model" in run.report.read_text()


def test_an_unfinished_run_gets_no_card(tmp_path):
    run = unfinished_run(tmp_path / "mine", steps=8)
    run.model.mkdir()  # half a model, as a failed end leaves it
    write_report(run)
    assert "Not finished" in run.report.read_text()
    assert not run.card.exists()


def test_another_place_leaves_the_run_as_it_is(tmp_path):
    run = finished_run(tmp_path / "mine")
    before = names(run)
    assert write_report(run, tmp_path / "it.html") == tmp_path / "it.html"
    assert names(run) == before and not run.card.exists()
    assert json.loads((tmp_path / "it.json").read_text())["run"]["name"] == "mine"


def test_places_that_cannot_be(tmp_path):
    run = finished_run(tmp_path / "mine")
    with pytest.raises(ConfigError, match="no such run folder"):
        write_report(RunDir(tmp_path / "none"))
    with pytest.raises(ConfigError, match="is a folder; give the name of a file"):
        write_report(run, tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        write_report(run, tmp_path / "none" / "it.html")
    with pytest.raises(ConfigError, match="is where its figures go"):
        write_report(run, tmp_path / "it.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_cannot_be_written(tmp_path):
    run = finished_run(tmp_path / "mine")
    run.path.chmod(0o500)
    with pytest.raises(DiskError, match="permission denied"):
        write_report(run)
    run.path.chmod(0o700)


def test_no_torch_is_needed(tmp_path):
    run = finished_run(tmp_path / "mine")
    program = (
        "import sys; from sft.runs.run_dir import RunDir; "
        "from sft.report.write import write_report; "
        f"write_report(RunDir({str(run.path)!r})); "
        "print(sorted({'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (out.stdout, out.returncode) == ("[]\n", 0), out.stderr
