"""Another page in the same browser, with the address of the dashboard: it learns nothing."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from browser.conftest import launch
from browser.served import show

pytest.importorskip("playwright.sync_api")

# Each way to reach the dashboard from a page of another origin; "refused" is what must come back.
TRIES = """async ({url, run}) => {
  const patient = (promise) => Promise.race([promise, new Promise((done) =>
    setTimeout(() => done("no answer"), 3000))]);
  const loads = (tag, attributes) => patient(new Promise((done) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.onload = () => done("loaded");
    node.onerror = () => done("refused");
    document.body.append(node);
  }));
  const fetched = (path, options) => fetch(url + path, options)
    .then(async (r) => `answered ${r.type} ${(await r.text()).length}`, () => "refused");
  return {
    fetch: await fetched("/api/runs"),
    "fetch a run": await fetched(`/api/runs/${run}`),
    "fetch blindly": await fetched("/api/runs", {mode: "no-cors"}),
    "fetch with cookies": await fetched("/api/runs", {credentials: "include"}),
    post: await fetched("/api/runs", {method: "POST", body: "x"}),
    script: await loads("script", {src: url + "/static/app.js"}),
    module: await loads("script", {src: url + "/static/app.js", type: "module"}),
    data: await loads("script", {src: url + "/api/runs"}),
    picture: await loads("img", {src: url + "/static/icon.svg"}),
    style: await loads("link", {rel: "stylesheet", href: url + "/static/app.css"}),
    events: await patient(new Promise((done) => {
      const source = new EventSource(`${url}/api/runs/${run}/stream`);
      source.onmessage = source.onopen = () => done("opened");
      for (const name of ["records", "state", "reset"])
        source.addEventListener(name, () => done("heard"));
      source.onerror = () => { source.close(); done("refused"); };
    })),
    socket: await patient(new Promise((done) => {
      const socket = new WebSocket(url.replace("http", "ws") + "/api/stream");
      socket.onopen = () => done("opened");
      socket.onerror = () => done("refused");
    })),
  };
}"""

FRAME = """(url) => new Promise((done) => {
  const frame = Object.assign(document.createElement("iframe"), {src: url, id: "theirs"});
  frame.onload = () => done();
  document.body.append(frame);
})"""


@pytest.fixture(scope="module")
def elsewhere():
    """A page on another port; gives the port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<!doctype html><title>elsewhere</title><body>"
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


# Another port of the same address is another origin, but the same site; a name is another site.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_from_elsewhere_is_refused_all(browser, site, elsewhere, host):
    run = site.rows()["first"]["id"]
    page = browser.new_page()
    page.goto(f"http://{host}:{elsewhere}/")
    assert page.evaluate("location.origin") != site.url
    found = page.evaluate(TRIES, {"url": site.url, "run": run})
    assert {way: said for way, said in found.items() if said != "refused"} == {}
    for address in (f"{site.url}/", f"{site.url}/#/run/{run}"):
        page.evaluate("document.getElementById('theirs')?.remove()")
        page.evaluate(FRAME, address)
        frame = page.frames[-1]
        assert "sft watch" not in frame.content()
        assert frame.locator("#main").count() == 0
    page.close()


def test_a_name_that_is_made_to_lead_here_is_refused(site, elsewhere, browser):
    """DNS rebinding: the browser thinks that the dashboard belongs to evil.example."""
    fooled = launch(browser.browser_type, "--host-resolver-rules=MAP evil.example 127.0.0.1")
    page = fooled.new_page()
    page.goto(f"http://evil.example:{elsewhere}/")
    assert page.title() == "elsewhere"
    answer = page.goto(f"http://evil.example:{site.port}/")
    assert answer.status == 421
    got = page.evaluate("fetch('/api/runs').then((r) => r.status, () => 'refused')")
    assert got == 421
    fooled.close()


def test_its_own_page_may(tab, site):
    """What the tests above rely on: the same requests from the dashboard's own origin work."""
    run = site.rows()["first"]["id"]
    with tab(site, quiet=False) as page:
        show(page, f"{site.url}/#/")
        found = page.evaluate(TRIES, {"url": site.url, "run": run})
        for way in ("fetch", "fetch a run", "script", "picture", "style", "events"):
            assert found[way] != "refused", way
        assert found["post"].startswith("answered")  # 405, with a word of why
