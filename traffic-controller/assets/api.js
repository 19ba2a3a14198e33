// What the page asks of the server that it came from, over HTTP.
//
// The cookie of the session goes with each request by itself; a token is sent once, in a header, and kept nowhere.

/** The server wants to know who asks. */
export class Unauthorized extends Error {}

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
  if (!answer.ok) throw new Error(`${answer.status}: ${await text(answer)}`);
  return answer;
}

async function text(answer) {
  const said = await answer.text();
  try {
    const { message } = JSON.parse(said);
    if (typeof message === "string") return message;
  } catch {
    // Not JSON: it is the text itself.
  }
  return said.trim().slice(0, 300);
}
