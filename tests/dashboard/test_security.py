"""Who is let in, and what can never be reached: asked of a real server over a raw socket."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

import sft
from served import Server, add, step_record, write_run
from sft.dashboard import security
from sft.dashboard.security import Gate, is_loopback

# Every file the server opens, from the first line of its program on, one a line.
AUDIT = """
import os, sys
_out = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def _hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        os.write(_out, os.fsencode(arguments[0]) + b"\\n")
sys.addaudithook(_hook)
"""
SECRET = "the secret outside"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders `runs`, which is served, and `outside`, which is not, but linked to."""
    root = tmp_path_factory.mktemp("world")
    runs, outside = root / "runs", root / "outside"
    write_run(outside)
    (outside / "report.html").write_text(SECRET)
    add(outside / "secret.jsonl", step_record(7, secret=SECRET))
    good = write_run(runs / "good")
    (good / "report.html").write_text("<p>fine</p>")
    (runs / "linked").symlink_to(outside)
    leak = write_run(runs / "leak")
    (leak / "metrics.jsonl").unlink()
    (leak / "metrics.jsonl").symlink_to(outside / "secret.jsonl")
    probes = write_run(runs / "probes-leak")
    (probes / "probes").symlink_to(outside)
    (write_run(runs / "report-leak") / "report.html").symlink_to(outside / "report.html")
    pipe = write_run(runs / "pipe")
    for name in ("metrics.jsonl", "report.html"):
        (pipe / name).unlink(missing_ok=True)
        os.mkfifo(pipe / name)
    inside = write_run(runs / "inside")
    (inside / "metrics.jsonl").rename(inside / "kept.jsonl")
    (inside / "metrics.jsonl").symlink_to("kept.jsonl")
    return root


@pytest.fixture(scope="module")
def server(world):
    opened = world / "opened"
    with Server(world / "runs", before=AUDIT.format(path=str(opened))) as started:
        started.opened = opened
        yield started


def paths_of(run):
    views = ("series", "guards", "samples", "data", "config", "events", "stream", "nothing")
    pages = ("/", "/static/index.html", "/static/nothing", "/plotly.min.js", "/token", "/nothing")
    lists = ("/api/runs", "/api/stream", "/api/compare?runs=a,b", "/api/runs/000000000000")
    return [
        *(*pages, *lists, f"/api/runs/{run}", f"/runs/{run}/report.html"),
        *(f"/api/runs/{run}/{view}" for view in views),
    ]


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


def test_the_address_it_printed_is_answered(server):
    for name in ("127.0.0.1", "localhost", "[::1]", "LocalHost"):
        assert server.ask("/api/runs", host=f"{name}:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1.evil.com:{port}",
        "GET {path} HTTP/1.1\r\nHost: evil.com:{port}",
        "GET {path} HTTP/1.1\r\nHost: evil.com",
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1",
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{other}",
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}#evil.com",
        "GET {path} HTTP/1.1\r\nHost: evil.com#127.0.0.1:{port}",
        "GET {path} HTTP/1.1\r\nHost: evil.com@127.0.0.1:{port}",
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}@evil.com",
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}, evil.com",
        "GET {path} HTTP/1.1\r\nHost: [::ffff:127.0.0.1]:{port}",
        "GET {path} HTTP/1.1\r\nHost: localhost.:{port}",
        "GET {path} HTTP/1.1\r\nHost: 0.0.0.0:{port}",
        "GET {path} HTTP/1.1\r\nHost: ",
        "GET {path} HTTP/1.1\r\nX-Forwarded-Host: 127.0.0.1:{port}\r\nHost: evil.com:{port}",
        "GET {path} HTTP/1.1\r\nAccept: */*",
        "GET {path} HTTP/1.0\r\nAccept: */*",
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.com:{port}",
        "GET {path} HTTP/1.1\r\nHost: evil.com:{port}\r\nHost: 127.0.0.1:{port}",
        "GET http://evil.com:{port}{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}",
        "GET http://127.0.0.1:{port}{path} HTTP/1.1\r\nHost: evil.com:{port}",
    ],
)
def test_another_host_is_refused(server, head):
    for path in ("/", "/api/runs", "/static/index.html"):
        text = head.format(path=path, port=server.port, other=server.port + 1)
        answer = server.raw(f"{text}\r\n\r\n".encode())
        # 400 where the request is none at all, which uvicorn says before anybody is asked.
        assert status_of(answer) in (400, 421), answer
        assert b"<html" not in answer and b'"runs"' not in answer


