// Reading back in the cache: the rows before those that are held.
//
// What enters: the sources, and what is held at the front. What leaves: older rows, oldest first, none of them held already. Several
// sources are read each by itself, and only as far back as all of them are known.

import { read } from "./api.js";
import { shifted } from "./format.js";
import { fromEnvelope } from "./line.js";

const PAGE = 1000;
const LEAST = 50;

/** Whether time `a` is before time `b`: decimal strings of nanoseconds. */
export function before(a, b) {
  if (a.length === b.length && a[0] !== "-" && b[0] !== "-") return a < b;
  return BigInt(a) < BigInt(b);
}

/**
 * Rows of `sources` up to and at `bound`, a time, of which those of `held` (an iterable of rows) are left out:
 * `{ lines, more, partial }`; `more` says whether the cache may hold older ones.
 */
export async function older(sources, bound, held, kinds, signal) {
  const known = new Set();
  for (const line of held) if (!before(bound, line.nanos)) known.add(line.key);
  let end = shifted(bound, 1);
  for (;;) {
    if (!before("0", end)) return { lines: [], more: false, partial: "" }; // the cache reads from the epoch on
    const page = await pageBefore(sources, end, kinds, signal);
    const fresh = page.lines.filter((line) => !known.has(line.key));
    if (fresh.length > 0 || !page.more) return { ...page, lines: fresh };
    // A page of nothing but what is held: all of it at one time, or known already.
    end = before(page.horizon, end) ? page.horizon : shifted(end, -1);
  }
}

/** Where the newest `count` rows of `sources` begin; empty when there are none. */
export async function newest(sources, count, kinds, signal) {
  const { lines } = await pageBefore(sources, "", kinds, signal, count);
  return lines.length === 0 ? "" : lines[Math.max(0, lines.length - count)].nanos;
}

async function pageBefore(sources, end, kinds, signal, count = PAGE) {
  const limit = Math.max(LEAST, Math.min(PAGE, Math.ceil((2 * count) / (sources.length + 1))));
  const answers = await Promise.all(
    sources.map((source) => read(source, { end, limit, descending: true, kinds }, signal)),
  );
  let lines = [];
  let horizon = "";
  let more = false;
  for (const { envelopes } of answers) {
    const oldest = envelopes.at(-1)?.timestamp;
    if (envelopes.length >= limit) {
      more = true;
      if (horizon === "" || before(horizon, oldest)) horizon = oldest;
    }
    for (const envelope of envelopes) {
      const line = fromEnvelope(envelope);
      if (line) lines.push(line);
    }
  }
  if (horizon !== "") lines = lines.filter((line) => !before(line.nanos, horizon));
  lines.reverse();
  lines.sort((a, b) => (before(a.nanos, b.nanos) ? -1 : before(b.nanos, a.nanos) ? 1 : 0));
  const partial = [...new Set(answers.map((answer) => answer.partial).filter(Boolean))].join(", ");
  return { lines, more, horizon: horizon || (lines[0]?.nanos ?? "0"), partial };
}
