// Server-sent events that survive a server that restarts, a network that sleeps, a hidden tab.

const SILENT = 16_000; // milliseconds; the server says something every 5 s
const WAITS = [500, 1000, 2000, 4000, 8000];

/**
 * Follows `url(cursor)` and calls `on.NAME(data)` for each event NAME of it, `on.up(bool)` when the
 * server is lost or found. Goes on after the last id it saw. Returns `{ close() }`.
 *
 * EventSource reconnects by itself after most faults, but not after a refusal (a server that is
 * just starting behind a tunnel answers 502), and it waits for ever on a dead connection.
 */
export function follow(url, names, on, cursor = null) {
  let source = null;
  let retry = 0;
  let timer = 0;
  let watchdog = 0;
  let closed = false;
  let isUp = null;

  const say = (up) => {
    if (up === isUp) return;
    isUp = up;
    on.up?.(up);
  };
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => lost(), SILENT);
  };
  const stop = () => {
    clearTimeout(watchdog);
    clearTimeout(timer);
    source?.close();
    source = null;
  };
  const lost = () => {
    stop();
    say(false);
    if (closed || document.hidden) return;
    timer = setTimeout(open, WAITS[Math.min(retry, WAITS.length - 1)]);
    retry += 1;
  };
  const open = () => {
    stop();
    if (closed) return;
    source = new EventSource(url(cursor));
    source.onopen = () => {
      retry = 0;
      say(true);
      heard();
    };
    source.onerror = lost;
    for (const name of names) {
      source.addEventListener(name, (event) => {
        heard();
        if (event.lastEventId) cursor = event.lastEventId;
        on[name](JSON.parse(event.data));
      });
    }
    heard();
  };
  // A browser allows few connections to one server: a tab that is not looked at holds none.
  const shown = () => {
    if (document.hidden) stop();
    else open();
  };
  document.addEventListener("visibilitychange", shown);
  open();
  return {
    close() {
      closed = true;
      document.removeEventListener("visibilitychange", shown);
      stop();
    },
  };
}