def test_only_get_and_head_exist(server):
    run = server.ids()["good"]
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "LINK", "get"):
        for path in paths_of(run):
            status, headers, _ = server.ask(path, method)
            assert (status, headers["allow"]) == (405, "GET, HEAD"), (method, path)
    for path in paths_of(run):
        status, headers, body = server.ask(path, "HEAD")
        assert status in (200, 204, 404), path
        assert body == b""


def test_every_answer_is_locked_down_and_none_is_shared(server):
    run = server.ids()["good"]
    asked = [server.ask(path, "HEAD", origin="http://evil.com") for path in paths_of(run)]
    asked += [server.ask("/", "POST"), server.ask("/", host="evil.com")]
    asked += [server.ask("/", sec_fetch_site="cross-site")]
    for _, headers, _ in asked:
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "no-store" in headers["cache-control"] or "no-cache" in headers["cache-control"]
        assert [name for name in headers if name.startswith("access-control")] == []
        assert "server" not in headers


def test_the_report_may_run_nothing(server):
    status, headers, body = server.ask(f"/runs/{server.ids()['good']}/report.html")
    assert (status, body) == (200, b"<p>fine</p>")
    policy = headers["content-security-policy"]
    assert policy == security.REPORT_POLICY
    assert "sandbox" in policy and "script-src" not in policy


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("none", "navigate", 200),
        ("same-origin", "cors", 200),
        ("same-site", "navigate", 200),
        ("same-site", "no-cors", 403),
        ("cross-site", "navigate", 403),
        ("cross-site", "no-cors", 403),
        ("Cross-Site", "cors", 403),
    ],
)
def test_other_sites_are_refused(server, site, mode, status):
    for path in ("/", "/api/runs", "/static/index.html"):
        headers = {"sec_fetch_site": site, "sec_fetch_mode": mode}
        assert server.ask(path, **headers)[0] == status


OUT = "outside/report.html"
TRAVERSALS = [
    f"../{OUT}",
    f"../../{OUT}",
    f"..%2f{OUT}",
    f"..%2F..%2F{OUT}",
    f"%2e%2e/{OUT}",
    f"%2e%2e%2f%2e%2e%2f{OUT}",
    f"..%252f{OUT}",
    f"%252e%252e%252f{OUT}",
    f"..%5c..%5c{OUT}",
    f"..\\..\\{OUT}",
    f"....//{OUT}",
    f"..;/{OUT}",
    f"..%00/{OUT}",
    f"index.html%00/../{OUT}",
    f"%c0%ae%c0%ae/{OUT}",
    f"%uff0e%uff0e/{OUT}",
    f".%2e/{OUT}",
    f"./.././../{OUT}",
    "/{root}/" + OUT,
    "%2f{root}%2f" + OUT,
    "file://{root}/" + OUT,
    "~root/.bashrc",
    "/etc/passwd",
    "..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "linked/report.html",
    "linked",
    "x" * 5000,
    "%ff%fe",
]


def test_no_text_of_a_request_leads_anywhere(server, world):
    run = server.ids()["good"]
    for path in paths_of(run):  # so that what is loaded with the first question is loaded
        server.ask(path, "HEAD")
    before = len(server.opened.read_bytes())
    for text in TRAVERSALS:
        text = text.replace("{root}", str(world).strip("/"))
        for place in ("/static/", "/runs/", f"/runs/{run}/", "/api/runs/", f"/api/runs/{run}/"):
            for tail in ("", "/report.html"):
                status, _, body = server.ask(place + text + tail)
                assert status in (400, 404), (place, text)
                assert SECRET.encode() not in body and b"root:" not in body
        assert server.ask(f"/api/compare?runs={text},{run}")[0] == 404
        assert server.ask(f"/api/runs/{run}/stream?from={text}")[0] == 400
    opened = server.opened.read_bytes()[before:].splitlines()
    fine = [os.fsencode(folder) for folder in allowed_folders(world)]
    assert [path for path in opened if not path.startswith(tuple(fine))] == []


def allowed_folders(world):
    """The served runs, and Python's own files."""
    package = Path(sft.__file__).parent
    return [f"{world}/runs/good/", str(package), sys.prefix, sys.base_prefix, "/proc/"]


