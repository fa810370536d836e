"""A run that learned nothing: every teller says so, and says so first."""

import io
import json
from contextlib import redirect_stdout

import pytest

from sft.cli import main
from sft.runs.run_dir import RunDir
from trained import Trained, make_world

NOTHING = "The run learned nothing"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("nothing"))


def test_every_teller_says_that_nothing_was_learned(world):
    still = Trained(world, "still", optim__learning_rate=1e-9, optim__max_steps=4, eval__every=2)
    assert still.summary.headline.startswith(NOTHING)
    ending = still.shown[still.shown.index(NOTHING) :]
    assert ending.index("4 steps") < ending.index("what to watch")
    out = io.StringIO()
    with redirect_stdout(out):
        main(["guards", str(still.path)])
    assert out.getvalue().startswith(NOTHING)
    with redirect_stdout(io.StringIO()):
        main(["report", str(still.path)])
    facts = json.loads(RunDir(still.path).report_json.read_text())
    assert facts["answer"]["title"] == NOTHING and facts["answer"]["sentences"][0].startswith(
        NOTHING
    )


def test_a_run_that_learned_has_no_such_headline(world):
    learned = Trained(world, "learned", optim__max_steps=8)
    assert learned.summary.headline == "" and NOTHING not in learned.shown
