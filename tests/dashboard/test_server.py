"""The routes: the page and its files, JSON about runs, and what happens when something is odd."""

import json
import os
import re
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import plotly
import pytest

from served import Server, add, step_record, write_run
from sft.dashboard.folders import DEPTH, Folders, search
from sft.dashboard.page_data import PAGE_DATA
from sft.dashboard.server import BASE_STYLE, STATIC, VIEWS
from sft.runs.index import run_id
from sft.runs.run_dir import RunDir

# An answer that fails on purpose, one that takes long, and one that is no JSON.
ODD_ANSWERS = """
import time
from sft.dashboard import page_data
from sft.errors import ConfigError
def failing(run, query):
    raise KeyError("a\\x1b[31m field")
def asked_wrongly(run, query):
    raise ConfigError("x=nonsense: expected step")
def slow(run, query):
    time.sleep(float(query.get("seconds", 0)))
    return {"nan": float("nan"), "half": "\\ud800", "query": dict(query)}
page_data.PAGE_DATA.update(guards=failing, data=asked_wrongly, config=slow)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    runs = tmp_path_factory.mktemp("world") / "runs"
    write_run(runs / "a", num_steps=5)
    write_run(runs / "deeper" / "still" / "b")
    write_run(runs / "deeper" / "still" / "too" / "deep")
    return runs


@pytest.fixture(scope="module")
def server(folder):
    with Server(folder) as started:
        yield started


def test_the_page_and_its_files_are_served_and_kept_by_the_browser(server):
    status, headers, body = server.ask("/")
    assert (status, body) == (200, (STATIC / "index.html").read_bytes())
    assert headers["content-type"].startswith("text/html")
    for path in (*STATIC.iterdir(), BASE_STYLE):
        if path.suffix in (".js", ".css", ".svg"):
            status, headers, body = server.ask(f"/static/{path.name}")
            assert (status, body) == (200, path.read_bytes())
            unchanged = server.ask(f"/static/{path.name}", if_none_match=headers["etag"])
            assert (unchanged[0], unchanged[2]) == (304, b"")
    assert server.ask("/static/app.js")[1]["content-type"].startswith("text/javascript")
    assert server.ask("/static/app.css")[1]["content-type"].startswith("text/css")


def test_everything_the_page_names_is_there(server):
    page = (STATIC / "index.html").read_text()
    named = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert "/static/app.js" in named
    assert [path for path in named if server.ask(path, "HEAD")[0] != 200] == []


def test_plotly_comes_from_its_package(server):
    path = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    status, headers, body = server.ask("/plotly.min.js")
    assert (status, body) == (200, path.read_bytes())
    assert headers["content-type"].startswith("text/javascript")


def test_runs_are_found_below_the_folder(server, folder):
    found = server.json("/api/runs")
    assert found["folder"] == str(folder)
    rows = {row["name"]: row for row in found["runs"]}
    assert set(rows) == {"a", "b"}  # the third is deeper than that
    assert rows["a"]["id"] == run_id(folder / "a")
    assert (rows["a"]["step"], rows["a"]["path"]) == (5, str(folder / "a"))


def test_every_view_is_the_answer_of_its_function(server, folder):
    run, path = RunDir(folder / "a"), f"/api/runs/{run_id(folder / 'a')}"
    assert set(PAGE_DATA) == {"snapshot", *VIEWS}
    assert server.json(path)["cursor"] == PAGE_DATA["snapshot"](run, {})["cursor"]
    for view in VIEWS:
        assert server.json(f"{path}/{view}") == json.loads(json.dumps(PAGE_DATA[view](run, {})))
    query = {"names": "loss", "x": "step", "width": "3", "smooth": "0.5"}
    text = "&".join(f"{name}={value}" for name, value in query.items())
    assert server.json(f"{path}/series?{text}") == PAGE_DATA["series"](run, query)


def test_two_runs_are_compared(server, folder):
    ids = server.ids()
    found = server.json(f"/api/compare?runs={ids['a']},{ids['b']}&probe=val")
    assert [row["name"] for row in found["runs"]] == ["a", "b"]
    assert server.ask("/api/compare")[0] == 400
    assert server.ask("/api/compare?runs=" + ",".join(["0" * 12] * 21))[0] == 400
    assert server.ask(f"/api/compare?runs={ids['a']},{'0' * 12}")[0] == 404


def test_what_is_not_there_is_said(server):
    run = server.ids()["a"]
    for path in (
        "/nothing",
        "/api",
        "/api/",
        "/api/runs/",
        f"/api/runs/{run}/",
        f"/api/runs/{run}/snapshot",
        f"/api/runs/{run}/nothing",
        "/api/runs/000000000000",
        f"/runs/{run}",
        f"/runs/{run}/report.html",
        "/static/",
        "/favicon.ico",
    ):
        status, headers, body = server.ask(path)
        assert (status, headers["content-type"]) == (404, "application/json"), path
        assert json.loads(body)["error"]


def test_runs_appear_and_go_by_themselves(tmp_path):
    with Server(tmp_path) as server:
        assert server.json("/api/runs")["runs"] == []
        write_run(tmp_path / "new")
        wait_until(lambda: list(server.ids()) == ["new"])
        shutil.rmtree(tmp_path / "new")
        wait_until(lambda: server.ids() == {})


def wait_until(is_true, seconds=10):
    pause = threading.Event()
    for _ in range(int(seconds / 0.1)):
        if is_true():
            return
        pause.wait(0.1)
    assert is_true()


def test_a_run_without_records_and_one_with_odd_ones_do_no_harm(tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.lock").touch()
    odd = tmp_path / "odd"
    odd.mkdir()
    names = ("config.yaml", "metrics.jsonl", "events.jsonl", "findings.jsonl", "samples.jsonl")
    for name in (*names, "account.json", "preflight.json", "summary.json", "examples.json"):
        (odd / name).write_bytes(b'[1, {"a": \xff\n{"step": "x"}\n7\n')
    with Server(tmp_path) as server:
        for known_as in server.ids().values():
            assert server.ask(f"/api/runs/{known_as}")[0] in (200, 500)
            for view in VIEWS:
                status, _, body = server.ask(f"/api/runs/{known_as}/{view}")
                assert status == 200 or json.loads(body)["error"]
        assert len(server.ids()) == 2


def test_an_answer_that_fails_is_told_and_ends_nothing(tmp_path):
    run = f"/api/runs/{run_id(write_run(tmp_path / 'a'))}"
    with Server(tmp_path, before=ODD_ANSWERS) as server:
        for _ in range(2):
            status, _, body = server.ask(f"{run}/guards")
            assert (status, json.loads(body)) == (500, {"error": r"KeyError: 'a\x1b[31m field'"})
        status, _, body = server.ask(f"{run}/data")
        assert (status, json.loads(body)) == (400, {"error": "x=nonsense: expected step"})
        found = server.json(f"{run}/config?a=1&b=%3Cb%3E")
        assert found == {"nan": None, "half": "?", "query": {"a": "1", "b": "<b>"}}
        server.end()
        told = server.process.stderr.read().splitlines()
    assert told == [rf"sft watch: {run}/guards: KeyError: 'a\x1b[31m field'"] * 2 + ["", "stopped"]


def test_a_slow_answer_holds_back_neither_the_others_nor_the_end(tmp_path):
    run = f"/api/runs/{run_id(write_run(tmp_path / 'a'))}"
    with Server(tmp_path, before=ODD_ANSWERS) as server:
        server.json(f"{run}")  # what is loaded with the first question takes its time
        waiting = threading.Thread(target=ask_in_vain, args=(server, f"{run}/config?seconds=60"))
        waiting.start()
        for _ in range(5):
            assert server.ask("/")[0] == 200
            assert server.json(run)["step"] == 3
        assert server.end() < 15
        waiting.join()
    assert server.process.returncode == 130


def ask_in_vain(server, path):
    with suppress(OSError, IndexError):  # cut off, or told that the server ends
        assert server.ask(path)[0] == 500


def test_a_search_follows_no_link_and_does_not_eval_into_runs(tmp_path):
    inside = write_run(tmp_path / "run")
    write_run(inside / "checkpoints" / "nested")
    write_run(tmp_path / ".tmp-hidden" / "x")
    (tmp_path / "link").symlink_to(write_run(tmp_path.parent / f"{tmp_path.name}-outside"))
    deep = tmp_path.joinpath(*"123"[: DEPTH - 1])
    write_run(deep / "last")
    write_run(deep / "more" / "beyond")
    assert sorted(search([tmp_path])) == sorted([inside, deep / "last"])
    assert list(search([inside])) == [inside]
    # What the user names may be a link, and may be named twice.
    assert len(Folders([tmp_path / "link", tmp_path / "link", inside, tmp_path / "none"])) == 2


def test_text_of_any_kind_comes_through(tmp_path):
    name = os.fsdecode(b"na\xffme <b>\n")
    run = write_run(tmp_path / name)
    add(run / "metrics.jsonl", step_record(4, note="\ud800 </script>", odd=float("nan")))
    with Server(tmp_path) as server:
        (row,) = server.json("/api/runs")["runs"]
        assert row["id"] == run_id(run)
        assert row["name"].endswith("me <b>\n")
        assert server.json(f"/api/runs/{row['id']}")["step"] == 4


def test_the_server_is_small_until_it_is_asked(server, tmp_path):
    """Torch is never loaded, and scipy not before somebody looks at a run."""
    before = "import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules)))"
    write_run(tmp_path / "a")
    with Server(tmp_path, before=before) as started:
        started.json("/api/runs")
        started.end()
        loaded = set(started.process.stdout.read().split())
    assert "sft.dashboard.live" in loaded
    heavy = ("torch", "transformers", "scipy", "sklearn", "plotly", "matplotlib", "pyarrow")
    assert [name for name in heavy if name in loaded] == []