def test_nothing_outside_was_ever_opened(server, world):
    for row in server.json("/api/runs")["runs"]:
        for view in ("", "/series", "/guards", "/samples", "/data", "/config", "/events"):
            server.ask(f"/api/runs/{row['id']}{view}")
    opened = set(server.opened.read_bytes().splitlines())
    assert os.fsencode(world / "runs/good/metrics.jsonl") in opened  # the list is one
    assert [path for path in opened if b"/outside" in path] == []
    for name in ("leak", "pipe", "probes-leak", "linked"):
        assert [path for path in opened if f"/runs/{name}/".encode() in path] == []


def test_links_out_of_a_run_and_pipes_are_told_and_not_read(server):
    rows = {row["name"]: row for row in server.json("/api/runs")["runs"]}
    assert set(rows) == {"good", "leak", "probes-leak", "report-leak", "pipe", "inside"}
    reasons = {
        "leak": "not served: metrics.jsonl leads out of the run folder",
        "probes-leak": "not served: probes leads out of the run folder",
        "pipe": "not served: metrics.jsonl is no regular file",
    }
    for name, reason in reasons.items():
        assert (rows[name]["state"], rows[name]["detail"]) == ("unknown", reason)
        for view in ("", "/series", "/stream"):
            status, _, body = server.ask(f"/api/runs/{rows[name]['id']}{view}")
            assert status == 404
            assert json.loads(body)["error"] == f"{name} is {reason}"
    assert server.ask(f"/runs/{rows['report-leak']['id']}/report.html")[0] == 404
    assert server.ask(f"/runs/{rows['pipe']['id']}/report.html")[0] == 404
    assert rows["report-leak"]["step"] == rows["inside"]["step"] == 3


def test_a_report_that_is_a_pipe_does_not_block(tmp_path):
    run = write_run(tmp_path / "runs" / "a")
    os.mkfifo(run / "report.html")
    with Server(tmp_path / "runs") as server:
        assert server.ask(f"/runs/{server.ids()['a']}/report.html")[0] == 404


def test_another_address_needs_the_token(tmp_path):
    write_run(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a" / "report.html").write_text(SECRET)
    with Server(tmp_path / "runs", "--host", "0.0.0.0") as server:
        assert len(server.token) >= 40
        status, headers, _ = server.ask("/token", x_token=server.token)
        assert status == 204
        cookie, *flags = headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} == set(flags)
        run = server.json("/api/runs", cookie=f"other=1; {cookie}")["runs"][0]["id"]
        for path in paths_of(run):
            is_open = path in ("/", "/plotly.min.js") or path.startswith("/static/")
            assert (server.ask(path, "HEAD")[0] == 401) == (not is_open), path
            assert server.ask(path, "HEAD", cookie=cookie)[0] != 401 or path == "/token"
        name = cookie.partition("=")[0]
        for wrong in ("", "x", server.token[:-1], server.token + "x", "\xff"):
            assert server.ask("/token", x_token=wrong)[0] == 401
            assert server.ask("/api/runs", cookie=f"{name}={wrong}")[0] == 401
        for odd in (f"{name}", "=;=;", f"{name}x={server.token}", f"a b;{name}=\x01"):
            assert server.ask("/api/runs", cookie=odd)[0] in (400, 401)
        assert server.ask("/api/runs?token=" + server.token)[0] == 401
        # By address it may be called anything that is one; by name only what it is called.
        for host, status in (("192.0.2.7", 200), ("[2001:db8::1]", 200), ("evil.com", 421)):
            asked = server.ask("/api/runs", host=f"{host}:{server.port}", cookie=cookie)
            assert asked[0] == status
    assert re.fullmatch(r"http://\S+:\d+/#token=\S+  \(Ctrl-C ends it\)\n", server.line)


def test_two_starts_have_two_tokens():
    assert security.new_token() != security.new_token()


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("no such name", False),
    ],
)
def test_what_only_this_machine_reaches(host, inside):
    assert is_loopback(host) == inside


def test_a_gate_of_one_name_answers_to_it_alone():
    gate = Gate(None, "192.0.2.7", 80, "token")
    assert gate._is_ours([b"192.0.2.7"]) and gate._is_ours([b"192.0.2.7:80"])
    for host in (b"127.0.0.1", b"192.0.2.8", b"localhost:80", b"192.0.2.7:080x", b"[192.0.2.7"):
        assert not gate._is_ours([host])
