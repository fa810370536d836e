// Asking the server. All answers are JSON; nothing is ever sent but GET requests to our origin.

/** What went wrong, in a sentence that can be shown. `status` is 0 where there was no answer. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answer of `path`, such as `/api/runs`. Raises ApiError. `signal` aborts it. */
export async function get(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer. Is `sft watch` still running?");
  }
  if (!response.ok) throw new ApiError(response.status, await reason(response));
  return response.json();
}

async function reason(response) {
  if (response.status === 401) {
    return "This page needs the address that `sft watch` printed, with its token.";
  }
  try {
    const body = await response.json();
    if (typeof body.error === "string") return body.error;
  } catch {
    // not JSON: the status has to do
  }
  return response.status === 404 ? "There is no such run." : `The server answered ${response.status}.`;
}

/** `/api/runs/ID/part?name=value`; values that are null or empty are left out. */
export function runPath(id, part = "", query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(kept).toString();
  return `/api/runs/${encodeURIComponent(id)}${part && "/"}${part}${text && "?"}${text}`;
}

/**
 * Exchanges the token in `#token=...` for a cookie, and takes it out of the address.
 * The fragment never reaches the server, a log or the next page.
 */
export async function exchangeToken() {
  const found = /^#token=([A-Za-z0-9_-]+)$/.exec(location.hash);
  if (!found) return;
  history.replaceState(null, "", "#/");
  const response = await fetch("/token", { headers: { "X-Token": found[1] } });
  if (response.ok) return;
  const what = "The token is not that of this server; use the address that `sft watch` printed last.";
  throw new ApiError(response.status, what);
}
