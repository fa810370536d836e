"""What a page of another site, open in the same browser, gets from `sft watch`: nothing."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from served import Server, write_run

# Each way a page can ask another server for something; what it could read of the answer.
ATTEMPTS = """async (target) => {
  const found = {};
  const attempt = async (name, ask) => {
    try { found[name] = await ask(); } catch (error) { found[name] = "refused"; }
  };
  const event = (thing, good) => new Promise((done) => {
    thing[good] = () => done("read");
    thing.onerror = () => done("refused");
    setTimeout(() => done("refused"), 3000);
  });
  await attempt("fetch", async () => (await fetch(target + "/api/runs")).text());
  await attempt("post", async () => (await fetch(target + "/api/runs", {method: "POST"})).text());
  await attempt("blind", async () =>
    (await (await fetch(target + "/api/runs", {mode: "no-cors"})).text()) || "refused");
  await attempt("events", () => event(new EventSource(target + "/api/stream"), "onmessage"));
  await attempt("socket", () => event(new WebSocket(target.replace("http", "ws")), "onopen"));
  await attempt("script", () => {
    const script = document.createElement("script");
    script.src = target + "/static/format.js";
    document.head.append(script);
    return event(script, "onload");
  });
  await attempt("style", () => {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = target + "/static/app.css";
    document.head.append(link);
    return event(link, "onload");
  });
  await attempt("picture", () => {
    const picture = new Image();
    picture.src = target + "/static/icon.svg";
    return event(picture, "onload");
  });
  const frame = document.createElement("iframe");
  frame.src = target + "/";
  document.body.append(frame);
  await new Promise((done) => { frame.onload = done; });
  return found;
}"""


ASKED = []


class Page(BaseHTTPRequestHandler):
    """A site that serves an empty page, and remembers what it was asked for."""

    def do_GET(self):
        ASKED.append(self.path)
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><body>other site</body>")

    do_POST = do_GET

    def log_message(self, *_arguments):
        pass


@pytest.fixture(scope="module")
def other():
    """The port of another site."""
    site = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield site.server_port
    site.shutdown()
    site.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    runs = tmp_path_factory.mktemp("world") / "runs"
    write_run(runs / "a")
    with Server(runs) as started:
        yield started


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])  # another site, and another port
def test_a_page_of_another_site_reads_nothing(browser, server, other, name):
    page = browser.new_page()
    page.goto(f"http://{name}:{other}/")
    found = page.evaluate(ATTEMPTS, f"http://127.0.0.1:{server.port}")
    assert set(found.values()) == {"refused"}, found
    assert len(found) == 8
    assert "/" in ASKED
    framed = [frame for frame in page.frames if frame != page.main_frame]
    assert [frame.url for frame in framed if str(server.port) in frame.url] == []
    page.close()


def test_our_page_runs_nothing_that_is_not_ours_and_asks_nobody_else(browser, server, other):
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    ASKED.clear()
    ran = page.evaluate(
        """async (other) => {
          const script = document.createElement("script");
          script.textContent = "window.inline = true";
          document.head.append(script);
          const div = document.createElement("div");
          div.innerHTML = "<img src=x onerror='window.handler = true'>";
          document.body.append(div);
          new Image().src = other + "/picture";
          const far = document.createElement("script");
          far.src = other + "/script";
          document.head.append(far);
          navigator.sendBeacon(other + "/beacon", "x");
          const asked = await fetch(other + "/fetch").then(() => true, () => false);
          await new Promise((done) => setTimeout(done, 300));
          return [window.inline, window.handler, asked];
        }""",
        f"http://127.0.0.1:{other}",
    )
    assert ran == [None, None, False]
    assert ASKED == []
    page.close()


def test_the_token_of_the_address_opens_the_page(browser, tmp_path):
    write_run(tmp_path / "runs" / "a")
    with Server(tmp_path / "runs", "--host", "0.0.0.0") as server:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.get_by_text("with its token").wait_for(timeout=20_000)
        page.goto(f"http://127.0.0.1:{server.port}/#token={server.token}")
        page.reload()
        page.get_by_text("step 3 of 100").first.wait_for(timeout=20_000)
        assert server.token not in page.url
        assert page.evaluate("document.cookie") == ""  # no script reads it
        page.close()
