"""Services that take a connection and never answer: the end waits 5 s, and nothing is lost."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sft.runs.run_dir import RunDir
from sft.trackers.installed import missing
from tracked import ROOT, hanging_server, sft, webhook

HANGING = [name for name in ("wandb", "mlflow") if missing(name) is None]
PROGRAM = """
import json, sys, time
from pathlib import Path
from sft.trackers.follow import Followers
from tracked import begin, end, new_run, write_steps
folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
run, config = new_run(folder, settings)
told = []
with Followers(run, config, told.append) as followers:
    begin(run)
    followers.start()
    began = time.monotonic()
    write_steps(run, 1, 12)
    wrote = time.monotonic() - began
    time.sleep(4)  # the libraries are loaded, and wait for the server
    end(run)
    began = time.monotonic()
waited = time.monotonic() - began
print(json.dumps({"wrote": wrote, "waited": waited, "told": told, "ended": time.time()}))
"""


@pytest.mark.slow
def test_hanging_services_delay_the_end_by_five_seconds_and_lose_nothing(tmp_path):
    folder = tmp_path / "run"
    settings = {f"trackers.{name}": True for name in HANGING}
    with hanging_server() as url:
        settings["alerts.webhook"] = url
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder), json.dumps(settings)],
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
                "WANDB_BASE_URL": url,
                "WANDB_API_KEY": "0" * 40,
                "MLFLOW_TRACKING_URI": url,
            },
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        ended = time.time()
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["wrote"] < 2
    assert result["waited"] < 6.5  # 5 s, and what a busy machine adds
    assert ended - result["ended"] < 30  # left alone, wandb waits 90 s at the exit
    told = "\n".join(result["told"])
    for name in HANGING:
        assert f"16 records were not sent to {name}" in told
        assert f"`sft track {folder} --to {name}` sends them" in told
    assert "1 alert was not sent" in told
    send_all(folder, tmp_path)


def send_all(folder, tmp_path):
    """Later, when the services are there again."""
    database = tmp_path / "mlflow.db"
    later = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    for name in HANGING:
        code, out, err = sft("track", folder, "--to", name, **later)
        assert (code, out) == (0, f"records sent to {name}: 16\n"), err
    if "mlflow" in HANGING:
        with sqlite3.connect(database) as store:
            sent = store.execute("SELECT step FROM metrics WHERE key = 'loss' ORDER BY step")
            assert [step for (step,) in sent] == [*range(1, 13)]
    run = RunDir(folder)
    text = run.config.read_text()
    with webhook() as (url, bodies):
        old = next(line for line in text.splitlines() if "webhook:" in line)
        run.config.write_text(text.replace(old, f"    webhook: {url}"))
        assert sft("track", folder, "--to", "alerts")[:2] == (0, "alerts sent: 1\n")
    assert [body["kind"] for body in bodies] == ["finished"]
    assert Path(folder / "trackers" / "alerts.json").is_file()
