// What the page asks of the server that it came from, over HTTP.
//
// The cookie of the session goes with each request by itself; a token is sent once, in a header, and kept nowhere.

/** The server wants to know who asks. */
export class Unauthorized extends Error {}

/** The server says no: with which status, and in which words. */
export class Refused extends Error {
  constructor(status, said) {
    super(`${status}: ${said}`);
    Object.assign(this, { status, said });
  }
}

const MOST_BYTES = 20_000_000; // of an answer that is drawn

/** The counts of the pipeline. */
export async function overview(signal) {
  return (await ask("/v1/overview", { signal })).json();
}

/**
 * Envelopes of one source from the cache: `{ envelopes, partial }`, where `partial` names the dopplers that could not be asked. Times are
 * decimal strings of nanoseconds: from `start` to before `end`.
 */
export async function read(source, { start, end, limit = 1000, descending = false, kinds = [], name = "" }, signal) {
  const query = new URLSearchParams({ limit });
  if (start) query.set("start_time", start);
  if (end) query.set("end_time", end);
  if (descending) query.set("descending", "true");
  for (const kind of kinds) query.append("envelope_types", kind.toUpperCase());
  if (name) query.set("name_filter", name);
  const answer = await ask(`/api/v1/read/${encodeURIComponent(source)}?${query}`, { signal });
  const body = await answer.json();
  return { envelopes: body.envelopes?.batch ?? [], partial: answer.headers.get("x-hydrant-partial") ?? "" };
}

/**
 * What a query gives: `{ data, warnings }`. `what` is `query` with a `time`, or `query_range` with `start`, `end` and `step`, in seconds.
 */
export async function evaluate(what, params, signal) {
  const answer = await ask(`/api/v1/${what}`, { method: "POST", body: new URLSearchParams(params), signal });
  if (Number(answer.headers.get("content-length")) > MOST_BYTES) {
    await answer.body?.cancel();
    throw new Error("the answer is too large to be drawn: ask for fewer series");
  }
  const { data, warnings = [] } = await answer.json();
  return { data, warnings };
}

/** Names of metrics (`label/__name__/values`), of labels (`labels`), or values of a label, of the series that match. */
export async function named(path, match, signal) {
  const query = match ? `?${new URLSearchParams({ "match[]": match })}` : "";
  return (await (await ask(`/api/v1/${path}${query}`, { signal })).json()).data;
}

/** The labels of the series that match. */
export async function series(match, signal) {
  return named("series", match, signal);
}

/** Shows a token, once; from then on the browser shows its cookie. */
export async function logIn(token) {
  await ask("/v1/session", {
    method: "POST",
    headers: { Authorization: `Bearer ${token.replace(/^bearer\s+/i, "")}` },
  });
}

/** Ends the session. */
export async function logOut() {
  await ask("/v1/session", { method: "DELETE" });
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", credentials: "same-origin", redirect: "error", ...options });
  if (answer.status === 401) throw new Unauthorized(await text(answer));
  if (!answer.ok) throw new Refused(answer.status, await text(answer));
  return answer;
}

async function text(answer) {
  const said = await answer.text();
  try {
    const { message, status, error } = JSON.parse(said);
    if (typeof message === "string") return message;
    if (status === "error" && typeof error === "string") return error;
  } catch {
    // Not JSON: it is the text itself.
  }
  return said.trim().slice(0, 300);
}
